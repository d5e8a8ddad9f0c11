// Package etcd shows with the real programs two hosts whose networks and address blocks are in etcd: joined, with etcd
// away, with an agent that died, and left. It holds tests only; what they make ends with them.
package etcd
