package tables

//go:generate go run -C=../gen ./forms -in bpf.txt -out ../tables/zforms.go

// Form is a meaning of an opcode: what the opcode does under one setting of
// the fields that select among its meanings. Forms are numbered from 1 in the
// order of gen/bpf.txt.
type Form uint16

// String returns the name, such as "alu64.add.k".
func (f Form) String() string {
	if f == FormNone || f >= NumForms {
		return "no form"
	}
	return Forms[f].Name
}

// FormInfo is a line of gen/bpf.txt; the legend there explains it.
type FormInfo struct {
	Name string // such as "alu64.add.k"
	Op   uint8

	// What the fields of the instruction hold.
	Dst, Src, Off, Imm Operand

	Flow Flow
	// Group is the conformance group of RFC 9669, section 2.4; empty for
	// instructions that the RFC doesn't have.
	Group string
	// Source and Translated say whether it may stand in a program of that
	// dialect.
	Source, Translated Support
	Blind              Blind
	// Text is the template of the listing.
	Text string
}

// Operand is what a field of an instruction holds.
type Operand struct {
	Use   Use
	Value int32 // where Use is UseNumber
}

// Fixed reports whether the field can hold Value only.
func (o Operand) Fixed() bool { return o.Use == UseReserved || o.Use == UseNumber }

// Reads reports whether the operand is a register that is read.
func (o Operand) Reads() bool {
	return o.Use == UseRead || o.Use == UseReadWrite || o.Use == UseAddress
}

// Writes reports whether the operand is a register that is written.
func (o Operand) Writes() bool { return o.Use == UseWrite || o.Use == UseReadWrite }

// Use is the role of a field.
type Use uint8

const (
	UseReserved     Use = iota // must be 0
	UseNumber                  // must be a number, which selects the form
	UseRead                    // a register that is read
	UseWrite                   // a register that is written
	UseReadWrite               // a register that is read and written
	UseAddress                 // a register that is an address once off is added
	UseDisplacement            // what is added to that address, in bytes
	UseDistance                // slots from the next instruction to another one
	UseConstant                // a constant, or a number with its own meaning
	UseTranslated              // must be 0 in source programs
)

// Flow says where execution goes on.
type Flow uint8

const (
	FlowNext   Flow = iota // at the next instruction
	FlowBranch             // at the next one, or at the distance
	FlowJump               // at the distance
	FlowCall               // elsewhere, and then at the next one
	FlowExit               // at the caller
)

// Support says whether a form may stand in a program of some dialect.
type Support uint8

const (
	Never   Support = iota // internal to the kernel or to this compiler
	Allowed                // it may
	Later                  // it may, but this compiler doesn't run it yet
	Loader                 // a loader must have replaced it by a constant
)

// Blind is a rule for hiding the constant of an instruction. R is a fresh
// random number, AX the internal register.
type Blind uint8

const (
	BlindNone   Blind = iota
	BlindAlu32        // mov32 AX, R^imm; xor32 AX, R; Op|8 with src AX
	BlindAlu64        // the same with mov64 and xor64
	BlindMov32        // as BlindAlu32, but an imm of 0 becomes xor64 dst, dst
	BlindMov64        // as BlindAlu64, likewise
	BlindJmp32        // as BlindAlu32, with off mended
	BlindJmp64        // as BlindAlu64, with off mended
	BlindImm64        // mov64 AX, R^imm; xor64 AX, R; lsh64 AX, 32; mov64 dst, AX
	BlindSecond       // mov32 AX, R^imm; xor32 AX, R; or64 dst, AX
	BlindStore        // mov64 AX, R^imm; xor64 AX, R; Op|1 with src AX
)

// Selector finds the form of an instruction without a branch. In its slot w,
// read as a little-endian word of 64 bits, find
//
//	key = w>>Shift&Mask | w>>LowShift&Low
//
// The form is FormIndex[Base+key] or one of its Next; 0 is none. The key only
// hashes: Matches verifies.
type Selector struct {
	Base                       uint16
	Shift, Mask, LowShift, Low uint8
	_                          uint16 // 8 bytes
}

// Match verifies a form: the slot w has it if w&Mask == Value. If it hasn't,
// Next may have it. Forms that share a key have the same machine code, as far
// as they have any.
type Match struct {
	Mask, Value uint64
	Next        Form
}

// FormOf returns the form of an instruction. It takes constant time.
func FormOf(op, regs uint8, off int16, imm int32) (Form, bool) {
	w := uint64(op) | uint64(regs)<<8 | uint64(uint16(off))<<16 | uint64(uint32(imm))<<32
	s := &Selectors[op]
	f := FormIndex[uint64(s.Base)+(w>>(s.Shift&63)&uint64(s.Mask)|w>>(s.LowShift&63)&uint64(s.Low))]
	for f != FormNone {
		m := &Matches[f]
		if w&m.Mask == m.Value {
			return f, true
		}
		f = m.Next
	}
	return FormNone, false
}
