package perf

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode"
)

// Files selects kinds of files; they can be or'ed. 0 is none.
type Files uint8

const (
	// Map is /tmp/perf-PID.map.
	Map Files = 1 << iota
	// Dump is /tmp/jit-PID.dump.
	Dump
)

// names are the words for Files, by bit.
var names = [...]string{"map", "dump"}

// String returns "map", "dump", "map,dump", or "" for none.
func (f Files) String() string {
	var list []string
	for bit, name := range names {
		if f>>bit&1 != 0 {
			list = append(list, name)
		}
	}
	if rest := f >> len(names); rest != 0 {
		list = append(list, fmt.Sprintf("%#x", uint8(rest<<len(names))))
	}
	return strings.Join(list, ",")
}

// MarshalText implements [encoding.TextMarshaler]: it is String.
func (f Files) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]: it understands what
// String returns for kinds that there are.
func (f *Files) UnmarshalText(text []byte) error {
	var files Files
	if len(text) > 0 {
	words:
		for word := range strings.SplitSeq(string(text), ",") {
			for bit, name := range names {
				if word == name {
					files |= 1 << bit
					continue words
				}
			}
			return fmt.Errorf("unknown file %q, want %s", word, strings.Join(names[:], " or "))
		}
	}
	*f = files
	return nil
}

// Func is a function in machine code.
type Func struct {
	// Name is what perf shows. White space and what can't be printed becomes
	// an underscore.
	Name string
	// Addr is where the code runs.
	Addr uint64
	// Code is the code, at least one byte.
	Code []byte
	// Lines say which lines of the source it comes from, in the order of
	// their offsets; each holds up to the next one. nil if it isn't known.
	Lines []Line
}

// Line is a place in the source.
type Line struct {
	Offset int    // in the code, in bytes
	File   string // as a compiler names it
	Number int    // from 1
}

// clean makes a name that neither format chokes on.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) && !unicode.IsSpace(r) {
			return r
		}
		return '_'
	}, name)
}

// A Log is somebody's use of the files of the process. Its methods, and Open,
// may be called from several goroutines at once.
type Log struct {
	dir   *directory
	files Files
	once  sync.Once
	err   error // of Close
}

// Open returns a Log that writes to files, which are made if there are none
// yet. It must be closed. The error is that of the system, such as a file that
// somebody else owns, or /tmp being mounted without permission to execute,
// which the dump needs: perf finds it by a mapping. Elsewhere than on Linux it
// is [errors.ErrUnsupported].
func Open(files Files) (*Log, error) { return process.open(files) }

// Add writes functions. After an error some of them may be missing; the files
// are as good as before.
func (l *Log) Add(funcs []Func) error { return l.dir.add(l.files, funcs) }

// Close ends the use of the files, and closes those that nobody uses any more.
// Closing again does nothing.
func (l *Log) Close() error {
	l.once.Do(func() { l.err = l.dir.close(l.files) })
	return l.err
}

// process has the files of the process.
var process = &directory{path: "/tmp"}

// directory has the files of the process that are in it.
type directory struct {
	path string

	mu    sync.Mutex
	users [len(names)]int
	sinks [len(names)]sink // nil: not made yet
}

// sink is a file of some kind.
type sink interface {
	// open makes the file, or goes on with one that was closed.
	open() error
	add(f *Func) error
	close() error
}

func (d *directory) open(files Files) (*Log, error) {
	if files>>len(names) != 0 {
		return nil, fmt.Errorf("perf: unknown files %v", files)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var opened Files
	for bit := range names {
		if files>>bit&1 == 0 {
			continue
		}
		if err := d.use(bit); err != nil {
			d.drop(opened)
			return nil, fmt.Errorf("perf: %w", err)
		}
		opened |= 1 << bit
	}
	return &Log{dir: d, files: files}, nil
}

// use adds a user of a file. d.mu is held.
func (d *directory) use(bit int) error {
	if d.sinks[bit] == nil {
		s, err := newSink(d.path, Files(1<<bit))
		if err != nil {
			return err
		}
		d.sinks[bit] = s
	}
	if d.users[bit] == 0 {
		if err := d.sinks[bit].open(); err != nil {
			return err
		}
	}
	d.users[bit]++
	return nil
}

// drop takes a user from each of files. d.mu is held.
func (d *directory) drop(files Files) error {
	var errs []error
	for bit := range names {
		if files>>bit&1 == 0 {
			continue
		}
		if d.users[bit]--; d.users[bit] == 0 {
			errs = append(errs, d.sinks[bit].close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("perf: %w", err)
	}
	return nil
}

func (d *directory) close(files Files) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.drop(files)
}

func (d *directory) add(files Files, funcs []Func) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range funcs {
		f := funcs[i]
		f.Name = clean(f.Name)
		for bit := range names {
			if files>>bit&1 == 0 {
				continue
			}
			if err := d.sinks[bit].add(&f); err != nil {
				return fmt.Errorf("perf: %w", err)
			}
		}
	}
	return nil
}
