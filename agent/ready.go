package agent

import "context"

type readyKey struct{}

// WithReady gives a context in which Ready calls ready. The supervisor makes one for each start of a part.
func WithReady(ctx context.Context, ready func()) context.Context {
	return context.WithValue(ctx, readyKey{}, ready)
}

// Ready says that the part that was given ctx does its work from now on: its socket is bound, its host is repaired.
// A part that never says so counts as running once it has lasted a second. It may be called twice, and with any
// context; it does not block.
func Ready(ctx context.Context) {
	if ready, ok := ctx.Value(readyKey{}).(func()); ok {
		ready()
	}
}
