// Package agent holds what every part of the daemon stands on: the Part that the supervisor runs and the Group that
// a part starts its goroutines in. The folders below it keep the parts running (supervisor), know every container on
// the host (container), answer operators (api), and touch files, limits and counters for all (state, host, stat).
//
// It owns nothing on the host; after a crash there is nothing to bring back.
package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// Part is one supervised component of the daemon: overlay, metrics, logship, the operator API.
type Part struct {
	// Name is the part's key in the configuration, in logs (part=...), in `fairlead status` and in metrics.
	Name string
	// Run does the part's work until ctx ends, then returns nil within a few seconds. Any other return, and any
	// panic, is a fault: the supervisor calls Run again after a back-off, so Run must be able to start anew from what
	// the host shows.
	Run func(ctx context.Context) error
}

// Go calls f and returns its error; a panic in f becomes a *PanicError that carries the stack.
// It blocks until f returns.
func Go(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f(ctx)
}

// PanicError is what a panic becomes on its way to the supervisor.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap gives the panic's value when it was an error itself.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Group runs the goroutines of one part and waits for all of them. The first that fails or panics ends the context of
// its siblings; they belong together, unlike parts, which the supervisor keeps apart.
// A Group is used once; its methods are safe for concurrent use.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// NewGroup returns a Group whose goroutines get a context that ends with ctx or with the first fault.
func NewGroup(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: ctx, cancel: cancel}
}

// Go starts f in a goroutine of its own. It does not block.
func (g *Group) Go(f func(context.Context) error) {
	g.wg.Go(func() {
		if err := Go(g.ctx, f); err != nil {
			g.cancel(fault{err})
		}
	})
}

// Wait blocks until every goroutine has returned and gives the first fault, or nil when they ended because the
// parent context did.
func (g *Group) Wait() error {
	g.wg.Wait()
	cause := context.Cause(g.ctx)
	g.cancel(nil)
	if f, ok := errors.AsType[fault](cause); ok {
		return f.error
	}
	return nil
}

// fault tells what a goroutine returned from the end of the parent context: a goroutine whose own deadline has passed
// returns the same context.DeadlineExceeded, and that is a fault.
type fault struct{ error }

func (f fault) Unwrap() error { return f.error }
