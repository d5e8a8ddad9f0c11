package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/api"
)

const topHelp = `fairlead top [--sort cpu|memory|threads|name] [--interval 2s] [--once] [--json]

Containers that live, live: the busiest first. q or Ctrl-C ends it; c, m, t and n sort. --once prints one picture and
ends, for scripts. Example:

  fairlead top --sort memory`

// sorters are the orders of fairlead top, by name; their first letters are keys.
var sorters = map[string]func(a, b psRow) int{
	"cpu":     func(a, b psRow) int { return -cmp.Compare(zero(a.CPUs), zero(b.CPUs)) },
	"memory":  func(a, b psRow) int { return -cmp.Compare(memoryOf(a), memoryOf(b)) },
	"threads": func(a, b psRow) int { return -cmp.Compare(threadsOf(a), threadsOf(b)) },
	"name":    func(psRow, psRow) int { return 0 },
}

func runTop(e env, args []string) error {
	f := newFlags(e, "top", topHelp).client()
	by := f.String("sort", "cpu", "`order`: cpu, memory, threads or name")
	every := f.Duration("interval", 2*time.Second, "time between two pictures")
	once := f.Bool("once", false, "print one picture and end")
	if err := f.parse(args); err != nil {
		return err
	}
	switch {
	case sorters[*by] == nil:
		return misuse("--sort: expected cpu, memory, threads or name, found %q", *by)
	case *every < 500*time.Millisecond:
		return misuse("--interval: expected at least 500ms, found %s", *every)
	}
	if *once || *f.json {
		var rows []psRow
		printed, err := f.ask(e, "/v1/containers", &rows)
		if err != nil || printed {
			return err
		}
		const wide = 1 << 10
		_, err = io.WriteString(e.stdout, topPicture(rows, *by, time.Now(), 80, wide))
		return err
	}
	c, err := f.dial()
	if err != nil {
		return err
	}
	return liveTop(e, c, *by, *every)
}

// liveTop draws until it is told to end. The terminal is left as it was found.
func liveTop(e env, c *api.Client, by string, every time.Duration) error {
	out, ok := e.stdout.(*os.File)
	if !ok || !isTerminal(out) {
		return misuse("standard output is no terminal; --once prints one picture")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	keys, restore := listen()
	defer restore()
	// The other screen, without a cursor, so that what was on this one is there again afterwards.
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")
	defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l")
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)

	var rows []psRow
	for due := true; ; {
		if due {
			if err := fetchTop(ctx, c, &rows); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
		width, height := dimensions(out)
		// Each line is erased behind its end: a picture drawn over the one before does not flicker.
		picture := strings.ReplaceAll(topPicture(rows, by, time.Now(), width, height), "\n", "\x1b[K\n")
		fmt.Fprint(out, "\x1b[H"+strings.TrimSuffix(picture, "\n")+"\x1b[J")
		timer := time.NewTimer(every)
		due = false
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-timer.C:
			due = true
		case key, more := <-keys:
			if !more {
				keys = nil // standard input ended; signals still end us
			}
			if key == 'q' || key == 'Q' || key == 3 {
				return nil
			}
			for name := range sorters {
				if key == name[0] {
					by = name
				}
			}
		}
		timer.Stop()
	}
}

func fetchTop(ctx context.Context, c *api.Client, rows *[]psRow) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var next []psRow
	err := c.Get(ctx, "/v1/containers", &next)
	*rows = next
	return err
}

// topPicture draws rows as text of at most so many columns and lines.
func topPicture(rows []psRow, by string, now time.Time, width, height int) string {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r psRow) bool { return !r.Alive() || r.Sandbox })
	slices.SortFunc(rows, func(a, b psRow) int {
		return cmp.Or(sorters[by](a, b), strings.Compare(a.Name, b.Name), strings.Compare(string(a.ID), string(b.ID)))
	})
	var cores, memory float64
	for _, r := range rows {
		cores += zero(r.CPUs)
		memory += float64(memoryOf(r))
	}
	var b strings.Builder
	line := func(text string) { b.WriteString(strings.TrimRight(clip(text, width), " ") + "\n") }
	containers := "1 container"
	if len(rows) != 1 {
		containers = fmt.Sprintf("%d containers", len(rows))
	}
	line(fmt.Sprintf("%s  %s  %.2f cores  %s  by %s", now.Format("15:04:05"), containers, cores, size(uint64(memory)), by))
	name := max(12, width-63) // what the other columns leave
	line(fmt.Sprintf("%-*s %-12s %-10s %12s %18s %5s", name, "NAME", "ID", "RUNTIME", "CPU", "MEMORY", "TASKS"))
	for i, r := range rows {
		if i >= height-2 {
			break
		}
		tasks := "-"
		if r.Usage != nil && r.Usage.Threads != nil {
			tasks = fmt.Sprint(*r.Usage.Threads)
		}
		line(fmt.Sprintf("%-*s %-12s %-10s %12s %18s %5s", name, clip(rowName(r), name), r.ID.Short(), clip(string(r.Runtime), 10),
			cmp.Or(cpuCell(r), "-"), cmp.Or(memoryCell(r), "-"), tasks))
	}
	return b.String()
}

func rowName(r psRow) string {
	if r.Pod.Name != "" {
		return r.Pod.Name + "/" + r.Name
	}
	return r.Name
}

// clip shortens text to so many columns; the end of what is cut shows "~".
func clip(text string, width int) string {
	runes := []rune(text)
	for i, r := range runes { // a name must not steer the terminal
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			runes[i] = '?'
		}
	}
	if len(runes) > width && width > 0 {
		runes = append(runes[:width-1], '~')
	}
	return string(runes)
}

func zero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

func memoryOf(r psRow) uint64 {
	if r.Usage == nil || r.Usage.MemoryBytes == nil {
		return 0
	}
	return *r.Usage.MemoryBytes
}

func threadsOf(r psRow) uint64 {
	if r.Usage == nil || r.Usage.Threads == nil {
		return 0
	}
	return *r.Usage.Threads
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// dimensions are those of the terminal, or 80 by 24.
func dimensions(f *os.File) (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// listen gives the keys that are pressed, without waiting for a line's end. restore takes that back. Ctrl-C stays a
// signal. Where standard input is no terminal no key comes.
func listen() (keys <-chan byte, restore func()) {
	fd := int(os.Stdin.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, func() {}
	}
	raw := *old
	raw.Lflag &^= unix.ICANON | unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, func() {}
	}
	pressed := make(chan byte)
	go func() { // a read of a terminal cannot be called back: it ends with the process
		defer close(pressed)
		for in := bufio.NewReader(os.Stdin); ; {
			b, err := in.ReadByte()
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			pressed <- b
		}
	}()
	return pressed, func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}
