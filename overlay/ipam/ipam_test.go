package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestFreshAddressesGoFirstThenTheOneFreedLongestAgo(t *testing.T) {
	t.Parallel()
	p := New(netip.MustParsePrefix("10.42.1.0/29")) // .0 network, .1 host, .7 broadcast
	take := func(want string) {
		t.Helper()
		if got, err := p.Take("c"); err != nil || got.String() != want {
			t.Fatalf("took %v, %v; want %s", got, err, want)
		}
	}
	take("10.42.1.2")
	take("10.42.1.3")
	take("10.42.1.4")
	p.Free(netip.MustParseAddr("10.42.1.4"), "somebody else") // is not his
	p.Free(netip.MustParseAddr("10.42.1.3"), "c")
	p.Free(netip.MustParseAddr("10.42.1.2"), "c")
	take("10.42.1.5")
	take("10.42.1.6")
	take("10.42.1.3")
	take("10.42.1.2")
	if _, err := p.Take("c"); !errors.Is(err, ErrExhausted) {
		t.Fatalf("took from a full pool: %v", err)
	}
	if p.Used() != 5 || p.Size() != 5 {
		t.Fatalf("used %d of %d, want 5 of 5", p.Used(), p.Size())
	}
}

func TestTakenByNameIsNeverHandedOutAndNamesItsHolder(t *testing.T) {
	t.Parallel()
	p := New(netip.MustParsePrefix("10.42.1.0/29"))
	fixed := netip.MustParseAddr("10.42.1.3")
	if err := errors.Join(p.TakeAddr(fixed, "db"), p.TakeAddr(fixed, "db")); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if got, err := p.Take("other"); err != nil || got == fixed {
			t.Fatalf("took %v, %v", got, err)
		}
	}
	var inUse *InUseError
	if err := p.TakeAddr(fixed, "web"); !errors.As(err, &inUse) || inUse.Owner != "db" {
		t.Fatalf("got %v", err)
	}
}

func TestAddressesThatNoContainerMayHaveAreRefused(t *testing.T) {
	t.Parallel()
	p := New(netip.MustParsePrefix("10.42.1.0/24"))
	for _, addr := range []string{"10.42.1.0", "10.42.1.1", "10.42.1.255", "10.42.2.9", "192.0.2.1"} {
		if err := p.TakeAddr(netip.MustParseAddr(addr), "c"); err == nil {
			t.Errorf("%s was given away", addr)
		}
	}
}

func TestSeveralBlocksAreUsedToTheLastAddress(t *testing.T) {
	t.Parallel()
	p := New(netip.MustParsePrefix("10.42.1.0/30"), netip.MustParsePrefix("10.42.9.0/30"))
	seen := map[netip.Addr]bool{}
	for i := range p.Size() {
		addr, err := p.Take(fmt.Sprint(i))
		if err != nil || seen[addr] {
			t.Fatalf("%d: %v twice or %v", i, addr, err)
		}
		seen[addr] = true
	}
	if len(seen) != 2 || p.Used() != p.Size() {
		t.Fatalf("took %v of %d", seen, p.Size())
	}
}

func TestIPv6BlocksKeepTheSameAddressesForThemselves(t *testing.T) {
	t.Parallel()
	block := netip.MustParsePrefix("fd42::/48")
	if got := Node(block).String(); got != "fd42::1" {
		t.Fatalf("the host's own is %s", got)
	}
	p := New(block)
	if got, err := p.Take("c"); err != nil || got.String() != "fd42::2" {
		t.Fatalf("took %v, %v; want fd42::2", got, err)
	}
	if p.Size() < 1<<30 {
		t.Fatalf("size %d", p.Size())
	}
}

func TestBlocksComeAndGoAndNoAddressIsGivenTwice(t *testing.T) {
	t.Parallel()
	one, two := netip.MustParsePrefix("10.42.1.0/29"), netip.MustParsePrefix("10.42.2.0/29")
	p := New(one)
	take := func(owner string) netip.Addr {
		t.Helper()
		a, err := p.Take(owner)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, b := take("a"), take("b")
	p.Free(a, "a")
	p.SetBlocks(one, two)
	if p.Size() != 10 || p.Used() != 1 {
		t.Errorf("size %d, used %d", p.Size(), p.Used())
	}
	seen := map[netip.Addr]bool{b: true}
	var last netip.Addr
	for range 9 {
		last = take("c")
		if seen[last] {
			t.Fatalf("%s was given twice", last)
		}
		seen[last] = true
	}
	if last != a {
		t.Errorf("what was freed came before what is fresh: last was %s", last)
	}
	p.SetBlocks(two)
	if err := p.TakeAddr(b, "d"); err == nil {
		t.Error("an address of a lost block was given to somebody else")
	}
	p.Free(b, "b")
	p.SetBlocks()
	if _, err := p.Take("d"); !errors.Is(err, ErrExhausted) || p.Used() != 0 {
		t.Errorf("without a block: %v, used %d", err, p.Used())
	}
}

func TestASingleAddressIsGivenByNameOnlyAndIsNobodysOwn(t *testing.T) {
	t.Parallel()
	single := netip.MustParseAddr("10.42.240.5")
	p := New(netip.MustParsePrefix("10.42.1.0/29"), netip.PrefixFrom(single, 32))
	for range 2 {
		if err := p.TakeAddr(single, "db"); err != nil {
			t.Fatal(err)
		}
		if p.Used() != 0 || p.Size() != 5 || !slices.Contains(slices.Collect(p.Taken()), single) {
			t.Errorf("used %d of %d", p.Used(), p.Size())
		}
		p.Free(single, "db")
	}
	for range 5 {
		if addr, err := p.Take("c"); err != nil || addr == single {
			t.Fatalf("took %s, %v", addr, err)
		}
	}
	if addr, err := p.Take("c"); !errors.Is(err, ErrExhausted) {
		t.Errorf("who asks for any was given %s", addr)
	}
	p.SetBlocks(netip.MustParsePrefix("10.42.1.0/29"))
	if err := p.TakeAddr(single, "db"); err == nil {
		t.Error("it was given after it was lost")
	}
	p.Keep(single, "db")
	p.SetBlocks(netip.MustParsePrefix("10.42.1.0/29"), netip.PrefixFrom(single, 32))
	var inUse *InUseError
	if err := p.TakeAddr(single, "web"); !errors.As(err, &inUse) || inUse.Owner != "db" {
		t.Errorf("somebody has it, and another was told %v", err)
	}
}
