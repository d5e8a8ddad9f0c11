package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/fairlead-dev/fairlead"

// root is the repository, seen from this folder.
const root = "../.."

// source is one Go file, whatever its build tags.
type source struct {
	dir     string // from the repository's root, with slashes: "agent/container"
	name    string
	pkg     string
	doc     bool     // it has a package comment
	imports []string // of this module, as folders
}

// test tells whether the file is for tests only: one itself, or of a package that drivers' tests share (sinktest).
func (s source) test() bool {
	return strings.HasSuffix(s.name, "_test.go") || strings.HasSuffix(s.pkg, "test")
}

// sources reads all Go files of the repository.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && file != root && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata") {
			return fs.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, newSource(file, parsed))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found only %d Go files: this test looks in the wrong place", len(all))
	}
	return all
}

func newSource(file string, parsed *ast.File) source {
	rel, _ := filepath.Rel(root, filepath.Dir(file)) // both are relative, so it cannot fail
	s := source{dir: filepath.ToSlash(rel), name: filepath.Base(file), pkg: parsed.Name.Name, doc: parsed.Doc != nil}
	for _, spec := range parsed.Imports {
		name, _ := strconv.Unquote(spec.Path.Value) // the parser has seen that it is a string
		if dir, ok := strings.CutPrefix(name, module+"/"); ok {
			s.imports = append(s.imports, dir)
		}
	}
	return s
}

func TestImportsGoDownTheFloorsOnly(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, to := range s.imports {
			if why := forbidden(s.dir, to, s.test()); why != "" {
				t.Errorf("%s/%s imports %s: %s", s.dir, s.name, to, why)
			}
		}
	}
}

// forbidden says why files of the folder from may not import the folder to, or "" when they may.
func forbidden(from, to string, test bool) string {
	f, g := top(from), top(to)
	switch {
	case g == "test" && f != "test" && !test:
		return "only tests use what is in test/"
	case f == "test" || g == "test":
		return ""
	case floor(g) < 0:
		return "the folder has no floor"
	case f == "agent" && g == "agent":
		return forbiddenInAgent(from, to)
	case f == g:
		return ""
	case floor(f) == 2 && floor(g) == 2:
		return "parts never import each other; they meet in cmd"
	case floor(g) >= floor(f):
		return "imports go down only"
	case from == "cmd/fairlead-cni" && g != "cni-plugin":
		return "the CNI binary stays small"
	}
	return ""
}

func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func floor(top string) int {
	switch top {
	case "cmd":
		return 3
	case "overlay", "volumes", "metrics", "logship":
		return 2
	case "agent":
		return 1
	case "cni-plugin":
		return 0
	}
	return -1
}

// agentOrder is the order inside agent/: a folder imports only those of earlier lines. The package agent itself is
// below all.
var agentOrder = [][]string{
	{"host", "state", "stat", "config"},
	{"container"},
	{"supervisor", "reap", "dockerplugin", "inside"},
	{"api"},
}

func forbiddenInAgent(from, to string) string {
	rank := func(dir string) (int, string) {
		name := top(strings.TrimPrefix(strings.TrimPrefix(dir, "agent"), "/"))
		if name == "" {
			return 0, name
		}
		return 1 + slices.IndexFunc(agentOrder, func(line []string) bool { return slices.Contains(line, name) }), name
	}
	fromRank, fromName := rank(from)
	toRank, toName := rank(to)
	switch {
	case fromName == toName:
		return ""
	case fromName != "" && fromRank == 0, toName != "" && toRank == 0:
		return "the folder is not in the order inside agent/"
	case toRank >= fromRank:
		return "it is not below, in the order inside agent/: api > supervisor, reap, dockerplugin, inside > container > host, state, stat, config > agent"
	}
	return ""
}

func TestFloorRulesSayNoWhereTheyShould(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to  string
		test, bad bool
	}{
		{from: "overlay", to: "logship/tail", bad: true},
		{from: "agent/api", to: "overlay", bad: true},
		{from: "agent/container/docker", to: "agent/supervisor", bad: true},
		{from: "agent/host", to: "agent/state", bad: true},
		{from: "agent", to: "agent/host", bad: true},
		{from: "agent/new", to: "agent", bad: true},
		{from: "cni-plugin", to: "agent", bad: true},
		{from: "cmd/fairlead-cni", to: "agent/config", bad: true},
		{from: "metrics", to: "test/hosttest", bad: true},
		{from: "metrics", to: "test/hosttest", test: true},
		{from: "cmd/fairlead", to: "overlay/store"},
		{from: "cmd/fairlead-cni", to: "cni-plugin"},
		{from: "overlay/door/cni", to: "cni-plugin/wire"},
		{from: "overlay", to: "overlay/plan"},
		{from: "agent/api", to: "agent/container"},
		{from: "agent/supervisor", to: "agent"},
		{from: "agent/container", to: "agent/container/docker"},
	} {
		if why := forbidden(c.from, c.to, c.test); (why != "") != c.bad {
			t.Errorf("%s imports %s (test %v): got %q, want it forbidden: %v", c.from, c.to, c.test, why, c.bad)
		}
	}
}

func TestEachPackageHasOneCommentInTheFileNamedAfterIt(t *testing.T) {
	t.Parallel()
	packages := map[string][]source{}
	for _, s := range sources(t) {
		if !s.test() {
			packages[s.dir] = append(packages[s.dir], s)
		}
	}
	for dir, files := range packages {
		var with []string
		for _, s := range files {
			if s.doc {
				with = append(with, s.name)
			}
		}
		want := files[0].pkg + ".go"
		if len(with) != 1 || with[0] != want {
			t.Errorf("%s: the package comment is in %v, want it in %s alone", dir, with, want)
		}
	}
}

func TestCNIBinaryIsMadeOfTheStandardLibraryAndItsOwnPackagesOnly(t *testing.T) {
	t.Parallel()
	allowed := []string{module + "/cmd/fairlead-cni", module + "/cni-plugin", module + "/cni-plugin/wire", module + "/cni-plugin/crash"}
	// Each of these alone would double what the binary costs to start.
	heavy := []string{"net/http", "crypto/tls", "encoding/gob", "html/template", "text/template", "os/exec"}

	cmd := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{.Standard}}", "./cmd/fairlead-cni")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, out)
	}
	seen := false
	for line := range strings.Lines(string(out)) {
		name, standard, _ := strings.Cut(strings.TrimSpace(line), " ")
		seen = seen || path.Base(name) == "fairlead-cni"
		if standard != "true" && !slices.Contains(allowed, name) {
			t.Errorf("fairlead-cni is linked with %s, which its list does not name", name)
		}
		if slices.Contains(heavy, name) {
			t.Errorf("fairlead-cni is linked with %s, which makes it slow to start", name)
		}
	}
	if !seen {
		t.Errorf("go list did not list the binary itself:\n%s", out)
	}
}
