package supervisor

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// State is where a part is in its life.
type State string

// The states.
const (
	Starting   State = "starting"    // Run was called and has not yet said that it works
	Running    State = "running"     //
	BackingOff State = "backing-off" // it faulted and will be started again
	Stopped    State = "stopped"     // it was told to stop and did
)

// PartHealth is how one part fares.
type PartHealth struct {
	Name      string    `json:"name"`
	State     State     `json:"state"`
	Since     time.Time `json:"since"` // when State last changed
	Restarts  int       `json:"restarts"`
	LastError string    `json:"last_error,omitempty"` // of its last fault, kept after it runs again
	LastFault time.Time `json:"last_fault,omitzero"`
}

// Health tells how each part fares, in the order of Run. The result is the caller's.
func (s *Supervisor) Health() []PartHealth {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]PartHealth, len(s.members))
	for i, m := range s.members {
		out[i] = m.health
	}
	return out
}

// ailing names the parts that do not run, with their state. The lock is held.
func (s *Supervisor) ailing() []string {
	var out []string
	for _, m := range s.members {
		if h := m.health; h.State != Running {
			out = append(out, fmt.Sprintf("%s (%s)", h.Name, h.State))
		}
	}
	return out
}

// summary is one line for people, and whether all is well.
func (s *Supervisor) summary() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ailing := s.ailing(); len(ailing) > 0 {
		return "not running: " + strings.Join(ailing, ", "), false
	}
	if len(s.members) == 0 {
		return "not started", false
	}
	return fmt.Sprintf("all %d parts run", len(s.members)), true
}

// ServeHealthz answers 200 when every part runs, else 503; both with each part's health as JSON and a status line
// that names the parts which do not run.
func (s *Supervisor) ServeHealthz(w http.ResponseWriter, _ *http.Request) {
	status, healthy := s.summary()
	answer := struct {
		Healthy bool         `json:"healthy"`
		Status  string       `json:"status"`
		Parts   []PartHealth `json:"parts"`
	}{healthy, status, s.Health()}
	code := http.StatusOK
	if !healthy {
		code = http.StatusServiceUnavailable
	}
	body, err := json.MarshalIndent(answer, "", "  ")
	if err != nil { // a struct of plain fields cannot fail; a time beyond year 9999 would
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that went away is nobody's fault
}
