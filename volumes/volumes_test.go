package volumes

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/volumes/backup"
)

func TestVolumesAreNamedOnesLabelledBindsAndConfiguredDirectories(t *testing.T) {
	t.Parallel()
	seen := &container.Snapshot{Containers: []container.Container{
		{Runtime: "docker", ID: "d1", Name: "db", State: container.Exited, Mounts: []container.Mount{
			{Type: "volume", Name: "data", Source: "/var/lib/docker/volumes/data/_data", Destination: "/data"},
			{Type: "bind", Source: "/srv/unlabelled", Destination: "/x"},
			{Type: "tmpfs", Destination: "/tmp"},
		}},
		{Runtime: "docker", ID: "d2", Name: "backup-reader", State: container.Running, Mounts: []container.Mount{
			{Type: "volume", Name: "data", Source: "/var/lib/docker/volumes/data/_data", Destination: "/in", ReadOnly: true},
		}},
		{Runtime: "podman", ID: "p1", Name: "web", Labels: map[string]string{"fairlead.backup": "daily"}, Mounts: []container.Mount{
			{Type: "volume", Name: "data", Source: "/var/lib/containers/storage/volumes/data/_data", Destination: "/data"},
			{Type: "bind", Source: "/srv/www/", Destination: "/www"},
			{Type: "bind", Source: "/srv/config", Destination: "/etc/web", ReadOnly: true},
			{Type: "bind", Source: "/run/secrets", Destination: "/run/secrets"},
			{Type: "bind", Source: "/", Destination: "/host"},
			{Type: "bind", Source: "/srv/odd", Destination: "/odd"},
		}},
		{Runtime: "containerd", ID: "c1", Name: "c1", Labels: map[string]string{"fairlead.backup": "no"}, Mounts: []container.Mount{
			{Type: "bind", Source: "/srv/not-this", Destination: "/n"},
		}},
	}}
	want := []Volume{
		{Name: "/srv/www", Kind: Bind, Path: "/srv/www", Backup: "daily", Users: []User{{"podman", "p1", "web", "/www", false}}},
		{Name: "docker/data", Kind: Named, Path: "/var/lib/docker/volumes/data/_data", Users: []User{
			{"docker", "d1", "db", "/data", false}, {"docker", "d2", "backup-reader", "/in", true}}},
		{Name: "odd", Kind: HostOwned, Path: "/srv/odd", Backup: "daily", Users: []User{{"podman", "p1", "web", "/odd", false}}},
		{Name: "podman/data", Kind: Named, Path: "/var/lib/containers/storage/volumes/data/_data", Backup: "daily", Users: []User{{"podman", "p1", "web", "/data", false}}},
	}
	got := Discover(seen, Config{Directories: []Directory{{Name: "odd", Path: "/srv/odd"}}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConfigurationNamesEveryProblem(t *testing.T) {
	t.Parallel()
	err := Config{
		Directories:  []Directory{{"odd", "/srv/odd"}, {"odd", "/srv/odd"}, {"With Space", "relative"}, {"slash", "/srv/x/"}, {"all", "/srv"}},
		Repositories: []Repository{{Name: "local", Path: "/srv/backups"}, {Name: "", Path: ""}},
	}.Validate()
	if err == nil {
		t.Fatal("it was accepted")
	}
	want := strings.Join([]string{
		`volumes.directories[1].name: "odd" is directories[0] already`,
		`volumes.directories[1].path: /srv/odd is directories[0] already`,
		`volumes.directories[2].name: expected 1 to 32 of a-z, 0-9, _, . and -, found "With Space"`,
		`volumes.directories[2].path: expected an absolute path without . and .. and a / at its end, found "relative"`,
		`volumes.directories[3].path: expected an absolute path without . and .. and a / at its end, found "/srv/x/"`,
		`volumes.directories[4].path: repositories[0] lies in it: it would be backed up into itself`,
		`volumes.repositories[1].name: expected 1 to 32 of a-z, 0-9, _, . and -, found ""`,
		`volumes.repositories[1].path: expected an absolute path without . and .. and a / at its end, found ""`,
	}, "\n")
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	if err := (Config{Directories: []Directory{{"odd", "/srv/odd"}}, Repositories: []Repository{{Name: "local", Path: "/srv/odder"}}}).Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
}

func TestDoubtNamesNoBackup(t *testing.T) {
	t.Parallel()
	of := func(id, volume, node string) Backup {
		return Backup{"local", backup.Manifest{ID: backup.ID(id), Source: backup.Source{Volume: volume, Node: node}}}
	}
	for _, c := range []struct {
		name     string
		wanted   Wanted
		found    []Backup
		problems []string
		want     error
		says     string
	}{
		{"the newest of one volume", Wanted{Volume: "odd"}, []Backup{of("a1", "odd", "web1"), of("b1", "odd", "web1")}, nil, nil, ""},
		{"one by its ID", Wanted{ID: "a1"}, []Backup{of("a1", "odd", "web1")}, nil, nil, ""},
		{"none", Wanted{Volume: "odd"}, nil, nil, ErrUnknown, ""},
		{"none, but a repository is silent", Wanted{Volume: "odd"}, nil, []string{"repository far: gone"}, nil, "not every repository answers"},
		{"two IDs begin so", Wanted{ID: "a"}, []Backup{of("a1", "odd", "web1"), of("a2", "odd", "web1")}, nil, ErrAmbiguous, ""},
		{"two hosts have such a volume", Wanted{Volume: "odd"}, []Backup{of("a1", "odd", "web1"), of("a2", "odd", "web2")}, nil, ErrAmbiguous, ""},
		{"two runtimes have such a volume", Wanted{Volume: "data"}, []Backup{of("a1", "docker/data", "web1"), of("a2", "podman/data", "web1")}, nil, ErrAmbiguous, ""},
	} {
		err := c.wanted.check(c.found, c.problems)
		if c.says == "" && !errors.Is(err, c.want) || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
