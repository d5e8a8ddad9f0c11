package backup

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/zeebo/blake3"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

func TestContentThatIsNotWhatWasBackedUpIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{Name: "test", Path: filepath.Join(dir, "repository"), Key: "key", Work: filepath.Join(dir, "work"), Node: "here"}
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	var id object.ID
	err = repo.WriteSession(t.Context(), r.repo, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) (err error) {
		o := w.NewObjectWriter(ctx, object.WriterOptions{})
		defer o.Close()
		if _, err := o.Write([]byte("content")); err != nil {
			return err
		}
		id, err = o.Result()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	good := Entry{Node: tree.Node{Kind: tree.File, Size: 7}, Object: id.String(), Hash: blake3.Sum256([]byte("content"))}
	if err := r.content(t.Context(), good, nil, &meter{}); err != nil {
		t.Errorf("what was backed up: %v", err)
	}
	for name, spoil := range map[string]func(*Entry){
		"another content":  func(e *Entry) { e.Hash = blake3.Sum256([]byte("other")) },
		"more than stored": func(e *Entry) { e.Size = 8 },
		"less than stored": func(e *Entry) { e.Size, e.Hash = 6, blake3.Sum256([]byte("conten")) },
	} {
		e := good
		spoil(&e)
		if err := r.content(t.Context(), e, nil, &meter{}); !errors.Is(err, ErrContent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := r.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("without a manifest there are %+v (%v)", list, err)
	}
	other := o
	other.Path = filepath.Join(dir, "nowhere")
	if _, err := Open(t.Context(), other); !errors.Is(err, ErrMissing) {
		t.Errorf("where nothing is: %v", err)
	}
}
