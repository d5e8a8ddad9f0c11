package logship

import (
	"slices"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// ask brings the globs of containers up to date, with what their mount tables say now.
func (f *follower) ask() {
	f.globs = slices.DeleteFunc(f.globs, func(g *glob) bool { return g.origin != nil })
	if f.snap == nil {
		return
	}
	_, gone := f.living(f.snap)
	for i := range f.snap.Containers {
		f.inquire(&f.snap.Containers[i])
	}
	for i := range f.snap.Gone {
		if c := &f.snap.Gone[i].Container; gone[owner{c.Runtime, c.ID}] {
			f.inquire(c)
		}
	}
}

// inquire finds out where the files lie that a container's label asks for.
func (f *follower) inquire(c *container.Container) {
	if c.Labels[LabelLogs] == "" {
		return
	}
	o := owner{c.Runtime, c.ID}
	pid := c.PID
	if !c.Alive() {
		pid = 0
	}
	found, inner, unreachable := insides(c, mountsOf(f.l.root().Proc, pid))
	if len(unreachable) > 0 && c.Alive() && !f.said[o] {
		f.said[o] = true
		f.log.Warn("files of a container cannot be reached from the host", "container", c.ID, "name", c.Name, "path", unreachable)
	}
	of := origin(f.l.deps.Host, c)
	for _, in := range found {
		f.globs = append(f.globs, &glob{inside: in, owner: o, origin: of})
	}
	if len(inner) == 0 || pid == 0 {
		return
	}
	var globs []*glob
	for _, in := range inner {
		globs = append(globs, &glob{inside: in, owner: o, origin: of})
	}
	f.visit(o, f.roomOf(c, globs))
}
