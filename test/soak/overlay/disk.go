package main

import (
	"encoding/json"
	"errors"
	"sync"
)

// disk is a host's state directory. What was written to it outlives the agent; one that has died writes no more.
type disk struct {
	mu    sync.Mutex
	files map[string][]byte
}

// life is the disk as one life of an agent has it.
type life struct {
	*disk
	writes int // that it may still do; -1: any number
	late   bool
	dead   bool
}

var errDied = errors.New("the agent died")

// WriteJSON writes, unless the agent has died or does so now: before the write or, if it is late, after it.
func (l *life) WriteJSON(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = l.dead || l.writes == 0
	if !l.dead || l.late {
		l.files[name] = text
		l.late = l.late && !l.dead
	}
	l.writes--
	if l.dead {
		return errDied
	}
	return nil
}

// ReadJSON reads what was written last.
func (l *life) ReadJSON(name string, v any) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, there := l.files[name]
	if !there {
		return false, nil
	}
	return true, json.Unmarshal(text, v)
}

func (l *life) die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead, l.late = true, false
}

func (l *life) died() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}
