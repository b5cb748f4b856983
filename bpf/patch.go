package bpf

import (
	"fmt"
	"math"
	"math/bits"
	"sort"

	"github.com/bpfjit/bpfjit/abi"
)

// patcher makes the new program in parts. How far a jump leads depends on where its
// target went, so distances follow the slots that are moved: so far behind that most
// jumps lead to slots that have their place, and not so far that the caches have lost
// them.
//
//	       mended                       moved
//	old    |---------|---- behind --->|------------|
//
// What leads further is mended at the end, and so is what has 32 bits.
//
// It is what the assembly works on: gen/asm/bpf has the offsets.
type patcher struct {
	mover // where slots went, as far as they did
	// moved and flags are the new program. They have room for as many instructions, and
	// spare ones. Index has an element for each slot and the end, and spare ones.
	moved []Insn
	room  int
	flags []Flag
	// Slot comes next to be moved, to at.
	slot, at int
	// patch is the one of the patches that comes next to be placed, charge that of the
	// charges, which end as noCharges.
	patch, charge int
	// block comes next to have its jumps mended.
	block int
	// begun is the slot begun last: instructions in front of its own belong to it, the
	// first of which is at first.
	first, begun int
	// Slots are to be moved up to next, jumps mended up to block stop. They may lead to
	// slots in front of known, or to the end if that is known.
	next, stop, known int
	patches           []Patch
	charges           []Charge

	// leading are the slots whose opcodes have distances, and which aren't where slots
	// usually are: in front of what the next one became. As many as settled are mended.
	leading []leading
	settled int
	// late are slots that lead further than is known.
	late []int32
	// origin is where the slots of the new program come from, if Index doesn't say it.
	origin []int32
}

// leading is a slot that may have a distance.
type leading struct {
	slot int
	own  int  // where its instruction is
	insn Insn // what is where it would usually be, while jumps are mended
}

const (
	// partBlocks is how many blocks make a part. Slots are moved the faster the
	// longer that goes on.
	partBlocks = 256
	// placedSlots is how many slots are placed at once, for the reason of chunk. Each
	// may have a charge and a patch.
	placedSlots = 1 << 10
	// behind is by how many blocks mending follows.
	behind = 1 << 13 / blockSlots
	// spare is how many instructions the assembly moves at once.
	spare = 16
)

// run makes the program. The survey is that of the old one.
func (p *patcher) run(s *Survey) error {
	n := s.slots
	p.slot, p.at, p.patch, p.charge, p.block, p.first, p.begun = 0, 0, 0, 0, 0, 0, n
	p.enter, p.leading, p.late, p.settled = p.enter[:0], p.leading[:0], p.late[:0], 0
	if len(p.index) <= n+spare {
		p.index = make([]int32, n+1+n/4+spare)
	}
	if p.room < n {
		if err := p.makeRoom(); err != nil {
			return err
		}
	}
	p.next = min(placedSlots, n)
	p.placeUsual(s)
	if p.slot < n {
		if err := p.placeParts(s); err != nil {
			return err
		}
	}
	p.index[n] = int32(p.at)
	if len(p.patches) == 0 && (p.at == n || p.at == n+1 && p.shift(s)) {
		return nil // no other distance changes
	}
	return p.finish(s)
}

// shift mends what changes where all that is new is a charge in front of slot 0: jumps
// back to it. It reports whether that was enough.
func (p *patcher) shift(s *Survey) bool {
	switch {
	case s.astray || s.kinds&(Gotols|Links) != 0:
		return false
	case s.charger.entered:
		p.known, p.stop = s.slots+1, min(len(s.blocks), chunk)
		p.mendEasy(s, &s.blocks[0].back)
		return p.block == len(s.blocks)
	}
	return true
}

