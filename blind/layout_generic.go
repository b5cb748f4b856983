//go:build !amd64 || purego

package blind

import (
	"io"

	"github.com/bpfjit/bpfjit/bpf"
)

func (w *walk) rewrite(p *bpf.Program, rand io.Reader, to *result, start, end int) error {
	return w.rewriteGeneric(p, rand, to, start, end)
}

// tail is for assembly.
type tail struct{}
