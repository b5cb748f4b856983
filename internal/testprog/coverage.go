package testprog

import (
	"fmt"
	"strings"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Coverage counts the forms of instructions that programs consist of.
type Coverage [tables.NumForms]int

// Add counts the instructions of a program. Slots that have no form count as
// none.
func (c *Coverage) Add(insns []abi.Insn) {
	for _, in := range insns {
		f, _ := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
		c[f]++
	}
}

// Missing returns the forms of a list that never occurred.
func (c *Coverage) Missing(of []tables.Form) (missing []tables.Form) {
	for _, f := range of {
		if c[f] == 0 {
			missing = append(missing, f)
		}
	}
	return missing
}

// Table lists the forms that occurred and how often, several to a line, and
// those of the list that didn't.
func (c *Coverage) Table(of []tables.Form) string {
	var s strings.Builder
	n := 0
	for f, count := range c {
		if count == 0 {
			continue
		}
		fmt.Fprintf(&s, "%-22s%8d", tables.Form(f), count)
		if n++; n%4 == 0 {
			s.WriteByte('\n')
		} else {
			s.WriteString("   ")
		}
	}
	fmt.Fprintf(&s, "\n%d forms reached, of %d wanted not reached: %v", n, len(of), c.Missing(of))
	return s.String()
}

// SourceForms returns the forms that a source program may have.
func SourceForms() []tables.Form {
	return formsWhere(func(*tables.FormInfo) bool { return true })
}

// TranslatedForms returns the forms that a translated program may have.
func TranslatedForms() (forms []tables.Form) {
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if tables.Forms[f].Translated == tables.Allowed {
			forms = append(forms, f)
		}
	}
	return forms
}

// VerifiedForms returns the forms that programs of Verified have: those of
// source programs, but for callx, which no verifier accepts, and the address
// of a function, which only callbacks use.
func VerifiedForms() []tables.Form {
	return formsWhere(func(f *tables.FormInfo) bool {
		return f.Op != abi.OpCallx && !(f.Op == abi.OpLdImm64 && f.Src.Value == abi.Imm64Func)
	})
}
