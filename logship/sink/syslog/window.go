package syslog

import "slices"

// Bounds of how many bytes of acknowledged messages are kept for the case of a reset. What a peer has unread is at most
// the widest window that it has offered, because it offers what is free of its receive buffer. Linux lets that grow to
// 6 MiB (tcp_rmem in ip-sysctl.rst).
const (
	minWindow = 1 << 20
	maxWindow = 8 << 20
)

// window keeps the newest messages, and always the last, in pieces: what is too old goes without moving the rest.
type window struct {
	pieces []piece // never an empty one
	spare  []piece // what has gone, to be used again
	size   int     // bytes
	count  int     // messages
	again  int     // of them, so many at the front have been sent a second time
}

// pieceSize is where a piece ends and the next begins.
const pieceSize = 128 << 10

type piece struct {
	bytes []byte
	ends  []int // of each message
}

// add keeps messages of a peer that has offered so many bytes of room.
func (w *window) add(messages []byte, ends []int, room int) {
	if len(ends) == 0 {
		return
	}
	last := w.newest()
	base := len(last.bytes)
	last.bytes = append(last.bytes, messages...)
	for _, e := range ends {
		last.ends = append(last.ends, base+e)
	}
	w.size, w.count = w.size+len(messages), w.count+len(ends)
	for limit := min(max(room, minWindow), maxWindow); w.size-len(w.pieces[0].bytes) >= limit; {
		w.drop(len(w.pieces[0].ends))
	}
}

// newest gives the piece that has room for more.
func (w *window) newest() *piece {
	if n := len(w.pieces); n == 0 || len(w.pieces[n-1].bytes) >= pieceSize {
		var p piece
		if n := len(w.spare); n > 0 {
			p, w.spare = w.spare[n-1], w.spare[:n-1]
		}
		w.pieces = append(w.pieces, piece{p.bytes[:0], p.ends[:0]})
	}
	return &w.pieces[len(w.pieces)-1]
}

// tail keeps the newest messages of together at least limit bytes, and none that has been sent a second time.
func (w *window) tail(limit int) {
	for len(w.pieces) > 1 && w.size-len(w.pieces[0].bytes) >= limit {
		w.drop(len(w.pieces[0].ends))
	}
	if len(w.pieces) > 0 {
		first, rest := w.pieces[0], w.size-len(w.pieces[0].bytes)
		n := 0
		for n < len(first.ends)-1 && rest+len(first.bytes)-first.ends[n] >= limit {
			n++
		}
		w.drop(n)
	}
	w.drop(w.again)
}

// drop drops the n oldest messages.
func (w *window) drop(n int) {
	w.count, w.again = w.count-n, max(w.again-n, 0)
	for n > 0 {
		first := &w.pieces[0]
		if n < len(first.ends) {
			at := first.ends[n-1]
			first.bytes, first.ends = first.bytes[at:], first.ends[n:]
			for i := range first.ends {
				first.ends[i] -= at
			}
			w.size -= at
			return
		}
		n -= len(first.ends)
		w.size -= len(first.bytes)
		if len(w.spare) < 2 {
			w.spare = append(w.spare, *first)
		}
		w.pieces = slices.Delete(w.pieces, 0, 1)
	}
}

// clear forgets all, and gives the memory back.
func (w *window) clear() { *w = window{} }
