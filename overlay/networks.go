package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// networksFile keeps the networks that were made by command; those of the configuration are kept there.
const networksFile = "networks.json"

// loadNetworks joins the configuration's networks with those that were made by command. One of these that clashes with
// the configuration, which has changed since, is left out and told.
func (s *session) loadNetworks() error {
	var made []Network
	s.faults = map[string]string{}
	if s.o.cfg.Store == "etcd" {
		return nil // the store tells
	}
	if _, err := s.o.deps.State.ReadJSON(networksFile, &made); err != nil {
		return err
	}
	s.listed = slices.Clone(s.o.cfg.Networks)
	for _, n := range made {
		if err := n.beside(s.listed); err != nil {
			s.o.deps.Log.Error("a network that was made by `net create` is not served", "network", n.Name, "err", err)
			continue
		}
		s.listed = append(s.listed, n)
		s.made = append(s.made, n)
	}
	return nil
}

// beside gives one error with everything that is wrong with n among others.
func (n Network) beside(others []Network) error {
	var problems []error
	problem := func(key, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	n.validate(problem)
	n.validateBeside(others, problem)
	for _, name := range n.Allow {
		if !slices.ContainsFunc(others, func(o Network) bool { return o.Name == name }) {
			problem("allow", "there is no other network %q", name)
		}
	}
	return errors.Join(problems...)
}

// findFaults sets aside the networks that cannot be served, because the host routes their addresses elsewhere. One that
// has attachments stays: they work.
func (s *session) findFaults(inUse func(network string) bool) error {
	for _, n := range s.listed {
		if inUse(n.Name) {
			continue
		}
		taken, err := s.routedElsewhere(n)
		if err != nil {
			return err
		}
		if taken != nil {
			s.faults[n.Name] = taken.Error()
			s.o.deps.Log.Error("network is not served", "network", n.Name, "err", taken)
		}
	}
	return nil
}

// routedElsewhere tells which route of the host leads some of n's addresses elsewhere.
func (s *session) routedElsewhere(n Network) (taken, err error) {
	for _, cidr := range n.cidrs() {
		route, err := s.kernel.ForeignRoute(cidr)
		if err != nil {
			return nil, err
		}
		if route != "" {
			return fmt.Errorf("cidr: %s overlaps a subnet that this host already routes: %s", cidr, route), nil
		}
	}
	return nil, nil
}

// CreateNetwork makes a network and keeps it over restarts. It fails when anything of it is somebody else's, naming who
// has it, and changes nothing then. With the store "etcd" it is made for all hosts; with "static" every host lists its
// networks itself.
func (o *Overlay) CreateNetwork(ctx context.Context, n Network) error {
	if n.Path == "" {
		n.Path = "auto"
	}
	if n.Host == "" {
		n.Host = "deny"
	}
	what := "create network " + n.Name
	if o.cfg.Store == "etcd" {
		return during(what, o.createShared(ctx, n))
	}
	return o.changeNetworks(ctx, what, func(s *session) error {
		if err := n.beside(s.listed); err != nil {
			return err
		}
		taken, err := s.routedElsewhere(n)
		if err = errors.Join(taken, err); err != nil {
			return err
		}
		s.made = append(s.made, n)
		s.listed = append(s.listed, n)
		return nil
	})
}

// RemoveNetwork takes a network that was made by command away. It fails while containers are on it.
func (o *Overlay) RemoveNetwork(ctx context.Context, name string) error {
	what := "remove network " + name
	if o.cfg.Store == "etcd" {
		return during(what, o.removeShared(ctx, name))
	}
	return o.changeNetworks(ctx, what, func(s *session) error {
		same := func(n Network) bool { return n.Name == name }
		switch {
		case slices.ContainsFunc(o.cfg.Networks, same):
			return errListed
		case !slices.ContainsFunc(s.made, same):
			return &UnknownNetworkError{Name: name, Known: s.names()}
		}
		if on := s.table.on(name); len(on) > 0 {
			return fmt.Errorf("containers are on it: %s", strings.Join(ownersOf(on), ", "))
		}
		s.made = slices.DeleteFunc(slices.Clone(s.made), same)
		s.listed = slices.DeleteFunc(slices.Clone(s.listed), same)
		for i := range s.listed {
			s.listed[i].Allow = slices.DeleteFunc(slices.Clone(s.listed[i].Allow), func(a string) bool { return a == name })
		}
		return nil
	})
}

// errListed is returned for a network of the configuration that is to be removed by command.
var errListed = errors.New("it is in the configuration file (overlay.networks); remove it there")

func during(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func ownersOf(list []plan.Attachment) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.Owner)
	}
	if len(out) > 5 {
		out = append(out[:5], fmt.Sprintf("and %d more", len(out)-5))
	}
	return out
}

// changeNetworks lets change edit the lists of networks, keeps what was made and brings the host there.
func (o *Overlay) changeNetworks(ctx context.Context, what string, change func(*session) error) error {
	fail := func(err error) error { return fmt.Errorf("%s: %w", what, err) }
	if o.cfg.Store != "local" {
		return fail(fmt.Errorf("the store is %s, where each host lists its networks in its configuration (overlay.networks, and blocks in overlay.peers)", o.cfg.Store))
	}
	s, err := o.current(ctx)
	if err != nil {
		return fail(err)
	}
	s.changing.Lock() // no attach meanwhile
	defer s.changing.Unlock()
	s.mu.Lock()
	made, listed := s.made, s.listed
	err = change(s)
	if err == nil {
		err = o.deps.State.WriteJSON(networksFile, s.made)
	}
	if err != nil {
		s.made, s.listed = made, listed
		s.mu.Unlock()
		return fail(err)
	}
	cluster := s.cluster
	s.mu.Unlock()
	if err := s.setCluster(cluster); err != nil {
		return fail(err)
	}
	s.newCluster.Store(true)
	if err := s.putRightLocked(ctx); err != nil {
		return fail(err)
	}
	return nil
}

func (s *session) names() []string {
	var out []string
	for _, n := range s.listed {
		out = append(out, n.Name)
	}
	return out
}

// served gives the listed networks without those that have a fault. The session is locked.
func (s *session) served() []Network {
	return slices.DeleteFunc(slices.Clone(s.listed), func(n Network) bool { return s.faults[n.Name] != "" })
}