// placeParts places what is left in parts, and has mending follow.
func (p *patcher) placeParts(s *Survey) error {
	n := s.slots
	for end := min(partBlocks*blockSlots, n); p.slot < n; p.placeUsual(s) {
		switch {
		case p.slot < p.next: // it isn't usual
			if err := p.place(); err != nil {
				return err
			}
		case p.slot == end:
			p.known = p.slot
			if err := p.settle(s, p.slot/blockSlots-behind); err != nil {
				return p.otherwise(err)
			}
			end = min(end+partBlocks*blockSlots, n)
		}
		if p.slot == p.next {
			p.next = min(p.slot+placedSlots, end)
		}
	}
	return nil
}

// finish mends what isn't mended when all slots are moved.
func (p *patcher) finish(s *Survey) error {
	if p.patch < len(p.patches) {
		return p.checkPatch(p.patch) // it has no slot
	}
	p.known = s.slots + 1
	if err := p.settle(s, len(s.blocks)); err != nil {
		return err
	}
	if len(p.late) > 0 || s.kinds&(Gotols|Links) != 0 {
		if err := p.mendFar(s.others); err != nil {
			return err
		}
	}
	if len(p.enter) > 0 {
		p.findOrigins()
	}
	return nil
}

// otherwise returns the first error among the patches that are left, or err, which
// is about a patched program.
func (p *patcher) otherwise(err error) error {
	for k := p.patch; k < len(p.patches); k++ {
		if err := p.checkPatch(k); err != nil {
			return err
		}
	}
	return err
}

// makeRoom makes room for the new program, or at least for what comes in front of the
// first patch that isn't right.
func (p *patcher) makeRoom() error {
	n := len(p.old.Insns)
	length := p.at + n - p.slot + len(p.charges) - p.charge
	for _, t := range p.patches[p.patch:] {
		length += len(t.Insns)
		if 0 <= t.Own && t.Own < len(t.Insns) {
			length--
		}
	}
	if length > math.MaxInt32 {
		return p.otherwise(&Error{Slot: -1, Reason: fmt.Sprintf("has %d slots when patched", length)})
	}
	length = max(length, n)
	moved, flags := p.moved, p.flags
	p.room = length + length/4
	p.moved, p.flags = make([]Insn, p.room+spare), make([]Flag, p.room+spare)
	copy(p.moved, moved[:p.at])
	copy(p.flags, flags[:p.at])
	return nil
}

// unusual says of the opcodes of slots which patches need a closer look.
var unusual = func() (list [256]uint8) {
	for op, leads := range leads {
		if leads {
			list[op] = owned
		}
	}
	list[opSecond], list[abi.OpLdImm64] = anyway, owned
	return list
}()

const (
	owned  = 1 // those with an own instruction
	anyway = 2 // those with Before and charges, too
)

// place places the next patch or charge, and what is in front of it, or all up to
// next.
func (p *patcher) place() error {
	c := p.charges[p.charge]
	if p.patch == len(p.patches) || p.patches[p.patch].Slot >= p.next {
		if int(c.Slot) < p.next {
			return p.placeCharge(c)
		}
		p.moveTo(p.next)
		return nil
	}
	t := &p.patches[p.patch]
	if int(c.Slot) < t.Slot || int(c.Slot) == t.Slot && t.Own != Enter {
		return p.placeCharge(c)
	}
	return p.placePatch(t)
}

// placeCharge places the next charge.
func (p *patcher) placeCharge(c Charge) error {
	slot := int(c.Slot)
	if p.second(slot) {
		return p.refuse(slot, between)
	}
	if err := p.needRoom(1); err != nil {
		return err
	}
	p.moveTo(slot)
	p.begin(slot)
	p.moved[p.at], p.flags[p.at] = Insn{Op: abi.OpCharge, Imm: c.N}, Inserted
	p.at++
	p.charge++
	return nil
}

// begin begins a slot.
func (p *patcher) begin(slot int) {
	if p.begun != slot {
		p.begun, p.first = slot, p.at
	}
}

