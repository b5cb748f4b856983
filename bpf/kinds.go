package bpf

import "github.com/bpfjit/bpfjit/abi"

// Kinds is a set of kinds of others, see Survey.Others. Programs without one are
// frequent, and need not look through them for it.
type Kinds uint8

const (
	// Gotols are jumps by imm.
	Gotols Kinds = 1 << iota
	// Links are calls of functions of the program, and addresses of such.
	Links
	// MayGotos count.
	MayGotos
	// Divisions may be replaced.
	Divisions
)

// Kinds returns of which kinds there are others.
func (s *Survey) Kinds() Kinds { return s.kinds }

// kinds are those of the opcodes of others.
var kinds = func() (list [256]Kinds) {
	for op := range list {
		if IsDivision(uint8(op)) {
			list[op] = Divisions
		}
	}
	list[abi.OpGotol] = Gotols
	list[abi.OpCall], list[abi.OpLdImm64] = Links, Links
	list[abi.OpMayGoto] = MayGotos
	return list
}()
