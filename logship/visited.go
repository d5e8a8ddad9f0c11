package logship

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// visitedFile is one path in a container, copied to a spool. It is open only while a piece of it is read. Each line of
// the spool says where in the file it ended, so nothing is missing or there twice after a crash.
type visitedFile struct {
	key, path string
	src       ledger.Source
	sp        *spool
	at        *tail.Place // behind what the spool has; nil: nothing
	seen      tail.Glance
	looked    time.Time
	away      time.Time // since when it is not there; zero when it is
	idle      bool      // there was no more when seen was taken
	grew      bool      // between the last two looks
	lost      int64
	failing   bool
}

func openVisited(key, path string, src ledger.Source, lag func() int64) (*visitedFile, error) {
	sp, err := openSpool(src.Path, lag)
	if err != nil {
		return nil, err
	}
	f := &visitedFile{key: key, path: path, src: src, sp: sp}
	lines, err := sp.last()
	if err != nil {
		return nil, errors.Join(err, sp.close())
	}
	for i := len(lines) - 1; i >= 0 && f.at == nil; i-- {
		f.at = placeOf(cursorOf(lines[i]))
	}
	return f, nil
}

func (f *visitedFile) close() { _ = f.sp.close() }

func (f *visitedFile) takeLost() (n int64) {
	n, f.lost = f.lost, 0
	return n
}

// read copies what is new. It waits for sinks that are far behind only as long as ctx lasts, and that in the end only:
// before, the file waits.
func (f *visitedFile) read(ctx context.Context, root tail.Root, last bool) (grew bool, err error) {
	written := 0
	for ctx.Err() == nil {
		if !last && f.sp.lag() > spoolBehind {
			return grew, nil
		}
		p, err := f.piece(root, last)
		if err != nil {
			return grew, err
		}
		if len(p.text) > 0 {
			if err := f.write(ctx, p.text, last); err != nil {
				break
			}
			grew, written = true, written+len(p.text)
		}
		if p.to != nil {
			f.at = p.to
		}
		if !p.more {
			return grew, nil
		}
		if written < spoolSegment {
			continue
		}
		if written = 0; !last { // the follower must see each segment before it is rotated away
			return grew, nil
		}
		sleep(ctx, 50*time.Millisecond)
	}
	if last { // the sinks have not made room
		f.lost += max(1, f.seen.Size-f.offset())
	}
	return grew, nil
}

// write puts a piece into the spool. While the container lives it does not wait for the sinks, for it may end meanwhile: the
// piece is read again at the next look.
func (f *visitedFile) write(ctx context.Context, text []byte, last bool) error {
	if !last {
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		ctx = soon
	}
	return f.sp.write(ctx, text)
}

func (f *visitedFile) offset() int64 {
	if f.at == nil || !f.at.Same(f.seen.Identity) {
		return 0 // all of the newest generation, at least
	}
	return f.at.Offset
}

// piece reads at most one piece and gives the lines in it as the spool has them, and the place behind them. The file is
// open for no longer than that.
func (f *visitedFile) piece(root tail.Root, last bool) (*piece, error) {
	none := &piece{}
	now, err := root.Glance(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, tail.ErrNotRegular):
		if f.away.IsZero() {
			f.away = time.Now()
		}
	case err != nil:
		return none, err
	default:
		f.away = time.Time{}
		if f.idle && now == f.seen && !last {
			f.grew = false
			return none, nil
		}
	}
	var saved []tail.Place
	if f.at != nil {
		saved = append(saved, *f.at)
	}
	s := tail.NewSeries(root, f.path, nil, false, func(tail.Identity) bool { return false }, saved)
	defer s.Close(false)
	if _, err := s.Look(); err != nil {
		return none, err
	}
	g := f.find(s, last)
	if f.away.IsZero() {
		f.grew = !f.looked.IsZero() && now.Changed > f.looked.UnixNano()
		f.looked, f.seen = time.Now(), now
	}
	if g == nil {
		return none, nil
	}
	p := &piece{gen: g, off: f.at.Offset, last: last, stamp: f.sp.stamp()}
	if err := p.read(); err != nil {
		return none, fmt.Errorf("read %s in a container: %w", f.path, err)
	}
	f.idle = !p.more && !p.waiting
	return p, nil
}

// find gives the generation that is to be read on, at f.at, or nil. What went before it was read is counted.
func (f *visitedFile) find(s *tail.Series, last bool) *tail.Generation {
	if f.at == nil {
		if g := s.First(); g != nil {
			f.at = &tail.Place{Identity: g.Identity(), Proof: g.Proof(0)}
			return g
		}
		return nil
	}
	g, found, lost := s.Find(*f.at)
	if !found && f.grew {
		lost = max(1, lost) // it grew until it was last looked at, and hardly ended just then
	}
	switch {
	case g == nil && !last:
		return nil // its path may be away for a moment
	case g == nil:
		f.at = nil
	case !found:
		f.at = &tail.Place{Identity: g.Identity(), Proof: g.Proof(0), Seen: g.Seen()}
	default:
		f.at.Seen -= lost // a copy has no more
	}
	f.lost += lost
	return g
}

// tagged gives a place as it stands in the spool, and placeOf reads it.
func tagged(b []byte, p *tail.Place) []byte {
	for i, n := range []uint64{p.Dev, p.Ino, uint64(p.Birth), uint64(p.Offset), p.Head, p.Tail} {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, n, 36)
	}
	return b
}

func placeOf(tag string) *tail.Place {
	var n [6]uint64
	parts := strings.Split(tag, ".")
	if len(parts) != len(n) {
		return nil
	}
	for i, s := range parts {
		var err error
		if n[i], err = strconv.ParseUint(s, 36, 64); err != nil {
			return nil
		}
	}
	return &tail.Place{Identity: tail.Identity{Dev: n[0], Ino: n[1], Birth: int64(n[2])}, Proof: tail.Proof{Head: n[4], Tail: n[5]}, Offset: int64(n[3]), Seen: int64(n[3])}
}
