//go:build !amd64 || purego

package blind

import (
	"io"

	"github.com/bpfjit/bpfjit/bpf"
)

func (w *walk) rewrite(r *Result, p *bpf.Program, rand io.Reader, start, end int) error {
	return w.rewriteGeneric(r, p, rand, start, end)
}

// tail is for assembly.
type tail struct{}

func composeInto(list, first, second []int32) (ok bool) { return composeGeneric(list, first, second) }
