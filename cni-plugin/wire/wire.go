// Package wire is the message between the CNI plugin and the daemon: one JSON object and a newline each way, over the
// unix socket cni.sock. The plugin passes the container's network namespace as an open descriptor with the request's
// first byte (SCM_RIGHTS, unix(7)), so the daemon needs no view of the path: it may live in another mount namespace,
// and the namespace cannot be swapped under the name in between.
//
// The package depends on the standard library only and says nothing about how either side does its work. It owns no
// state; a connection that breaks in the middle leaves the daemon to undo what nobody was told of.
package wire

import (
	"encoding/json"
	"fmt"
)

// Version is the version of this message. A daemon answers an unknown one with CodeIncompatible.
const Version = 1

// MaxMessage bounds a message in either direction, in bytes. Configurations with a large prevResult are some kilobytes;
// a GC names every attachment of the host, some 250 bytes each.
const MaxMessage = 4 << 20

// DefaultSocket is where the daemon listens when neither side is told otherwise.
const DefaultSocket = "/run/fairlead/cni.sock"

// SpoolDir is the directory beside the socket that holds the DEL requests of a time without a daemon.
const SpoolDir = "cni-spool"

// SpecVersions are the CNI spec versions that both binaries speak, oldest first.
var SpecVersions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// Request is one CNI call. The names follow the CNI_* variables of the spec.
type Request struct {
	Version     int             `json:"version"`
	Command     string          `json:"command"` // ADD, DEL, CHECK, STATUS, GC
	ContainerID string          `json:"container_id,omitempty"`
	NetNS       string          `json:"netns,omitempty"` // the path as given, for people and for records
	IfName      string          `json:"ifname,omitempty"`
	Args        string          `json:"args,omitempty"`
	Config      json.RawMessage `json:"config"` // standard input, as it came
}

// Response is the daemon's answer: Error, or Result (ADD only), or neither.
type Response struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error is a CNI error as the spec's "Error" section has it.
type Error struct {
	Code    Code   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"`
}

func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + ": " + e.Details
}

// Code is an error code of the CNI spec; 100 and above are ours.
type Code uint

// The codes. See "Error" in the CNI spec 1.1.0.
const (
	CodeIncompatible     Code = 1  // CNI version
	CodeUnknownContainer Code = 3  // container unknown or does not exist
	CodeInvalidEnv       Code = 4  // CNI_* variables
	CodeIO               Code = 5  // I/O failure
	CodeDecode           Code = 6  // content could not be decoded
	CodeInvalidConfig    Code = 7  // network configuration
	CodeTryLater         Code = 11 // try again later
	CodeNotAvailable     Code = 50 // STATUS: no ADD can be served
	CodeLimited          Code = 51 // STATUS: nor are the containers that there are looked after
	CodeFailed           Code = 100
	CodeCheck            Code = 101 // CHECK found something that differs
)

// Errorf makes an Error whose message names what was being done and whose details hold the cause.
func Errorf(code Code, msg string, cause error) *Error {
	e := &Error{Code: code, Msg: msg}
	if cause != nil {
		e.Details = cause.Error()
	}
	return e
}

// Encode gives v as one line.
func Encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(b) >= MaxMessage {
		return nil, fmt.Errorf("encode message: %d bytes, at most %d are allowed", len(b), MaxMessage-1)
	}
	return append(b, '\n'), nil
}
