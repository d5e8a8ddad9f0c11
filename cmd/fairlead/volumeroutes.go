package main

import (
	"errors"
	"net/http"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/volumes"
	"github.com/fairlead-dev/fairlead/volumes/backup"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

// volumeRequest is what the operations on volumes are asked by; each uses some of it.
type volumeRequest struct {
	Volume     string `json:"volume,omitempty"`
	Repository string `json:"repository,omitempty"`
	Backup     string `json:"backup,omitempty"`
	To         string `json:"to,omitempty"`
	ID         string `json:"id,omitempty"` // of a snapshot or a backup
}

func (q volumeRequest) wanted() volumes.Wanted {
	return volumes.Wanted{Volume: q.Volume, ID: q.Backup, Repository: q.Repository}
}

type snapshotsAnswer struct {
	Snapshots []snapshot.Info `json:"snapshots"`
	Problems  []string        `json:"problems"`
}

// volumeRoutes are the operator API of the part volumes.
func volumeRoutes(s *api.Server, v *volumes.Volumes) {
	s.Handle("GET /v1/volumes", func(*http.Request) (any, error) { return v.Volumes(), nil })
	s.Handle("GET /v1/volumes/snapshots", func(*http.Request) (any, error) {
		list, err := v.Snapshots()
		a := snapshotsAnswer{Snapshots: list, Problems: []string{}}
		if err != nil {
			a.Problems = append(a.Problems, err.Error())
		}
		return a, nil
	})
	s.Handle("GET /v1/volumes/backups", func(r *http.Request) (any, error) {
		c, err := v.Backups(r.Context())
		return c, volumeStatus(err)
	})
	work := func(pattern string, f func(r *http.Request, q volumeRequest, say func(volumes.Progress)) (any, error)) {
		s.HandleStream(pattern, func(r *http.Request, say func(any)) (any, error) {
			var q volumeRequest
			if err := api.Body(r, &q); err != nil {
				return nil, err
			}
			a, err := f(r, q, func(p volumes.Progress) { say(p) })
			return a, volumeStatus(err)
		})
	}
	work("POST /v1/volumes/snapshot", func(r *http.Request, q volumeRequest, say func(volumes.Progress)) (any, error) {
		return v.Snapshot(r.Context(), q.Volume, say)
	})
	work("POST /v1/volumes/backup", func(r *http.Request, q volumeRequest, say func(volumes.Progress)) (any, error) {
		return v.Backup(r.Context(), q.Volume, q.Repository, say)
	})
	work("POST /v1/volumes/restore", func(r *http.Request, q volumeRequest, say func(volumes.Progress)) (any, error) {
		return v.Restore(r.Context(), q.wanted(), q.To, say)
	})
	work("POST /v1/volumes/verify", func(r *http.Request, q volumeRequest, say func(volumes.Progress)) (any, error) {
		return v.Verify(r.Context(), q.wanted(), say)
	})
	work("POST /v1/volumes/remove", func(r *http.Request, q volumeRequest, _ func(volumes.Progress)) (any, error) {
		return v.Remove(r.Context(), q.ID)
	})
}

// volumeStatus gives an error the HTTP status that fits it.
func volumeStatus(err error) error {
	var status int
	switch {
	case err == nil:
		return nil
	case errors.Is(err, volumes.ErrUnknown), errors.Is(err, snapshot.ErrUnknown), errors.Is(err, backup.ErrUnknown):
		status = http.StatusNotFound
	case errors.Is(err, volumes.ErrBusy), errors.Is(err, snapshot.ErrHeld), errors.Is(err, backup.ErrBusy), errors.Is(err, backup.ErrNotEmpty), errors.Is(err, volumes.ErrAmbiguous):
		status = http.StatusConflict
	case errors.Is(err, volumes.ErrNotReady):
		status = http.StatusServiceUnavailable
	case errors.As(err, new(*backup.FullError)):
		status = http.StatusInsufficientStorage
	default:
		return err
	}
	return api.Errorf(status, "%v", err)
}
