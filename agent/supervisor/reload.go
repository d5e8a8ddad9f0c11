package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/agent"
)

// Reloader is one part's way to take changed settings while it runs.
type Reloader struct {
	Part string
	// Keys are those it can take, each with all below it: "logship.sinks".
	Keys []string
	// Apply takes the new settings, or fails and leaves the old ones in force.
	Apply func(context.Context) error
}

// Reloaded says what became of each changed key.
type Reloaded struct {
	Applied []string `json:"applied"` // in force now
	Restart []string `json:"restart"` // need a restart of the agent
	Failed  []string `json:"failed"`  // were refused; the error says why
}

// Reload hands the changed keys (config.Diff) to the reloaders that can take them. Each reloader concerned is called
// once, in order; one that fails or panics does not keep the others back. systemd is told when it begins and ends.
// It may be called at any time; a second call waits for the first.
func (s *Supervisor) Reload(ctx context.Context, changed []string, reloaders ...Reloader) (Reloaded, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.mu.Lock()
	announced := s.announced
	s.mu.Unlock()
	if announced { // before that, READY=1 would speak for parts that have not come up
		s.say("RELOADING=1\n" + monotonicUsec())
		defer s.say("READY=1")
	}

	var out Reloaded
	var errs []error
	taken := map[string]bool{}
	for _, r := range reloaders {
		var mine []string
		for _, key := range changed {
			if !taken[key] && r.takes(key) {
				taken[key] = true
				mine = append(mine, key)
			}
		}
		if len(mine) == 0 {
			continue
		}
		if err := agent.Go(ctx, r.Apply); err != nil {
			errs = append(errs, fmt.Errorf("reload %s: %w", r.Part, err))
			out.Failed = append(out.Failed, mine...)
			continue
		}
		out.Applied = append(out.Applied, mine...)
	}
	for _, key := range changed {
		if !taken[key] {
			out.Restart = append(out.Restart, key)
		}
	}
	return out, errors.Join(errs...)
}

func (r Reloader) takes(key string) bool {
	for _, k := range r.Keys {
		rest, ok := strings.CutPrefix(key, k)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}
