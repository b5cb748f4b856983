package helpers

import (
	"iter"
	"maps"

	"github.com/bpfjit/bpfjit/abi"
)

// Numbers of the helpers that are implemented here.
const (
	MapLookupElem     = 1
	MapUpdateElem     = 2
	MapDeleteElem     = 3
	KtimeGetNs        = 5
	TracePrintk       = 6
	GetPrandomU32     = 7
	GetSmpProcessorID = 8
)

// standard are all helpers of this package.
var standard = map[uint32]abi.HelperFunc{
	MapLookupElem:     mapLookupElem,
	MapUpdateElem:     mapUpdateElem,
	MapDeleteElem:     mapDeleteElem,
	KtimeGetNs:        ktimeGetNs,
	TracePrintk:       tracePrintk,
	GetPrandomU32:     getPrandomU32,
	GetSmpProcessorID: getSmpProcessorID,
}

// Table says which function a number calls. The zero value has none. It must
// not be changed while programs run.
type Table struct {
	low  [256]abi.HelperFunc // where nearly all numbers are
	high map[uint32]abi.HelperFunc
}

// Standard returns a new Table with all helpers of this package.
func Standard() *Table {
	t := new(Table)
	for number, f := range standard {
		t.Set(number, f)
	}
	return t
}

// Set makes a number call f, or nothing if f is nil.
func (t *Table) Set(number uint32, f abi.HelperFunc) {
	switch {
	case number < uint32(len(t.low)):
		t.low[number] = f
	case f == nil:
		delete(t.high, number)
	default:
		if t.high == nil {
			t.high = map[uint32]abi.HelperFunc{}
		}
		t.high[number] = f
	}
}

// Lookup returns the function that a number calls, or nil.
func (t *Table) Lookup(number uint32) abi.HelperFunc {
	if number < uint32(len(t.low)) {
		return t.low[number]
	}
	return t.high[number]
}

// All yields the numbers that call a function, and the functions.
func (t *Table) All() iter.Seq2[uint32, abi.HelperFunc] {
	return func(yield func(uint32, abi.HelperFunc) bool) {
		for number, f := range t.low {
			if f != nil && !yield(uint32(number), f) {
				return
			}
		}
		for number, f := range t.high {
			if !yield(number, f) {
				return
			}
		}
	}
}

// Clone returns a copy, to be changed on its own.
func (t *Table) Clone() *Table { return &Table{low: t.low, high: maps.Clone(t.high)} }
