package perf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func newSink(dir string, kind Files) (sink, error) {
	pid := os.Getpid()
	if kind == Map {
		return &mapFile{path: filepath.Join(dir, fmt.Sprintf("perf-%d.map", pid))}, nil
	}
	return &dumpFile{path: filepath.Join(dir, fmt.Sprintf("jit-%d.dump", pid)), pid: pid}, nil
}

// create makes a new file in a directory where others may make files, too: it
// follows no link and takes nobody's file over.
func create(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// mapFile is a map. Others in the process may add to it as well.
type mapFile struct {
	path string
	made bool
	file *os.File
}

func (m *mapFile) open() error {
	if !m.made {
		f, err := create(m.path)
		if err != nil {
			return err
		}
		m.made = true
		if err := f.Close(); err != nil {
			return err
		}
	}
	var err error
	m.file, err = os.OpenFile(m.path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) { // somebody has tidied up
		m.made = false
		return m.open()
	}
	return err
}

func (m *mapFile) add(f *Func) error {
	_, err := m.file.Write(appendMap(nil, f))
	return err
}

func (m *mapFile) close() error { return m.file.Close() }

// dumpFile is a dump.
type dumpFile struct {
	path  string
	pid   int
	file  *os.File
	mark  []byte // the mapping by which perf finds the file
	end   int64  // of what is written, without the record that closes it
	loads uint64
}

func (d *dumpFile) open() error {
	if err := d.reopen(); err != nil {
		return err
	}
	var err error
	d.mark, err = unix.Mmap(int(d.file.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		d.file.Close()
		return &fs.PathError{Op: "mmap", Path: d.path, Err: err}
	}
	return nil
}

// reopen opens the file at the end of what is written, or a new one.
func (d *dumpFile) reopen() error {
	if d.end > 0 {
		f, err := os.OpenFile(d.path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err == nil {
			if info, err := f.Stat(); err == nil && info.Size() >= d.end {
				d.file = f
				return f.Truncate(d.end)
			}
			f.Close()
		}
	}
	f, err := create(d.path)
	if err != nil {
		return err
	}
	d.file, d.end = f, 0
	if err := d.write(appendHeader(nil, d.pid, now())); err != nil {
		f.Close()
		return err
	}
	return nil
}

// write adds a whole number of records.
func (d *dumpFile) write(b []byte) error {
	if _, err := d.file.WriteAt(b, d.end); err != nil {
		d.file.Truncate(d.end)
		return err
	}
	d.end += int64(len(b))
	return nil
}

func (d *dumpFile) add(f *Func) error {
	var b []byte
	time := now()
	if len(f.Lines) > 0 {
		b = appendDebug(b, f, time)
	}
	b = appendLoad(b, f, d.pid, unix.Gettid(), d.loads, time)
	if err := d.write(b); err != nil {
		return err
	}
	d.loads++
	return nil
}

func (d *dumpFile) close() error {
	end := d.end
	err := d.write(appendClose(nil, now()))
	d.end = end
	return errors.Join(err, unix.Munmap(d.mark), d.file.Close())
}

// now returns what perf record -k mono stamps samples with.
func now() uint64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return uint64(t.Nano())
}
