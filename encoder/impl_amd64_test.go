//go:build amd64 && !purego

package encoder

// impls are the implementations under test; every test runs over all of them.
var impls = []impl{
	{"asm", (*Draft).extend, (*Joint).extendASM},
	{"go", (*Draft).extendGeneric, (*Joint).extendGeneric},
}
