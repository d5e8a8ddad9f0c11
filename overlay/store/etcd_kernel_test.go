//go:build kernel

package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/overlay/store"
	"github.com/fairlead-dev/fairlead/overlay/store/storetest"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestMain(m *testing.M) { hosttest.MainInNetNS(m) }

// cluster is an etcd, and a prefix in it.
type cluster struct {
	t    testing.TB
	etcd *daemons.EtcdDaemon
	cfg  store.EtcdConfig
}

func newCluster(t testing.TB) *cluster {
	c := &cluster{t: t, etcd: hosttest.Etcd(t), cfg: store.DefaultEtcdConfig()}
	c.cfg.Endpoints, c.cfg.Grace, c.cfg.Session = []string{c.etcd.URL}, 2*time.Second, 3*time.Second
	return c
}

// machine is a host with a state directory.
type machine struct {
	id    store.Identity
	state *state.Dir
	logs  *logs
	stats *stat.Registry
}

// logs keeps what is logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (c *cluster) machine(name string, n int) *machine {
	c.t.Helper()
	dir, err := state.Open(c.t.TempDir(), slog.New(slog.NewTextHandler(c.t.Output(), nil)))
	if err != nil {
		c.t.Fatal(err)
	}
	return &machine{
		id:    store.Identity{Name: name, Machine: fmt.Sprintf("machine%d", n), Boot: fmt.Sprintf("boot%d", n), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + n)}), Agent: "test"},
		state: dir, logs: &logs{}, stats: &stat.Registry{},
	}
}

func blue() store.Network {
	return store.Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42, Block: 24, Fixed: netip.MustParsePrefix("10.42.240.0/20"), Spec: json.RawMessage(`{"name":"blue"}`)}
}

// agent is the store's client of a machine's agent.
func (c *cluster) agent(m *machine) *store.Etcd {
	e := store.NewEtcd(c.cfg, store.EtcdDeps{Log: slog.New(slog.NewTextHandler(m.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Stats: m.stats, State: m.state})
	e.Present(m.id)
	e.Want(store.Wants{Networks: []store.Network{blue()}})
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("log of %s on %s:\n%s", m.id.Name, m.id.Machine, m.logs)
		}
	})
	return e
}

func joined(peers int) func(store.Cluster) bool {
	return func(c store.Cluster) bool {
		return len(c.Self.Blocks) > 0 && len(c.Peers) == peers && !slices.ContainsFunc(c.Peers, func(p store.Node) bool { return len(p.Blocks) == 0 || p.Silent })
	}
}

func TestEtcdPassesTheSuite(t *testing.T) {
	c := newCluster(t)
	n := 0
	storetest.Run(t, func(t *testing.T) (out []store.Store) {
		c := *c
		c.t = t
		n++
		c.cfg.Prefix = fmt.Sprintf("/fairlead/v1/suite%d", n)
		for i := range 2 {
			out = append(out, c.agent(c.machine(fmt.Sprintf("web%d", i+1), i+1)))
		}
		return out
	})
}

