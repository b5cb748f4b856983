//go:build !amd64 || purego

package blind

import (
	"io"
	"math/rand/v2"
)

// newGenerator returns ChaCha8, which is faster than AES without instructions for
// it.
func newGenerator(key [32]byte) io.Reader { return rand.NewChaCha8(key) }
