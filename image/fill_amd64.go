//go:build amd64 && !purego

package image

// fill sets every byte of b to trap.
func fill(b []byte) { fillAVO(b) }
