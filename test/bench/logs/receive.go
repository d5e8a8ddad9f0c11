package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/klauspost/compress/s2"
)

// lokiServer takes pushes and hands each line to add.
func lokiServer(add func([]byte)) (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			body, err = s2.Decode(nil, body)
		}
		if err == nil {
			err = pushed(body, add)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = server.Serve(ln) }()
	return ln.Addr().String(), func() { _ = server.Close() }, nil
}

// pushed walks over streams (1), entries (2) and finds their lines (2).
func pushed(b []byte, add func([]byte)) error {
	return fields(b, func(_ int, stream []byte) error {
		return fields(stream, func(n int, entry []byte) error {
			if n != 2 {
				return nil
			}
			return fields(entry, func(n int, line []byte) error {
				if n == 2 {
					add(line)
				}
				return nil
			})
		})
	})
}

func fields(b []byte, f func(int, []byte) error) error {
	for len(b) > 0 {
		tag := b[0]
		v, n := binary.Uvarint(b[1:])
		if n <= 0 || tag&7 != 2 || v > uint64(len(b)-1-n) {
			return errors.New("no push request")
		}
		part := b[1+n:][:v]
		b = b[1+n+int(v):]
		if err := f(int(tag>>3), part); err != nil {
			return err
		}
	}
	return nil
}

// lineServer takes syslog over TCP. A message holds no newline here, so both framings divide at them or at the length.
func lineServer(counted bool, add func([]byte)) (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReaderSize(c, 1<<20)
				for {
					line, err := message(in, counted)
					if err != nil {
						return
					}
					add(line)
				}
			}()
		}
	}()
	return ln.Addr().String(), func() { _ = ln.Close() }, nil
}

func message(in *bufio.Reader, counted bool) ([]byte, error) {
	if !counted {
		return in.ReadSlice('\n')
	}
	n := 0
	for {
		c, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		if c == ' ' {
			break
		}
		n = n*10 + int(c-'0')
	}
	b, err := in.Peek(n)
	if err == nil {
		_, err = in.Discard(n)
	}
	return b, err
}
