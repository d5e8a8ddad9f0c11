// Package crash holds the numbered places at which a test build of the agent and of the plugin dies, as kill -9 would
// have it: `go build -tags=crash`. In every other build its functions are empty and cost nothing.
//
// A test build dies at the place that FAIRLEAD_CRASH_AT names ("ADD:7": the seventh place that an ADD passes), and with
// FAIRLEAD_CRASH_LOG it writes the places that it passes into that file.
package crash
