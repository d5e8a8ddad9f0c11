//go:build !crash

package crash

// Begin starts to count anew: a call has come.
func Begin(string) {}

// Point is one place.
func Point(string) {}

// Step is one place behind a step that was done.
func Step(any) {}
