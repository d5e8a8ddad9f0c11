package volumes

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/volumes/backup"
)

// LastBackup is how the last backup of a volume ended.
type LastBackup struct {
	Volume     string    `json:"volume"`
	Repository string    `json:"repository"`
	ID         backup.ID `json:"id,omitempty"`    // of a backup that was made
	At         time.Time `json:"at"`              // its end
	Error      string    `json:"error,omitempty"` // why it failed; empty when it was made
}

const lastFile = "last-backups.json"

// LastBackups gives, for each volume of this host that was ever backed up here, how that went last, by name. A backup
// that is at work does not count yet; one that was killed has failed.
func (v *Volumes) LastBackups() []LastBackup {
	here := map[string]bool{}
	for _, vol := range v.Volumes() {
		here[vol.Name] = true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	out := []LastBackup{}
	for name, l := range v.last {
		if here[name] {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b LastBackup) int { return cmp.Compare(a.Volume, b.Volume) })
	return out
}

// backingUp notes that a backup begins; ended must be called with what came of it. Until then the disk, and only the
// disk, says that it failed: a killed agent has no other way to say so.
func (v *Volumes) backingUp(vol Volume, where Repository) (ended func(backup.ID, error)) {
	l := LastBackup{Volume: vol.Name, Repository: where.Name, At: time.Now().UTC(), Error: "the agent was ended in the middle"}
	v.keepLast(l)
	return func(id backup.ID, err error) {
		l.At = time.Now().UTC()
		if err != nil {
			l.Error = err.Error()
		} else if id != "" { // else it panicked
			l.ID, l.Error = id, ""
		}
		v.keepLast(l)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.last[vol.Name] = l
	}
}

// keepLast writes l down beside what is known of the other volumes. A backup does not fail for it.
func (v *Volumes) keepLast(l LastBackup) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next := maps.Clone(v.last)
	next[l.Volume] = l
	if err := v.deps.State.WriteJSON(lastFile, next); err != nil {
		v.deps.Log.Warn("how the last backup went could not be noted", "volume", l.Volume, "err", err)
	}
}
