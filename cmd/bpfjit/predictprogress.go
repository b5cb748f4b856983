package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// When progress is first shown, and how often.
const (
	progressAfter = 500 * time.Millisecond
	progressEvery = 100 * time.Millisecond
)

// progress is a line on a terminal that says what long work is about. It
// shows nothing anywhere else, nor while the work is short.
type progress struct {
	w     io.Writer // nil: no terminal
	label string
	next  time.Time
	shown bool
}

// start begins the work. w may be anything.
func (p *progress) start(w io.Writer) {
	*p = progress{next: time.Now().Add(progressAfter)}
	if f, ok := w.(*os.File); ok {
		if s, err := f.Stat(); err == nil && s.Mode()&os.ModeCharDevice != 0 {
			p.w = w
		}
	}
}

// step shows the label and what is being done.
func (p *progress) step(format string, args ...any) {
	if p.w == nil {
		return
	}
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(progressEvery), true
	fmt.Fprintf(p.w, "\r\x1b[K%s: %s", p.label, fmt.Sprintf(format, args...))
}

// clear takes the line away.
func (p *progress) clear() {
	if p.shown {
		p.shown = false
		io.WriteString(p.w, "\r\x1b[K")
	}
}
