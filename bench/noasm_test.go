//go:build !amd64 || purego

package bench

const hasAssembly = false
