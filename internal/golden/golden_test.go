package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a test whose errors are kept.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

// TestCompare: what differs is shown, and goes into the file if so wished.
func TestCompare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(path, []byte("one\ntwo\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	Compare(r, path, "one\ntwo\n")
	if len(r.errors) > 0 {
		t.Errorf("equal: %q", r.errors)
	}
	Compare(r, path, "one\nthree\n")
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], path) || !strings.Contains(r.errors[0], "three") {
		t.Errorf("different: %q", r.errors)
	}
	defer func(old bool) { *Update = old }(*Update)
	*Update = true
	Compare(t, path, "one\nthree\n")
	if b, err := os.ReadFile(path); err != nil || string(b) != "one\nthree\n" {
		t.Errorf("rewritten: %q, %v", b, err)
	}
}
