package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// LinesWritten is what lines did.
type LinesWritten struct {
	Lines uint64 `json:"lines"` // to each file
}

// lines appends "PREFIX/NAME n" to each file, rate times a second, one write(2) a line, as programs do that log. A
// target is NAME=FILE.
func lines(ctx context.Context, prefix string, rate int, targets []string) (_ *LinesWritten, err error) {
	var files []*os.File
	var names []string
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, target := range targets {
		name, path, ok := strings.Cut(target, "=")
		if !ok {
			return nil, fmt.Errorf("lines: %q is not NAME=FILE", target)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		files, names = append(files, f), append(names, name)
	}
	n, err := pace(ctx, rate, func(n uint64) error {
		for i, f := range files {
			if _, err := fmt.Fprintf(f, "%s/%s %d\n", prefix, names[i], n); err != nil {
				return err
			}
		}
		return nil
	})
	return &LinesWritten{n}, err
}
