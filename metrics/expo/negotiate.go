package expo

import (
	"strconv"
	"strings"
)

// Negotiate chooses the format that the HTTP header Accept prefers. Whatever it says, there is an answer: the text
// format, which every scraper reads.
func Negotiate(accept string) Format {
	best, bestQ := Text, 0.0
	for media := range strings.SplitSeq(accept, ",") {
		kind, params, _ := strings.Cut(media, ";")
		q, version := parameters(params)
		var f Format
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "application/openmetrics-text":
			if version != "" && version != "1.0.0" && version != "0.0.1" {
				continue
			}
			f = OpenMetrics
		case "text/plain", "text/*", "*/*":
			f = Text
		default:
			continue
		}
		if q > bestQ {
			best, bestQ = f, q
		}
	}
	return best
}

// Coding is a content coding of HTTP.
type Coding uint8

// The codings.
const (
	Identity Coding = iota
	Gzip
	Zstd
)

// String is the coding's name in HTTP headers.
func (c Coding) String() string { return [...]string{"identity", "gzip", "zstd"}[c] }

// NegotiateCoding chooses the coding that the HTTP header Accept-Encoding prefers; of those that it likes equally gzip,
// which costs us nothing. Whatever it says, there is an answer: identity.
func NegotiateCoding(acceptEncoding string) Coding {
	best, bestQ := Identity, 0.0
	for coding := range strings.SplitSeq(acceptEncoding, ",") {
		name, params, _ := strings.Cut(coding, ";")
		q, _ := parameters(params)
		for _, c := range []Coding{Gzip, Zstd} {
			if strings.EqualFold(strings.TrimSpace(name), c.String()) && (q > bestQ || q == bestQ && q > 0 && c == Gzip) {
				best, bestQ = c, q
			}
		}
	}
	return best
}

func parameters(s string) (q float64, version string) {
	q = 1
	for p := range strings.SplitSeq(s, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(key) {
		case "q":
			if n, err := strconv.ParseFloat(value, 64); err == nil && n >= 0 && n <= 1 {
				q = n
			}
		case "version":
			version = value
		}
	}
	return q, version
}
