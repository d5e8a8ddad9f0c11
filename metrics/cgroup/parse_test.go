package cgroup

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// every lists all formats, for the tests that hold for each of them.
func every() map[string]format {
	out := map[string]format{procs[0].name: procs[0]}
	for prefix, formats := range map[string][]format{
		"v1/": append(append(append([]format{}, v1CPUAcct...), v1CPU...), v1Memory...),
		"v2/": append(append([]format{}, v2CPU...), v2Memory...),
		"":    append(append(append([]format{}, pids...), pressure...), append(v1CPUSet, v2CPUSet...)...),
		"io/": append(append([]format{}, v1IO...), v2IO...),
	} {
		for _, f := range formats {
			out[prefix+f.name] = f
		}
	}
	return out
}

func TestGarbageIsAnErrorAndLeavesTheValueUnknown(t *testing.T) {
	t.Parallel()
	texts := []string{"", "\n", "x", "-5\n", "1 2 3\n", "18446744073709551616\n", "\x00\xff\xfe", "usage_usec\n", "max max\n",
		"user -1\n", "total_rss 12kB\n", "anon 0x10\n", "nr_periods 1.5\n", "usage_usec 18446744073709551615\nuser_usec x\n"}
	for name, f := range every() {
		if f.name == procs[0].name || f.name == "cpu.cfs_quota_us" {
			continue // the first is only counted; the second is below
		}
		for _, text := range texts {
			if strings.HasPrefix(f.name, "io.") && text == "" || strings.HasPrefix(f.name, "blkio.") && text == "" {
				continue // a cgroup that used no device
			}
			var s Stats
			err := f.parse([]byte(text), &s)
			if err == nil {
				t.Errorf("%s accepted %q as %+v", name, text, s)
			}
		}
	}
	var s Stats
	if err := parseQuotaV1([]byte("-2\n"), &s); err == nil || s.CPU.Quota.Known {
		t.Errorf("quota -2: %+v, %v", s, err)
	}
}

func TestAnErrorQuotesTheGarbageButNotAllOfIt(t *testing.T) {
	t.Parallel()
	_, err := number([]byte(strings.Repeat("z", 1<<20)))
	if err == nil || !strings.Contains(err.Error(), `"zzz`) || len(err.Error()) > 200 {
		t.Errorf("got %.300v", err)
	}
}

func TestLimitsSayWhenThereIsNone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		f    format
		text string
		want Stats
	}{
		{pids[1], "max\n", Stats{Pids: Pids{Limit: Known(Unlimited)}}},
		{pids[1], "77\n", Stats{Pids: Pids{Limit: Known(77)}}},
		{v2CPU[1], "max 100000\n", Stats{CPU: CPU{Period: Known(100000)}}},
		{v2CPU[1], "150000 50000\n", Stats{CPU: CPU{Quota: Known(150000), Period: Known(50000)}}},
		{v1CPU[1], "-1\n", Stats{}},
		{v1CPU[1], "50000\n", Stats{CPU: CPU{Quota: Known(50000)}}},
		{v2CPU[2], "1\n", Stats{CPU: CPU{Shares: Known(2)}}},
		{v2CPU[2], "10000\n", Stats{CPU: CPU{Shares: Known(262144)}}},
		{v2CPU[2], "0\n", Stats{}},
	} {
		var got Stats
		if err := c.f.parse([]byte(c.text), &got); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %q: %s %v", c.f.name, c.text, cmp.Diff(c.want, got), err)
		}
	}
}

func TestUsageWithoutTheCPUControllerHasNoThrottling(t *testing.T) {
	t.Parallel()
	var s Stats
	err := parseCPUStatV2([]byte("usage_usec 5\nuser_usec 3\nsystem_usec 2\nnice_usec 0\n"), &s)
	want := Stats{CPU: CPU{Usage: Known(5000), User: Known(3000), System: Known(2000)}}
	if err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("%s %v", cmp.Diff(want, s), err)
	}
}

func TestWorkingSetIsNeverNegativeAndUnknownOnlyWithoutUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		usage, inactive, want Value
	}{
		{Known(100), Known(30), Known(70)},
		{Known(100), Known(130), Known(0)}, // the two are read one after the other
		{Known(100), Value{}, Known(100)},
		{Value{}, Known(30), Value{}},
	} {
		m := Memory{Usage: c.usage, InactiveFile: c.inactive}
		if got := m.WorkingSet(); got != c.want {
			t.Errorf("%+v less %+v: got %+v, want %+v", c.usage, c.inactive, got, c.want)
		}
	}
}

func FuzzParsersNeverPanicAndNeverInvent(f *testing.F) {
	for _, text := range []string{"", "1\n", "max\n", "max 100000\n", "user 1\nsystem 2\n", "usage_usec 12\nnr_periods 3\n",
		"total_rss 4096\ntotal_inactive_file 1\n", "anon 1\nfile 2\n", "low 0\nmax 7\n", "12\n13\n"} {
		f.Add([]byte(text))
	}
	all := every()
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, one := range all {
			var s Stats
			if err := one.parse(text, &s); err == nil && one.name != procs[0].name && !reflect.DeepEqual(s, Stats{}) && !strings.ContainsAny(string(text), "0123456789m") {
				t.Errorf("%s read %+v from %q, which has no number", name, s, text)
			}
		}
	})
}
