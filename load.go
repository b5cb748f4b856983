package bpfjit

import (
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// Load makes a program of an object, with the maps and globals that it refers
// to. An empty name means the only program of the object. Values that the
// caller has put into spec.Maps and spec.Variables are what the maps begin
// with; spec isn't changed. The maps live as long as the program; to share
// them with other programs of the object use LoadCollection.
//
// The error is a *CompileError where an instruction is at fault, and where the
// program as a whole is.
func Load(spec *ebpf.CollectionSpec, name string, opts *Options) (*Program, error) {
	src, err := SourceOf(spec, name)
	if err != nil {
		return nil, renamed(err, opts)
	}
	s := newSettings(opts)
	space := s.Space
	if space == nil {
		space = NewSpace()
	}
	needed := make(map[string]bool)
	for _, ref := range src.Maps {
		needed[ref.Name] = true
	}
	p, err := compile(src, s, space, makeMaps(space, spec, needed))
	if s.Space == nil {
		if err != nil {
			return nil, also(err, space.Close())
		}
		p.ownSpace = true
	}
	return p, err
}

// Collection is all of an object: its programs, and the maps that they share.
type Collection struct {
	Programs map[string]*Program
	Maps     map[string]*Map

	space    *Space
	ownSpace bool
}

// LoadCollection makes all programs of an object, on maps that they share. One
// that can't be compiled fails the whole; delete it from spec.Programs to do
// without it. Maps that can't be made are left out if no program refers to
// them. Options.Name and Options.Type are not used. Programs are compiled on all
// processors, but one after the other, in the order of their names, where
// Options.Rand or Options.Dump is set. See Load for the rest.
func LoadCollection(spec *ebpf.CollectionSpec, opts *Options) (*Collection, error) {
	if len(spec.Programs) == 0 {
		return nil, errNoPrograms
	}
	s := newSettings(opts)
	s.Name, s.Type = "", ebpf.UnspecifiedProgram
	c := &Collection{Programs: make(map[string]*Program), space: s.Space}
	if c.space == nil {
		c.space, c.ownSpace = NewSpace(), true
	}
	c.Maps = makeMaps(c.space, spec, nil)
	names := slices.Sorted(maps.Keys(spec.Programs))
	programs, err := compileAll(len(names), s, func(k int) (*Program, error) {
		src, err := SourceOf(spec, names[k])
		if err != nil {
			return nil, err
		}
		return compile(src, s, c.space, c.Maps)
	})
	for k, p := range programs {
		if p != nil {
			c.Programs[names[k]] = p
		}
	}
	if err != nil {
		return nil, also(err, c.Close())
	}
	maps.DeleteFunc(c.Maps, func(_ string, m *Map) bool { return m.err != nil })
	return c, nil
}

// compileAll makes n programs, on all processors, unless the caller's reader or
// writer is to see them one after the other. The error is that of the first
// program that fails, in their order: programs are begun in that order, so all
// before it are made. Those are returned too.
func compileAll(n int, s settings, one func(k int) (*Program, error)) ([]*Program, error) {
	programs, errs := make([]*Program, n), make([]error, n)
	workers := min(n, runtime.GOMAXPROCS(0))
	if s.Rand != nil || s.Dump != nil {
		workers = 1
	}
	var next atomic.Int64
	var failed atomic.Bool
	work := func() {
		for !failed.Load() {
			k := int(next.Add(1)) - 1
			if k >= n {
				return
			}
			if programs[k], errs[k] = one(k); errs[k] != nil {
				failed.Store(true)
			}
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return programs, err
		}
	}
	return programs, nil
}

// Close closes the programs, and the Space if it isn't the caller's. It waits
// for runs under way, as Program.Close does.
func (c *Collection) Close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Programs)) {
		errs = append(errs, c.Programs[name].Close())
	}
	err := errors.Join(errs...)
	if c.ownSpace && !errors.Is(err, ErrBusy) {
		err = errors.Join(err, c.space.Close())
	}
	return err
}

// makeMaps makes the maps of an object that are needed, or all of them for
// nil. A map that can't be made knows why.
func makeMaps(space *Space, spec *ebpf.CollectionSpec, needed map[string]bool) map[string]*Map {
	made := make(map[string]*Map)
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		if needed == nil || needed[name] {
			made[name] = newMap(space, name, spec.Maps[name], contents(spec, name))
		}
	}
	return made
}

// contents returns what a map begins with: what its spec says, with the
// variables of the spec written over it.
func contents(spec *ebpf.CollectionSpec, name string) []ebpf.MapKV {
	list := slices.Clone(spec.Maps[name].Contents)
	for _, v := range spec.Variables {
		if v.SectionName != name || len(list) != 1 {
			continue
		}
		data, ok := list[0].Value.([]byte)
		if !ok {
			continue
		}
		if end := uint64(v.Offset) + uint64(len(v.Value)); end > uint64(len(data)) {
			continue
		}
		data = slices.Clone(data)
		copy(data[v.Offset:], v.Value)
		list[0].Value = data
	}
	return list
}

// also returns err, joined with a second error if there is one.
func also(err, second error) error {
	if second == nil {
		return err // as it is, for %+v
	}
	return errors.Join(err, second)
}
