//go:build amd64 && !purego

package bench

const hasAssembly = true
