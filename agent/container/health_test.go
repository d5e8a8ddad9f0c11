package container

import (
	"encoding/json"
	"testing"
)

func TestHealthAndRestartsAreWhatTheEngineSays(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Container{
		`{"Id":"a","State":{"Status":"running","Health":{"Status":"unhealthy"}},"RestartCount":2}`: {Health: "unhealthy", Restarts: 2},
		`{"Id":"a","State":{"Status":"running","Health":{"Status":"none"}}}`:                       {},
		`{"Id":"a","State":{"Status":"running"}}`:                                                  {},
	} {
		var i inspected
		if err := json.Unmarshal([]byte(text), &i); err != nil {
			t.Fatal(err)
		}
		if got := i.container("docker"); got.Health != want.Health || got.Restarts != want.Restarts {
			t.Errorf("%s: %q, %d", text, got.Health, got.Restarts)
		}
	}
}
