//go:build !amd64 || purego

package blind

import (
	"io"

	"github.com/bpfjit/bpfjit/bpf"
)

func (w *walk) rewrite(r *Result, p *bpf.Program, rand io.Reader, start, end int) error {
	return w.rewriteGeneric(r, p, rand, start, end)
}

// assemblys is for assembly.
type assemblys struct{}

func fetch(*bpf.Program) {}

func composeInto(list, first, second []int32) (ok bool) { return composeGeneric(list, first, second) }
