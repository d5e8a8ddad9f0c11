package syslog

// Bounds of how many bytes of acknowledged messages are kept for the case of a reset. What a peer has unread is at most
// its receive buffer. The window that it offers tells the free part of that; twice the largest seen stands for the whole,
// because it has just read when the window is large. Linux lets the buffer grow to 6 MiB (tcp_rmem in ip-sysctl.rst).
const (
	minWindow = 1 << 20
	maxWindow = 8 << 20
)

// window keeps the newest messages, and always the last.
type window struct {
	buf   []byte
	ends  []int
	again int // of them, so many at the front have been sent a second time
}

// add keeps messages of a peer that has offered so many bytes of room.
func (w *window) add(messages []byte, ends []int, room int) {
	base := len(w.buf)
	w.buf = append(w.buf, messages...)
	for _, e := range ends {
		w.ends = append(w.ends, base+e)
	}
	limit := min(max(2*room, minWindow), maxWindow)
	// Cut in large steps only, so that a small message does not move a whole window.
	if len(w.buf)-limit >= minWindow/2 {
		w.cut(limit)
	}
}

// tail keeps the newest messages of together at least limit bytes, and none that has been sent a second time.
func (w *window) tail(limit int) {
	w.cut(limit)
	w.drop(w.again)
}

// cut drops the oldest messages while what is left has limit bytes.
func (w *window) cut(limit int) {
	drop := 0
	for drop < len(w.ends)-1 && len(w.buf)-w.ends[drop] >= limit {
		drop++
	}
	w.drop(drop)
}

// drop drops the n oldest messages.
func (w *window) drop(n int) {
	if n == 0 {
		return
	}
	at := w.ends[n-1]
	w.buf = append(w.buf[:0], w.buf[at:]...)
	w.ends = append(w.ends[:0], w.ends[n:]...)
	for i := range w.ends {
		w.ends[i] -= at
	}
	w.again = max(w.again-n, 0)
}

func (w *window) bytes() []byte { return w.buf }
func (w *window) records() int  { return len(w.ends) }
func (w *window) clear()        { w.buf, w.ends, w.again = w.buf[:0], w.ends[:0], 0 }
