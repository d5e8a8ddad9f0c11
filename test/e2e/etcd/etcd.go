// Package etcd is hosts whose networks and address blocks are in an etcd, with the real programs: their agents join,
// leave, die, are cut off and come back with another address, and etcd goes away and comes back from a snapshot.
//
// A World knows what must then be in every host's kernel: it works it out from what the hosts that live hold by their
// own word, and names each route, neighbour, forwarding entry and firewall element that differs. The stories are tests;
// test/soak/overlay plays them at random.
package etcd
