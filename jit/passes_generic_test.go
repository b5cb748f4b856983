//go:build !amd64 || purego

package jit

// implementations are those of the passes; TestImplementations runs over all.
var implementations = []implementation{
	{"go", (*compiler).layOutGeneric, (*compiler).passGeneric, (*compiler).lastPassGeneric, (*compiler).passesGeneric},
}
