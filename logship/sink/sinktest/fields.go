package sinktest

import (
	"encoding/binary"
	"errors"
)

// Fields takes a protocol buffers message apart: it hands f the number of each field with its number or its bytes. It
// shares nothing with the drivers that write such messages.
func Fields(b []byte, f func(number int, value uint64, bytes []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errors.New("bad tag")
		}
		b = b[n:]
		var v uint64
		var part []byte
		switch tag & 7 {
		case 1:
			if len(b) < 8 {
				return errors.New("short number")
			}
			v, b = binary.LittleEndian.Uint64(b), b[8:]
		case 0, 2:
			if v, n = binary.Uvarint(b); n <= 0 {
				return errors.New("bad number")
			}
			if b = b[n:]; tag&7 == 0 {
				break
			}
			if v > uint64(len(b)) {
				return errors.New("field is longer than its message")
			}
			part, b = b[:v], b[v:]
		default:
			return errors.New("unexpected wire type")
		}
		if err := f(int(tag>>3), v, part); err != nil {
			return err
		}
	}
	return nil
}
