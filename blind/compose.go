package blind

// compose says where slots are that first moves to slots which second moves. It
// reports whether there are such.
func (r *Result) compose(first, second []int32) (ok bool) {
	if len(first) > cap(r.composed) {
		r.composed = grow(r.composed, len(first))
	}
	r.composed = r.composed[:len(first)]
	return composeInto(r.composed, first, second)
}

// composeGeneric makes a list, as long as first, of what is in second at the numbers
// of first. It reports whether there is something.
func composeGeneric(list, first, second []int32) (ok bool) {
	for i, slot := range first {
		if uint(slot) >= uint(len(second)) {
			return false
		}
		list[i] = second[slot]
	}
	return true
}
