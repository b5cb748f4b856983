package bpfjit

import (
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/bpfjit/bpfjit/internal/printable"
)

// Line is a line of the source that a program was compiled from. The zero
// Line means that it isn't known.
type Line struct {
	File   string // as the compiler named it
	Number int    // from 1
	Column int    // from 1; 0: unknown
	Text   string // without indentation
}

// String returns file:number, or "" if they aren't known. A file whose name can't be
// printed is quoted as Go does.
func (l Line) String() string {
	if l.Number == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d", printable.Name(path.Clean(l.File)), l.Number)
}

// comment returns the line as a listing shows it, or "".
func (l Line) comment() string {
	return strings.TrimSpace(l.String() + "  " + printable.Text(l.Text))
}

// lineTable maps slots to lines. Entries are in ascending order of slots; each
// holds from its slot to the next entry's.
type lineTable []lineEntry

type lineEntry struct {
	slot int
	line Line
}

// add appends an entry. source is what cilium/ebpf attached to an
// instruction: a line of BTF, or anything else that can be printed.
func (t *lineTable) add(slot int, source fmt.Stringer) {
	line := Line{Text: strings.TrimSpace(source.String())}
	if l, ok := source.(*btf.Line); ok {
		line.File = l.FileName()
		line.Number = int(l.LineNumber())
		line.Column = int(l.LineColumn())
	}
	*t = append(*t, lineEntry{slot, line})
}

// at returns the line of a slot.
func (t lineTable) at(slot int) Line {
	i := sort.Search(len(t), func(i int) bool { return t[i].slot > slot })
	if i == 0 {
		return Line{}
	}
	return t[i-1].line
}
