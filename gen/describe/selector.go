package describe

import "fmt"

// Selector says how to find the form of a slot by its opcode: in a slot read
// as a little-endian word w,
//
//	key = w>>Shift&Mask | w>>LowShift&Low
//
// is the index into Heads. The form at Heads[key], or one of those that
// follow it by Next, is the form of the slot if any is.
type Selector struct {
	Shift, Mask, LowShift, Low uint8
	Heads                      []*Form // nil entries: no form
}

// Key returns the index into Heads of a slot.
func (s *Selector) Key(w uint64) int {
	return int(w>>s.Shift&uint64(s.Mask) | w>>s.LowShift&uint64(s.Low))
}

// Select finds a selector for the forms of one opcode, and the form to try
// next after each one, if any. One field selects; forms that agree in it
// follow one another in the order of the file.
func Select(forms []*Form) (Selector, map[*Form]*Form, error) {
	if len(forms) == 1 {
		return Selector{Heads: forms}, nil, nil
	}
	field := widest(forms)
	next := map[*Form]*Form{}
	last := map[int32]*Form{}
	var heads []*Form
	for _, f := range forms {
		fd := f.Fields()[field]
		if !fd.Fixed() {
			return Selector{}, nil, fmt.Errorf("%s doesn't say which %s it has", f.Name, fieldNames[field])
		}
		if l := last[fd.Value]; l != nil {
			next[l] = f
		} else {
			heads = append(heads, f)
		}
		last[fd.Value] = f
	}
	s, ok := search(heads, position[field].shift, position[field].bits)
	if !ok {
		return s, nil, fmt.Errorf("no selector for opcode %02x", forms[0].Op)
	}
	return s, next, nil
}

// widest returns the field with the most different numbers.
func widest(forms []*Form) int {
	best, most := 0, 0
	for i := range fieldNames {
		values := map[int32]bool{}
		for _, f := range forms {
			if fd := f.Fields()[i]; fd.Fixed() {
				values[fd.Value] = true
			}
		}
		if len(values) > most {
			best, most = i, len(values)
		}
	}
	return best
}

// search tries shifts and masks, the smallest table first.
func search(heads []*Form, shift, bits uint) (Selector, bool) {
	words := make([]uint64, len(heads))
	for i, f := range heads {
		_, words[i] = f.Match()
	}
	for size := 1; size <= 128; size *= 2 {
		for sh := uint(0); sh < bits && sh < 16; sh++ {
			for mask := 0; mask < size; mask += 2 {
				for low := 0; low <= 3 && low < size; low++ {
					if mask&low != 0 || bits-sh < 8 && mask>>(bits-sh) != 0 {
						continue
					}
					s := Selector{uint8(shift + sh), uint8(mask), uint8(shift), uint8(low), make([]*Form, (mask|low)+1)}
					if s.place(heads, words) {
						return s, true
					}
				}
			}
		}
	}
	return Selector{}, false
}

// place enters the forms into Heads; it fails if two have one key.
func (s *Selector) place(heads []*Form, words []uint64) bool {
	for i, f := range heads {
		k := s.Key(words[i])
		if s.Heads[k] != nil {
			return false
		}
		s.Heads[k] = f
	}
	return true
}