// needRoom makes room for instructions, and for the slots that are left, if there is
// none.
func (p *patcher) needRoom(insns int) error {
	if p.at-p.slot+len(p.old.Insns)+insns <= p.room {
		return nil
	}
	return p.makeRoom()
}

// placePatch places the next patch.
func (p *patcher) placePatch(t *Patch) error {
	if t.Slot < p.slot || t.Own >= len(t.Insns) || t.Own < Before || unusual[p.old.Insns[t.Slot].Op] != 0 {
		if err := p.lookAt(t); err != nil {
			return err
		}
	}
	if err := p.needRoom(len(t.Insns)); err != nil {
		return err
	}
	p.moveTo(t.Slot)
	if t.Own != Enter {
		p.begin(t.Slot)
	}
	at := p.at
	for _, in := range t.Insns {
		p.moved[p.at], p.flags[p.at] = in, Inserted
		p.at++
	}
	p.patch++
	if t.Own == Enter {
		p.addEntry(t.Slot, len(t.Insns))
	}
	if t.Own >= 0 {
		p.flags[at+t.Own] = p.old.Flag(t.Slot)
		p.index[t.Slot] = int32(p.first)
		p.slot++
	}
	return nil
}

// lookAt refuses the next patch if it isn't right, but all in front of it are. It
// lists what is leading then.
func (p *patcher) lookAt(t *Patch) error {
	if err := p.checkPatch(p.patch); err != nil {
		return err
	}
	at := p.at + t.Slot - p.slot // the patch, when what is in front is moved
	switch {
	case t.Own >= 0:
		p.addLeading(t.Slot, at+t.Own)
	case t.Own == Enter && t.Slot > 0:
		p.addLeading(t.Slot-1, at-1)
	}
	return nil
}

// addLeading lists a slot whose instruction is at own, if it may have a distance and
// isn't there.
func (p *patcher) addLeading(slot, own int) {
	if k := len(p.leading); leads[p.old.Insns[slot].Op] && (k == 0 || p.leading[k-1].slot != slot) {
		p.leading = append(p.leading, leading{slot: slot, own: own})
	}
}

// moveTo moves the slots in front of one.
func (p *patcher) moveTo(next int) {
	n := next - p.slot
	if n == 0 {
		return
	}
	count(p.index[p.slot:next], int32(p.at))
	p.index[p.begun] = int32(p.first)
	copy(p.moved[p.at:], p.old.Insns[p.slot:next])
	if flags := p.flags[p.at:][:n]; p.old.Flags != nil {
		copy(flags, p.old.Flags[p.slot:next])
	} else {
		clear(flags)
	}
	p.slot, p.at = next, p.at+n
}

// addEntry says that instructions were inserted on the way into a slot.
func (p *patcher) addEntry(slot, size int) {
	switch k := len(p.enter); {
	case size == 0:
	case k > 0 && p.enter[k-1].slot == slot:
		p.enter[k-1].size += size
	default:
		p.enter = append(p.enter, entry{slot, size})
	}
}

// count fills s with from, from+1 and so on.
func count(s []int32, from int32) {
	for len(s) >= 8 {
		e := (*[8]int32)(s)
		e[0], e[1], e[2], e[3] = from, from+1, from+2, from+3
		e[4], e[5], e[6], e[7] = from+4, from+5, from+6, from+7
		s, from = s[8:], from+8
	}
	for i := range s {
		s[i] = from + int32(i)
	}
}

// settle sets the distances of the jumps in the blocks in front of stop.
func (p *patcher) settle(s *Survey, stop int) error {
	if len(p.leading) > p.settled {
		return p.settleLeading(s, stop)
	}
	if err := p.mendJumps(s, stop); err != nil {
		return err // as an error, which a nil *Error is, too
	}
	return nil
}