func TestWhatIsHeldOutlivesEtcdAndTheAgentAndASnapshotOlderThanTheLease(t *testing.T) {
	c := newCluster(t)
	web1, web2 := c.machine("web1", 1), c.machine("web2", 2)
	one := storetest.Follow(t, c.agent(web1))
	before1 := one.Until("web1 joined", joined(0))
	snapshot := filepath.Join(hosttest.Dir(t), "snapshot")
	if err := c.etcd.Save(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	two := storetest.Follow(t, c.agent(web2))
	before2 := two.Until("web2 joined", joined(1))
	one.Until("web2 joined", joined(1))
	c.etcd.Kill()
	two.Stop()
	two = storetest.Follow(t, c.agent(web2)) // the agent is restarted while etcd is away
	away := two.Until("web2 without etcd", joined(1))
	if !slices.Equal(away.Self.Blocks, before2.Self.Blocks) || !slices.Equal(away.Peers[0].Blocks, before1.Self.Blocks) {
		t.Errorf("without etcd web2 knows %+v, before %+v", away, before2)
	}
	for _, token := range []string{"etcd-cluster", "another"} { // the same cluster id, and another
		if err := c.etcd.Restore(t.Context(), snapshot, token); err != nil {
			t.Fatal(err)
		}
		if err := c.etcd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.has("blocks/blue/"+strings.ReplaceAll(before2.Self.Blocks[0].String(), "/", "-"), `"holder":"web2"`)
		three := c.machine("web3", 3)
		h := storetest.Follow(t, c.agent(three))
		c3 := h.Until("web3 joined", joined(2))
		for name, want := range map[string]store.Cluster{"web1": before1, "web2": before2} {
			for _, p := range c3.Peers {
				if p.Name == name && !slices.Equal(p.Blocks, want.Self.Blocks) {
					t.Errorf("%s held %v and has %v after the restore", name, want.Self.Blocks, p.Blocks)
				}
			}
		}
		one.Until("web3", joined(2))
		h.Stop()
		if err := h.Store.(store.Shared).ForgetNode(t.Context(), "web3"); err != nil {
			t.Fatal(err)
		}
		c.etcd.Kill()
	}
	if err := c.etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestEachTimeThatEtcdIsAwayIsTold(t *testing.T) {
	c := newCluster(t)
	h := storetest.Follow(t, c.agent(c.machine("web1", 1)))
	h.Until("joined", joined(0))
	for range 2 {
		c.etcd.Kill()
		h.Until("told that etcd is away", func(c store.Cluster) bool { return strings.Contains(c.Problem, "etcd does not answer") })
		if err := c.etcd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.Until("told that it is back", func(c store.Cluster) bool { return c.Problem == "" })
	}
}

// client is one beside the agents'.
func (c *cluster) client() *clientv3.Client {
	c.t.Helper()
	cl, err := clientv3.New(clientv3.Config{Endpoints: c.cfg.Endpoints, Logger: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// has waits until a record holds a text.
func (c *cluster) has(key, text string) {
	c.t.Helper()
	cl, last := c.client(), ""
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(20 * time.Millisecond) { // a watch would miss what is there
		r, err := cl.Get(c.t.Context(), c.cfg.Prefix+"/"+key)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(r.Kvs) == 1 {
			if last = string(r.Kvs[0].Value); strings.Contains(last, text) {
				return
			}
		}
	}
	c.t.Fatalf("%s is %q and has no %s", key, last, text)
}

func TestASecondLivingMachineOfANameIsRefusedAndBothAreNamed(t *testing.T) {
	c := newCluster(t)
	first, image := c.machine("web1", 1), c.machine("web1", 2)
	one := storetest.Follow(t, c.agent(first))
	one.Until("the first joined", joined(0))
	two := storetest.Follow(t, c.agent(image))
	refused := two.Until("refused", func(c store.Cluster) bool { return c.Problem != "" })
	if len(refused.Self.Blocks) > 0 {
		t.Errorf("the second holds %v", refused.Self.Blocks)
	}
	for _, s := range []string{"machine1", "machine2", "boot1", "boot2", "192.0.2.11", "192.0.2.12", "node.name"} {
		if !strings.Contains(refused.Problem, s) {
			t.Errorf("the problem does not name %s: %s", s, refused.Problem)
		}
	}
	if n := strings.Count(image.logs.String(), "level=ERROR"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	one.Stop()
	two.Until("the second takes over when the first has gone", joined(0))
}

func TestForeignAndNewerRecordsArePassedOverAndToldOnce(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	for key, value := range map[string]string{
		"/nodes/web7": "garbage", "/nodes/web8": `{"v":2,"id":"x","address":"192.0.2.18"}`, "/networks/red": `{"v":1,"name":"other"}`,
		"/blocks/blue/10.42.0.0-24": `{"v":7}`, "/what": "is this", "/blocks/blue/x": "", "-other/nodes/web9": "another cluster's",
	} {
		if _, err := cl.Put(t.Context(), c.cfg.Prefix+key, value); err != nil {
			t.Fatal(err)
		}
	}
	m := c.machine("web1", 1)
	storetest.Follow(t, c.agent(m)).Until("joined", joined(0))
	two := storetest.Follow(t, c.agent(c.machine("web2", 2)))
	two.Until("joined", joined(1))
	text := m.logs.String()
	if n := strings.Count(text, "is passed over"); n != 6 {
		t.Errorf("%d records were told, want 6:\n%s", n, text)
	}
	if !strings.Contains(text, "it has version 2, this build knows 1") {
		t.Errorf("the newer version is not told:\n%s", text)
	}
}

func TestAHostThatWasAwayWithdrawsWhatAnotherWasGiven(t *testing.T) {
	c := newCluster(t)
	c.cfg.Prefix += "-small"
	small := blue()
	small.CIDR, small.Block, small.Fixed = netip.MustParsePrefix("10.42.0.0/24"), 24, netip.Prefix{} // one block
	join := func(m *machine) *storetest.Host {
		e := c.agent(m)
		e.Want(store.Wants{Networks: []store.Network{small}})
		return storetest.Follow(t, e)
	}
	web1, web2 := c.machine("web1", 1), c.machine("web2", 2)
	one := join(web1)
	one.Until("web1 joined", joined(0))
	two := join(web2)
	two.Until("no block is left", func(c store.Cluster) bool { return strings.Contains(c.Problem, "all 1 blocks") })
	one.Stop()
	if err := two.Store.(store.Shared).ForgetNode(t.Context(), "web1"); err != nil {
		t.Fatal(err)
	}
	two.Until("web2 has it", func(c store.Cluster) bool { return len(c.Self.Blocks) == 1 })
	one = join(web1)
	c1 := one.Until("web1 is told", func(c store.Cluster) bool { return c.Problem != "" })
	if len(c1.Self.Blocks) > 0 || len(c1.Peers) != 1 || len(c1.Peers[0].Blocks) != 1 {
		t.Errorf("web1 believes %+v", c1)
	}
}

func TestMoreRecordsThanAPageAreAllRead(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	const nodes = 2500
	for i := 0; i < nodes; i += 100 {
		var ops []clientv3.Op
		for j := i; j < i+100; j++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/nodes/n%d", c.cfg.Prefix, j), fmt.Sprintf(`{"v":1,"id":"x","address":"198.51.%d.%d"}`, j/250, j%250)))
		}
		if _, err := cl.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	storetest.Follow(t, c.agent(c.machine("web1", 1))).Until("all nodes", func(c store.Cluster) bool { return len(c.Peers) == nodes })
}

func TestEtcdWithTLSAndItsOwnUsers(t *testing.T) {
	dir := hosttest.Dir(t)
	cert, key := selfSigned(t, dir)
	d := hosttest.Etcd(t, "--cert-file", cert, "--key-file", key, "--trusted-ca-file", cert, "--client-cert-auth")
	c := &cluster{t: t, etcd: d, cfg: store.DefaultEtcdConfig()}
	c.cfg.Endpoints, c.cfg.Grace, c.cfg.Session = []string{d.URL}, 2*time.Second, 3*time.Second
	c.cfg.CAFile, c.cfg.CertFile, c.cfg.KeyFile = cert, cert, key
	for _, args := range []string{"user add root:secret", "role add fairlead", "role grant-permission fairlead readwrite --prefix=true /fairlead/", "user add agent:word", "user grant-role agent fairlead", "user grant-role root root", "auth enable"} {
		argv := append([]string{"env", "ETCDCTL_API=3", "etcdctl", "--endpoints", d.URL, "--cacert", cert, "--cert", cert, "--key", key}, strings.Fields(args)...)
		if out, err := d.Run(t.Context(), argv...); err != nil {
			t.Fatalf("%s: %v %s", args, err, out)
		}
	}
	password := filepath.Join(dir, "password")
	for _, word := range []string{"wrong", "word"} {
		if err := os.WriteFile(password, []byte(word+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.cfg.User, c.cfg.PasswordFile = "agent", password
		e := c.agent(c.machine("web1", 1))
		if word == "wrong" {
			if err := e.Follow(t.Context(), func(store.Cluster) { t.Error("published with a wrong password") }); err == nil || !strings.Contains(err.Error(), "overlay.etcd.user") {
				t.Errorf("with a wrong password: %v", err)
			}
			continue
		}
		storetest.Follow(t, e).Until("joined", joined(0))
	}
}

// selfSigned makes a certificate that is its own authority, for both ends.
func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &pair.PublicKey, pair)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestWhileEtcdIsAwayAHostHasItsFixedAddressesAndNoOthers(t *testing.T) {
	c := newCluster(t)
	m := c.machine("web1", 1)
	e := c.agent(m)
	h := storetest.Follow(t, e)
	h.Until("joined", joined(0))
	here, other := netip.MustParseAddr("10.42.240.5"), netip.MustParseAddr("10.42.240.6")
	wants := store.Wants{Networks: []store.Network{blue()}, Fixed: []netip.Addr{here, other}}
	claim := func(addr netip.Addr) error {
		e.Want(wants)
		return e.Claim(t.Context(), store.Claim{Network: "blue", Addr: addr, For: "c1"})
	}
	if err := claim(here); err != nil {
		t.Fatal(err)
	}
	c.has("blocks/blue/10.42.240.5-32", `"for":"c1"`)
	c.etcd.Kill()
	h.Until("etcd is away", func(c store.Cluster) bool { return c.Problem != "" })
	for range 2 {
		if err := claim(here); err != nil {
			t.Errorf("what it holds: %v", err)
		}
		if err := claim(other); !errors.Is(err, store.ErrAway) {
			t.Errorf("what it does not hold: %v", err)
		}
		h.Stop() // the agent is restarted
		h = storetest.Follow(t, e)
		h.Until("its addresses", func(c store.Cluster) bool { return len(c.Self.Blocks) == 2 && c.Problem != "" })
	}
	if err := c.etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Until("joined", joined(0))
	wants.Fixed = []netip.Addr{}
	e.Want(wants)
	c.has("blocks/blue/10.42.240.5-32", `"holder":""`)
}

func TestManyClaimsAtOnceAreEachAnsweredAndAllGivenBack(t *testing.T) {
	c := newCluster(t)
	e := c.agent(c.machine("web1", 1))
	storetest.Follow(t, e).Until("joined", joined(0))
	two := storetest.Follow(t, c.agent(c.machine("web2", 2)))
	two.Until("joined", joined(1))
	wants := store.Wants{Networks: []store.Network{blue()}}
	for i := range 60 {
		wants.Fixed = append(wants.Fixed, netip.AddrFrom4([4]byte{10, 42, 240, byte(i)}))
	}
	e.Want(wants)
	var all sync.WaitGroup
	began := time.Now()
	for _, addr := range wants.Fixed {
		all.Go(func() {
			if err := e.Claim(t.Context(), store.Claim{Network: "blue", Addr: addr}); err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		})
	}
	all.Wait()
	t.Logf("%d claims in %s", len(wants.Fixed), time.Since(began))
	two.Until("web1 has them", func(c store.Cluster) bool { return len(c.Peers[0].Blocks) == 61 })
	e.Want(store.Wants{Networks: []store.Network{blue()}, Fixed: []netip.Addr{}})
	two.Until("web1 has given all back", func(c store.Cluster) bool { return len(c.Peers[0].Blocks) == 1 && len(c.Peers[0].Lost) == 0 })
}
