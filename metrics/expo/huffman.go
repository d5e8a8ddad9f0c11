package expo

import (
	"math/bits"
	"slices"
)

const (
	endOfBlock    = 256
	literalCodes  = 286
	distanceCodes = 30
)

// The code that every page is written with (RFC 1951, 3.2.7).
var (
	symbols     = huffman(symbolWeights())
	distances   = huffman(distanceWeights())
	literals    = [literalCodes]code(symbols) // bytes and endOfBlock
	lengths     = lengthsOf(symbols)          // with their extra bits
	blockHeader = header(symbols, distances)
)

// symbolWeights are what pages of many containers showed: digits and the letters of hexadecimal ids above all.
func symbolWeights() []int {
	weights := slices.Repeat([]int{1}, literalCodes)
	set := func(of string, weight int) {
		for _, c := range []byte(of) {
			weights[c] = weight
		}
	}
	for c := ' '; c <= '~'; c++ {
		weights[c] = 8
	}
	set("abcdef", 160)
	set("0123456789", 220)
	set("} ", 80)
	for c := endOfBlock + 1; c < literalCodes; c++ {
		weights[c] = 8
	}
	for c := 270; c < literalCodes; c++ { // 23 bytes and more
		weights[c] = 24
	}
	return weights
}

func distanceWeights() []int {
	weights := slices.Repeat([]int{1}, distanceCodes)
	for c := 12; c <= 19; c++ { // 65 to 1024: a line, and what is in it
		weights[c] = 12
	}
	return weights
}

func lengthsOf(symbols []code) (out [259]code) {
	for n := 3; n < len(out); n++ {
		out[n] = lengthCode(symbols, n)
	}
	return out
}

func lengthCode(symbols []code, n int) code {
	x := uint32(n - 3)
	switch {
	case n == 258:
		return symbols[285]
	case x < 8:
		return symbols[257+x]
	}
	extra := uint(bits.Len32(x)) - 3
	c := symbols[257+4*(uint32(extra)+1)+x>>extra&3]
	return code{c.bits | x&(1<<extra-1)<<c.n, c.n + extra}
}

// beginning is some whole bytes and some bits.
type beginning struct {
	whole []byte
	rest  uint64
	bits  uint
}

// header renders the beginning of the one block: the lengths of all codes, themselves under a code of their own.
func header(symbols, distances []code) beginning {
	var all []int
	weights := make([]int, 19)
	for _, c := range slices.Concat(symbols, distances) {
		all = append(all, int(c.n))
		weights[c.n] = 1
	}
	of := huffman(weights)
	var z deflater
	z.add(1, 1) // the last block
	z.add(2, 2) // with its own codes
	z.add(literalCodes-257, 5)
	z.add(distanceCodes-1, 5)
	z.add(uint64(len(of)-4), 4)
	for _, i := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		z.add(uint64(of[i].n), 3)
	}
	for _, n := range all {
		z.put(of[n])
	}
	return beginning{z.out, z.acc, z.held}
}

// huffman gives the canonical prefix code of symbols with these weights; those of weight 0 have none. The weights are too
// even for a code of more than 15 bits.
func huffman(weights []int) []code {
	type node struct{ weight, left, right int }
	var nodes []node
	var open []int // by falling weight
	for i, w := range weights {
		nodes = append(nodes, node{w, -1, -1})
		if w > 0 {
			open = append(open, i)
		}
	}
	lighter := func(a, b int) int { return nodes[b].weight - nodes[a].weight }
	slices.SortStableFunc(open, lighter)
	for len(open) > 1 {
		a, b := open[len(open)-1], open[len(open)-2]
		nodes = append(nodes, node{nodes[a].weight + nodes[b].weight, a, b})
		open = open[:len(open)-2]
		at, _ := slices.BinarySearchFunc(open, len(nodes)-1, lighter)
		open = slices.Insert(open, at, len(nodes)-1)
	}
	out := make([]code, len(weights))
	var walk func(n int, depth uint)
	walk = func(n int, depth uint) {
		if nodes[n].left < 0 {
			out[n].n = depth
			return
		}
		walk(nodes[n].left, depth+1)
		walk(nodes[n].right, depth+1)
	}
	walk(open[0], 0)
	next := uint32(0)
	for n := uint(1); n <= 15; n++ {
		for i := range out {
			if out[i].n == n {
				out[i].bits = bits.Reverse32(next) >> (32 - n) // codes begin with their highest bit
				next++
			}
		}
		next <<= 1
	}
	return out
}
