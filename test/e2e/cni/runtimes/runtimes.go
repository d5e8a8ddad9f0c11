// Package runtimes holds tests with real container runtimes that take the conflist of `make install` as it is:
// containerd's CRI, and two containerds on one host. They need root and Debian's containerd; what they start ends with
// them.
package runtimes
