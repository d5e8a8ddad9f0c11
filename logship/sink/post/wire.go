package post

import (
	"encoding/binary"
	"unicode/utf8"
)

// Protocol buffers by hand: the messages are few and the hot path must not allocate.

// AppendVarint adds a base-128 number.
func AppendVarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// VarintLen is how many bytes AppendVarint adds.
func VarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// AppendField adds a length-delimited field with its number.
func AppendField(b []byte, number int, text string) []byte {
	b = append(b, byte(number<<3|2))
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

const hexDigits = "0123456789abcdef"

// AppendJSON adds s as a JSON string. Bytes that are no UTF-8 become U+FFFD, as encoding/json does it.
func AppendJSON[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\uFFFD"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
