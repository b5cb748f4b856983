package perf

import (
	"errors"
	"runtime"
	"testing"
)

func TestFilesText(t *testing.T) {
	for _, c := range []struct {
		files Files
		text  string
	}{{0, ""}, {Map, "map"}, {Dump, "dump"}, {Map | Dump, "map,dump"}} {
		var got Files
		if err := got.UnmarshalText([]byte(c.text)); err != nil || got != c.files {
			t.Errorf("%q is %d, %v", c.text, got, err)
		}
		if text, err := c.files.MarshalText(); err != nil || string(text) != c.text {
			t.Errorf("%d is %q, %v", c.files, text, err)
		}
	}
	for _, text := range []string{"maps", "map,", ",", "map dump", "0x4"} {
		got := Map
		if err := got.UnmarshalText([]byte(text)); err == nil || got != Map {
			t.Errorf("%q is %v", text, got)
		}
	}
	if s := (Map | 4).String(); s != "map,0x4" {
		t.Errorf("%q", s)
	}
}

func TestOpenUnknown(t *testing.T) {
	if l, err := Open(4); err == nil {
		l.Close()
		t.Error("no error")
	}
}

// TestPlatform: elsewhere than on Linux the error says so.
func TestPlatform(t *testing.T) {
	d := &directory{path: t.TempDir()}
	l, err := d.open(Map | Dump)
	if runtime.GOOS != "linux" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestClean(t *testing.T) {
	for name, want := range map[string]string{
		"":                   "",
		"bpf_prog_count":     "bpf_prog_count",
		"a b\tc\nd\x00e\x7f": "a_b_c_d_e_",
		"größe\u00a0\u2028x": "größe__x",
		"bad \xff utf":       "bad_\ufffd_utf",
	} {
		if got := clean(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}
