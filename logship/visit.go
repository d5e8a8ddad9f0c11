package logship

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// The rhythm of visits.
const (
	visitSoon  = 100 * time.Millisecond // while files grow; then ever rarer up to
	visitLate  = time.Second
	lastVisit  = 2 * time.Second // what may be spent on the rest when the container has ended
	awayTime   = time.Minute     // after which no rotation explains that a file is not there
	visitFiles = 256             // of one container: it may make as many as it likes
)

// visit reads the files of one container until its process has ended, and then what is left: the namespace is held until
// that is done, two seconds at most, though nothing else of the container may be there any more.
type visit struct {
	all   *visits
	owner owner
	ns    *tail.Namespace
	asked atomic.Pointer[room]
	files map[string]*visitedFile // by path
	gone  map[string]bool         // that were away for long; they are followed again when they match
	doubt map[string]time.Time    // matches that may be somebody's older generation, since when
	told  *room                   // of what was asked when the follower was last told of all files
	news  time.Time               // when one last grew
	full  bool                    // there were too many, said once
}

func (v *visit) run(ctx context.Context) error {
	ended := make(chan struct{})
	v.all.group.Go(func(context.Context) error {
		v.ns.Wait()
		close(ended)
		return nil
	})
	defer v.close()
	for v.news = time.Now(); ; {
		v.round(ctx, false)
		pause := min(max(time.Since(v.news)/8, visitSoon), visitLate)
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			last, cancel := context.WithTimeout(ctx, lastVisit)
			defer cancel()
			v.round(last, true)
			return nil
		case <-time.After(pause):
		}
	}
}

func (v *visit) close() {
	_ = v.ns.Close()
	for _, f := range v.files {
		f.close()
	}
	v.all.tell(func() {
		delete(v.all.of, v.owner)
		v.all.left = true
	})
}

// round reads what every file has; last tells that nobody will write any more.
func (v *visit) round(ctx context.Context, last bool) {
	root, done, err := v.ns.Root()
	if err != nil {
		v.warn("a container's files could not be looked at", "err", err)
		return
	}
	defer done()
	v.find(root)
	for path, f := range v.files {
		if !v.ready(ctx, f, last) {
			continue
		}
		grew, err := f.read(ctx, root, last)
		if err != nil && !f.failing {
			v.warn("a file inside a container could not be read; it is tried again", "path", path, "err", err)
		}
		if f.failing = err != nil; grew {
			v.news = time.Now()
		}
		if n := f.takeLost(); n > 0 {
			v.all.tell(func() { v.all.lost[f.key] += n })
		}
		if !f.away.IsZero() && time.Since(f.away) > awayTime {
			f.close()
			delete(v.files, path)
			v.gone[path] = true
			v.all.tell(func() { v.all.ended = append(v.all.ended, f.key) })
		}
	}
}

// ready tells whether a file's spool may be written to. At the end of the container the follower is waited for.
func (v *visit) ready(ctx context.Context, f *visitedFile, last bool) bool {
	for !v.all.followed(f.key) {
		if !last || !sleep(ctx, 5*time.Millisecond) {
			return false
		}
	}
	return true
}

// find looks for files that match.
func (v *visit) find(root tail.Root) {
	asked := v.asked.Load()
	top := uint64(0)
	if g, err := root.Glance("/"); err == nil && asked.upper {
		top = g.Mount
	}
	for _, path := range asked.known {
		if v.files[path] == nil && !v.gone[path] {
			v.take(path)
		}
	}
	for _, g := range asked.globs {
		matches, _, _ := root.Glob(g.pattern) // what cannot be read now can be later
		for _, m := range matches {
			now, err := root.Glance(m)
			if err != nil || top != 0 && now.Mount == top || v.known(m, now.Identity) || v.doubtful(m) {
				continue
			}
			if len(v.files) >= visitFiles {
				if !v.full {
					v.full = true
					v.warn("a container has more files that its label asks for than are read", "path", m, "limit", visitFiles)
				}
				return
			}
			v.take(m)
		}
	}
	for _, f := range v.files {
		if v.told != asked || !v.all.followed(f.key) {
			v.report(f, asked)
		}
	}
	v.told = asked
}

func (v *visit) known(path string, id tail.Identity) bool {
	for p, f := range v.files {
		if p == path || f.seen.Same(id) {
			return true
		}
	}
	return false
}

// doubtful tells whether a match looks like an older generation: of a file that is known, or, at the first look, of one
// that is away for a moment.
func (v *visit) doubtful(match string) bool {
	if tail.Rotated(match, func(p string) bool { return v.files[p] != nil }) {
		return true
	}
	if !tail.Rotated(match, func(string) bool { return true }) {
		return false
	}
	since, seen := v.doubt[match]
	if !seen {
		if len(v.doubt) > visitFiles {
			clear(v.doubt)
		}
		since = time.Now()
		v.doubt[match] = since
	}
	return time.Since(since) < settleTime
}

// take begins to read a file.
func (v *visit) take(path string) {
	key := string(v.owner.Runtime) + "/" + string(v.owner.ID) + ":ns:" + path
	l := v.all.l
	src := ledger.Source{Root: tail.Host, Path: l.spoolFile(key), Format: container.CRI}
	f, err := openVisited(key, path, src, func() int64 { return l.lag(key) })
	if err != nil {
		v.warn("spool could not be opened; it is tried again", "path", path, "err", err)
		return
	}
	v.files[path] = f
}

// report gives the follower a file's stream, and again when more is known of its container.
func (v *visit) report(f *visitedFile, asked *room) {
	origin := *asked.globs[0].origin
	origin.Path = f.path
	f.src.Origin = &origin
	v.all.tell(func() { v.all.found[f.key] = visitedLog{f.src, v.owner} })
}

func (v *visit) warn(text string, args ...any) {
	v.all.l.deps.Log.Warn(text, append([]any{"container", v.owner.ID}, args...)...)
}
