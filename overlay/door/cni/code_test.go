package cni

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

func TestWhatPassesByItselfIsToBeTriedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want wire.Code
	}{
		{overlay.ErrNotReady, wire.CodeTryLater},
		{fmt.Errorf("address: %w: %w", overlay.ErrTryLater, store.ErrAway), wire.CodeTryLater},
		{context.DeadlineExceeded, wire.CodeTryLater},
		{&store.HeldError{Holder: "web1"}, wire.CodeFailed},
		{&overlay.ForeignAddressError{Holder: "web1"}, wire.CodeFailed},
		{&overlay.UnknownNetworkError{Name: "blue"}, wire.CodeInvalidConfig},
		{&overlay.InvalidRequestError{Reason: "no"}, wire.CodeInvalidEnv},
		{errors.New("other"), wire.CodeFailed},
	} {
		if got := code(fmt.Errorf("attach: %w", c.err)); got != c.want {
			t.Errorf("%v: code %d, want %d", c.err, got, c.want)
		}
	}
}
