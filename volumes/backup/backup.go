// Package backup keeps whole directory trees in a repository and gives them back identical.
//
//	tree (a snapshot) ── walk ─> entries ── encode ─> one object a directory ─┐
//	                        └── data of files, holes left out ─> one object a file ─┴─> kopia's object store ─> packs
//	restore: manifest ─> root ─> directory objects ─> tree.Make ... and the hash of every file is compared
//
// The store is kopia's: chunks, deduplication, compression, encryption, several writers without locks. The walker, the
// format of a directory and the restorer are ours, because kopia's lose attributes, links, devices, names and times
// without an error (docs/decisions/0008-kopia-as-a-store.md).
//
// A repository directory holds everything that a restore on another host needs, but for its key. A backup counts from
// its manifest on, which is written last; what a killed one had stored is found again by the next as duplicate data.
package backup

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// ID names a backup within its repository: 32 hexadecimal digits.
type ID string

// Source says what a backup is of.
type Source struct {
	Volume   string    `json:"volume"`
	Node     string    `json:"node"`
	Path     string    `json:"path"`     // of the volume on that node
	Snapshot string    `json:"snapshot"` // the driver that took what was read
	Taken    time.Time `json:"taken"`    // when that was
	Changed  []string  `json:"changed,omitempty"`
}

// Manifest is one backup, as the repository holds it.
type Manifest struct {
	ID     ID  `json:"id,omitempty"`
	Format int `json:"format"`
	Source
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Counts
	Stored int64 `json:"stored"` // bytes that this backup added to the repository
	// Skipped are directories that are empty in the backup because another file system is mounted there.
	Skipped []string `json:"skipped,omitempty"`
	// Root is the root directory's entry as package backup encodes entries, in base 64.
	Root string `json:"root,omitempty"`
}

// Counts are what a tree has.
type Counts struct {
	Entries int64 `json:"entries"` // names, the root too
	Files   int64 `json:"files"`   // names of files
	Bytes   int64 `json:"bytes"`   // of data; a file with two names counts once, holes do not
}

// treeFormat is the version of the entries' encoding.
const treeFormat = 1

// manifestType marks our manifests among others in a repository that kopia's own program may use, too.
const manifestType = "fairlead-backup"

// ErrUnknown is returned for a backup that the repository does not have.
var ErrUnknown = errors.New("no such backup")

func (m *Manifest) root() (Entry, error) {
	if m.Format != treeFormat {
		return Entry{}, fmt.Errorf("backup %s has tree format %d, this build knows %d", m.ID, m.Format, treeFormat)
	}
	b, err := base64.StdEncoding.DecodeString(m.Root)
	if err == nil {
		var e Entry
		if e, err = decodeEntry(b); err == nil {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("backup %s: read root: %w", m.ID, err)
}
