package profile

import (
	"context"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"
)

// spin is looked for in the profile.
//
//go:noinline
func spin(until time.Time) (n int) {
	for time.Now().Before(until) {
		n++
	}
	return n
}

// TestTake finds what this test did itself.
func TestTake(t *testing.T) {
	for range 20 { // until there are samples
		samples, err := Take(func() {
			pprof.Do(context.Background(), pprof.Labels("colour", "green"), func(context.Context) { spin(time.Now().Add(100 * time.Millisecond)) })
		})
		if err != nil {
			t.Skip(err)
		}
		for _, s := range samples {
			at := slices.IndexFunc(s.Stack, func(f string) bool { return strings.HasSuffix(f, "profile.spin") })
			if at < 0 {
				continue
			}
			caller := slices.IndexFunc(s.Stack, func(f string) bool { return strings.Contains(f, "profile.TestTake") })
			if caller < at || s.Labels["colour"] != "green" || s.Count == 0 {
				t.Errorf("%+v", s)
			}
			return
		}
	}
	t.Error("no sample of it")
}

func TestMalformed(t *testing.T) {
	for _, b := range []string{"\x80", "\x32\x05x", "\x0d\x00\x00\x00\x00", "\x12\x01\x80"} {
		if _, err := read([]byte(b)); err == nil {
			t.Errorf("% x was read", b)
		}
	}
}
