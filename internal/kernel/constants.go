package kernel

// Constants are what the kernel's JIT takes from the kernel's build, its boot
// options and the processor, and not from a program.
type Constants struct {
	// CallBase is __bpf_call_base: the target of a call is CallBase + Imm.
	CallBase uint64
	// ReturnThunk is where functions jump to return; 0: they end in a ret.
	ReturnThunk     uint64
	ReturnThunkName string
	// StraightLine says that an int3 follows a ret.
	StraightLine bool
	// IndirectThunk is where tail calls jump, with the target in rcx; 0: they
	// use another form.
	IndirectThunk     uint64
	IndirectThunkName string
	// PercpuOff is the displacement of this_cpu_off from gs; 0: not found.
	PercpuOff int32
	// Offsets of fields of a prog array and of a program, in bytes, and how
	// far behind a program's start a tail call enters it.
	MaxEntriesOff, ProgramsOff, FunctionOff, TailCallEntry int32
	// BMI2 says that shifts have three operands.
	BMI2 bool
	// Endbr says that functions begin with endbr64.
	Endbr bool
}
