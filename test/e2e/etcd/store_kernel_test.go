//go:build kernel

package etcd

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhatHappensToTheStoreHappensToNoContainer(t *testing.T) {
	t.Parallel()
	s := begin(t, tunnelled, "web1", "web2", "web3")
	ctx := t.Context()
	web1, web2, web3 := s.Node("web1"), s.Node("web2"), s.Node("web3")
	s.join("fairlead", web1, web2)
	snapshot := filepath.Join(s.Sim.Host("store").Dir, "snapshot")
	s.must(s.Etcd.Save(ctx, snapshot)) // older than the lease of web3, and all of green

	for key, value := range map[string]string{
		"nodes/web9": "garbage", "nodes/web8": `{"v":2,"id":"x","address":"192.0.2.99"}`, "blocks/fairlead/10.42.7.0-24": `{"v":7,"holder":"web8"}`,
		"networks/purple": "{}", "what": "is this",
	} {
		s.must(s.Put(ctx, key, value))
	}
	s.join("fairlead", web3)
	began := time.Now()
	if out, err := web1.Fairlead(ctx, "net", "create", "green", "--cidr", "10.43.0.0/16", "--vni", "43"); err != nil {
		t.Fatalf("create: %v %s", err, out)
	}
	for _, n := range s.Nodes {
		s.holds(n, "green")
	}
	t.Logf("green was on all hosts, with blocks, after %s", time.Since(began).Round(time.Millisecond))
	s.must(web1.Add(ctx, "g-web1", "green"))
	s.must(web2.Add(ctx, "g-web2", "green"))
	s.settled("beside records that nobody understands")
	for _, n := range s.Nodes {
		s.says(n, "a record in etcd is passed over", 5)
		s.says(n, "it has version 2, this build knows 1", 1)
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) { // that it is used is told in the background
		out, err := web3.Fairlead(ctx, "net", "rm", "green")
		if err != nil && strings.Contains(err.Error(), "on the hosts web1, web2") {
			break
		}
		if err == nil || time.Since(began) > bound() {
			t.Fatalf("a network that another host uses was removed: %s %v", out, err)
		}
	}
	if out, err := web1.Fairlead(ctx, "net", "forget-node", "web2"); err == nil || !strings.Contains(err.Error(), "web2 (machine id") {
		t.Fatalf("a living node was forgotten: %s %v", out, err)
	}
	if out, err := web2.Fairlead(ctx, "net", "leave"); err == nil || !strings.Contains(err.Error(), "containers are attached: c-web2") {
		t.Fatalf("a host with containers left: %s %v", out, err)
	}

	// One does not hear etcd: nobody else notices but that it is silent.
	f := s.flow(web1, "c-web1", web2.Boxes["c-web2"].Addr)
	s.must(web2.DeafToStore(ctx, true))
	s.until(web1, "fairlead", "web2 is silent", silent("web2", true))
	s.must(web2.Add(ctx, "d-web2", "fairlead"))
	s.settled("while one host does not hear etcd")
	s.must(web2.DeafToStore(ctx, false))
	s.until(web1, "fairlead", "web2 is back", silent("web2", false))
	f.whole("a host did not hear etcd")

	// One is cut off from all.
	s.must(web3.Unplug(ctx, true))
	s.until(web1, "fairlead", "web3 is silent", silent("web3", true))
	s.must(web1.Add(ctx, "e-web1", "fairlead"))
	s.must(web3.Add(ctx, "e-web3", "fairlead"))
	web3.Kill()
	s.must(web3.Start())
	s.must(web3.Del(ctx, "c-web3"))
	s.must(web3.Unplug(ctx, false))
	s.settled("a host was cut off from all")

	for _, again := range []struct {
		what string
		do   func() error
	}{
		{"etcd was away", func() error { return s.Etcd.Start(ctx) }},
		{"an old snapshot was restored", func() error { return s.WipeAndRestore(ctx, snapshot, "etcd-cluster") }},
		{"an old snapshot was restored as another cluster", func() error { return s.WipeAndRestore(ctx, snapshot, "another") }},
		{"etcd lost everything", func() error { return s.Wipe(ctx) }},
	} {
		f := s.flow(web1, "c-web1", web2.Boxes["c-web2"].Addr)
		s.Etcd.Kill()
		s.must(web1.Add(ctx, "short", "green"))
		s.must(web1.Add(ctx, "away1", "green"))
		s.must(web1.Del(ctx, "short"))
		web2.Kill()
		s.must(web2.Start()) // it knows what it holds by itself
		s.holds(web2, "green")
		s.must(web2.Add(ctx, "away2", "green"))
		s.must(again.do())
		s.settled(again.what)
		f.whole(again.what)
		s.must(web1.Del(ctx, "away1"))
		s.must(web2.Del(ctx, "away2"))
	}
}