// settleLeading does it where some slots are leading.
func (p *patcher) settleLeading(s *Survey, stop int) error {
	list := p.leading[p.settled:]
	for k := range list {
		l := &list[k]
		if l.slot >= stop*blockSlots {
			list = list[:k]
			break
		}
		l.insn = p.moved[p.index[l.slot+1]-1]
	}
	err := p.mendJumps(s, stop)
	for k := range list {
		l := &list[k]
		p.moved[p.index[l.slot+1]-1] = l.insn
		if e := p.mendLeading(l); e != nil && (err == nil || e.Slot < err.Slot) {
			err = e
		}
	}
	p.settled += len(list)
	if err == nil {
		return nil
	}
	return err
}

// mendLeading sets the distance of a leading slot. If it leads too far for now,
// that is done at the end.
func (p *patcher) mendLeading(l *leading) (err *Error) {
	if old := p.old.Insns[l.slot]; reaches[old.Op] == reachOff && l.slot+1+int(old.Off) < p.known {
		p.moved[l.own], err = p.mend(l.slot, p.moved[l.own], l.own)
	}
	return err
}

// mendJumps sets the distances of the jumps in the blocks in front of stop, as if none
// were leading.
func (p *patcher) mendJumps(s *Survey, stop int) *Error {
	for p.block < stop {
		p.stop = min(p.block+chunk, stop)
		p.mendEasy(s, &s.blocks[0].jumps)
		if p.block < p.stop {
			if err := p.mendBlock(s); err != nil {
				return err
			}
			p.block++
		}
	}
	return nil
}

// mendBlock sets the distances of the jumps in one block.
func (p *patcher) mendBlock(s *Survey) *Error {
	for set := s.blocks[p.block].jumps; set != 0; set &= set - 1 {
		slot := p.block*blockSlots + bits.TrailingZeros64(set)
		to, at := slot+1+int(p.old.Insns[slot].Off), p.index[slot+1]-1
		if to >= p.known {
			p.late = append(p.late, int32(slot))
			continue
		}
		if to >= 0 {
			// What mend does, in the usual case.
			if d := p.index[to] - at - 1; d == int32(int16(d)) {
				p.moved[at].Off = int16(d)
				continue
			}
		}
		if _, leading := p.own(slot); leading {
			continue
		}
		mended, err := p.mend(slot, p.moved[at], int(at))
		if err != nil {
			return err
		}
		p.moved[at] = mended
	}
	return nil
}

// mendFar sets the distances of jumps that were late, and those of 32 bits, in
// whose way the whole program may be.
func (p *patcher) mendFar(others []Other) error {
	for _, slot := range p.late {
		if err := p.mendOwn(int(slot)); err != nil {
			return err
		}
	}
	for _, o := range others {
		if op := o.Insn.Op; leads[op] && reaches[op] != reachOff {
			if err := p.mendOwn(int(o.Slot)); err != nil {
				return err
			}
		}
	}
	return nil
}

// mendOwn sets the distance of the instruction of an old slot.
func (p *patcher) mendOwn(slot int) error {
	at, _ := p.own(slot)
	mended, err := p.mend(slot, p.moved[at], at)
	if err != nil {
		return err
	}
	p.moved[at] = mended
	return nil
}

// own returns where the instruction is of an old slot that may have a distance, and
// whether it is leading.
func (p *patcher) own(slot int) (at int, leading bool) {
	k := sort.Search(len(p.leading), func(k int) bool { return p.leading[k].slot >= slot })
	if k < len(p.leading) && p.leading[k].slot == slot {
		return p.leading[k].own, true
	}
	return int(p.index[slot+1]) - 1, false
}

// findOrigins fills in origin. What enters a slot has its origin.
func (p *patcher) findOrigins() {
	p.origin = resize(p.origin, p.at)
	enter, at := p.enter, 0
	for slot := range p.old.Insns {
		end := int(p.index[slot+1])
		if len(enter) > 0 && enter[0].slot <= slot {
			enter = enter[1:]
		}
		if len(enter) > 0 && enter[0].slot == slot+1 {
			end -= enter[0].size
		}
		for source := int32(p.old.Source(slot)); at < end; at++ {
			p.origin[at] = source
		}
	}
}
