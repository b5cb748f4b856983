package jit

import (
	"encoding/binary"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
)

// The frame of a function in the kernel's profile:
//
//	          +------------------------------+
//	          | return address               |
//	rbp ->    | caller's rbp                 |
//	          +------------------------------+
//	          | stack of the function        |  StackDepth, rounded up to 8
//	          +------------------------------+
//	          | tail-call counter, or rax    |  where tail calls can happen
//	          | pointer to the counter       |  slot()
//	          +------------------------------+
//	          | r12; rbx r13 r14 r15         |  what the function uses
//	          +------------------------------+
//
// In the cage the stack is in guest memory, rbp is a guest offset, and only a
// subprogram has anything to save:
//
//	          +------------------------------+
//	          | return address               |
//	          | caller's rbp                 |
//	          | rbx r13 r14 r15              |  what the function uses
//	          +------------------------------+

// A frame is how a function begins and ends. How long that is can't be foreseen, and
// copying goes another way for each length, so the first bytes are copied in any case.
type frame struct {
	prologue, epilogue []byte
	head               [usualPrologue]byte // the first bytes of the prologue
}

// usualPrologue is how many bytes of a prologue all but few have at most.
const usualPrologue = 32

// The frames of the cage depend on nothing but the registers that they save, by which
// they stand here. A main function saves none.
var cageFrames, subprogramFrames = func() (main, sub [16]frame) {
	for saved := range uint8(16) {
		main[saved].epilogue = []byte{0xc3}
		b := []byte{0x55, // push rbp
			0x8d, 0xad} // lea ebp, [rbp-FrameSize]
		sub[saved].prologue = appendPushes(le32(b, -abi.FrameSize), saved)
		copy(sub[saved].head[:], sub[saved].prologue)
		sub[saved].epilogue = append(appendPops(nil, saved), 0x5d, 0xc3) // pop rbp; ret
	}
	return main, sub
}()

// A kernelFrame is a frame of the kernel's profile, with what it depends on besides
// the registers that it saves. Most functions have one that was made for a function
// before.
type kernelFrame struct {
	frame
	fn                                          Function
	ibt, oldPrologue, returnThunk, straightLine bool // of the profile
	percpu                                      int32
}

// kernelFrame returns the frame of the function in the kernel's profile.
func (c *compiler) kernelFrame() *frame {
	f, p := &c.frames[c.saved&15], c.profile
	if len(f.epilogue) > 0 && f.ibt == p.IBT && f.oldPrologue == p.OldPrologue && f.returnThunk == p.ReturnThunk &&
		f.straightLine == p.StraightLine && f.percpu == p.Percpu && f.fn == *c.fn {
		return &f.frame
	}
	f.ibt, f.oldPrologue, f.returnThunk, f.straightLine = p.IBT, p.OldPrologue, p.ReturnThunk, p.StraightLine
	f.percpu, f.fn = p.Percpu, *c.fn
	f.prologue, f.epilogue = c.kernelPrologue(f.prologue[:0]), c.kernelEpilogue(slices.Grow(f.epilogue[:0], usualEpilogue))
	copy(f.head[:], f.prologue)
	return &f.frame
}

// pushes and pops of R6 to R9: rbx, r13, r14, r15.
var (
	pushes = [4][]byte{{0x53}, {0x41, 0x55}, {0x41, 0x56}, {0x41, 0x57}}
	pops   = [4][]byte{{0x5b}, {0x41, 0x5d}, {0x41, 0x5e}, {0x41, 0x5f}}
)

var (
	pushR12 = []byte{0x41, 0x54}
	popR12  = []byte{0x41, 0x5c}
	endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}
)

func appendPushes(b []byte, used uint8) []byte {
	for i := range 4 {
		if used>>i&1 != 0 {
			b = append(b, pushes[i]...)
		}
	}
	return b
}

func appendPops(b []byte, used uint8) []byte {
	for i := 3; i >= 0; i-- {
		if used>>i&1 != 0 {
			b = append(b, pops[i]...)
		}
	}
	return b
}

// stack returns the bytes of the frame that rsp makes room for.
func (f *Function) stack() int32 {
	if f.PrivateStack != 0 {
		return 0
	}
	return int32(f.StackDepth+7) &^ 7
}

// slot returns where the pointer to the tail-call counter is, from rbp.
func (f *Function) slot() int32 { return -16 - f.stack() }

// kernelPrologue appends what stands before the first instruction.
func (c *compiler) kernelPrologue(b []byte) []byte {
	fn, p := c.fn, c.profile
	if p.IBT {
		b = append(b, endbr64...)
	}
	b = append(b, 0x0f, 0x1f, 0x44, 0x00, 0x00) // nop, for trampolines
	zeroCounter := fn.TailCallReachable && !fn.Subprogram
	switch {
	case fn.Classic:
	case p.OldPrologue && zeroCounter:
		b = append(b, 0x31, 0xc0) // xor eax, eax
	case p.OldPrologue:
		b = append(b, 0x66, 0x90) // nop
	case zeroCounter:
		b = append(b, 0x48, 0x31, 0xc0) // xor rax, rax
	default:
		b = append(b, 0x0f, 0x1f, 0x00) // nop
	}
	if fn.ExceptionCallback {
		b = append(b, 0x48, 0x89, 0xf4, // mov rsp, rsi
			0x48, 0x89, 0xd5) // mov rbp, rdx
		b = appendPops(b, 15)
		b = append(b, popR12...)
		b = append(b, 0x48, 0x89, 0xec) // mov rsp, rbp
	} else {
		b = append(b, 0x55, // push rbp
			0x48, 0x89, 0xe5) // mov rbp, rsp
	}
	if p.IBT { // tail calls enter here
		b = append(b, endbr64...)
	}
	if fn.stack() != 0 {
		b = append(b, 0x48, 0x81, 0xec) // sub rsp, stack
		b = le32(b, fn.stack())
	}
	if fn.TailCallReachable {
		if !fn.Subprogram && !p.OldPrologue {
			b = append(b, 0x48, 0x83, 0xf8, abi.MaxTailCalls, // cmp rax, 33
				0x77, 0x06, // ja pointer: rax is one already
				0x50,             // push rax
				0x48, 0x89, 0xe0, // mov rax, rsp
				0xeb, 0x01) // jmp over the next push
		}
		b = append(b, 0x50) // pointer: push rax, which in 5.13 is the counter itself
		if !p.OldPrologue {
			b = append(b, 0x50) // push rax
		}
	}
	if fn.ExceptionBoundary {
		b = append(b, pushR12...)
		b = appendPushes(b, 15)
	} else {
		if fn.ArenaKernel != 0 {
			b = append(b, pushR12...)
		}
		b = appendPushes(b, c.saved)
	}
	if fn.ArenaKernel != 0 {
		b = appendMove(b, abi.X86R12, fn.ArenaKernel)
	}
	if fn.PrivateStack != 0 {
		b = appendMove(b, abi.X86R9, fn.PrivateStack)
		b = append(b, 0x65, 0x4c, 0x03, 0x0c, 0x25) // add r9, gs:[percpu]
		b = le32(b, p.Percpu)
	}
	return b
}

// kernelPops appends what undoes the pushes of the prologue.
func (c *compiler) kernelPops(b []byte) []byte {
	if c.fn.ExceptionBoundary {
		b = appendPops(b, 15)
		return append(b, popR12...)
	}
	b = appendPops(b, c.saved)
	if c.fn.ArenaKernel != 0 {
		b = append(b, popR12...)
	}
	return b
}

// kernelEpilogue appends what the first EXIT becomes. The return thunk's
// distance is the last field.
func (c *compiler) kernelEpilogue(b []byte) []byte {
	b = c.kernelPops(b)
	b = append(b, 0xc9) // leave
	switch {
	case c.profile.ReturnThunk:
		return append(b, 0xe9, 0, 0, 0, 0)
	case c.profile.StraightLine:
		return append(b, 0xc3, 0xcc)
	}
	return append(b, 0xc3)
}

// appendMove loads a register above rdi with a constant, in the shortest form
// of three.
func appendMove(b []byte, reg uint8, v uint64) []byte {
	lo := reg & 7
	switch {
	case v == uint64(uint32(v)):
		if v == 0 {
			return append(b, 0x45, 0x31, 0xc0|lo<<3|lo)
		}
		return le32(append(b, 0x41, 0xb8|lo), int32(v))
	case int64(v) == int64(int32(v)):
		return le32(append(b, 0x49, 0xc7, 0xc0|lo), int32(v))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0x49, 0xb8|lo), v)
}

func le32(b []byte, v int32) []byte { return binary.LittleEndian.AppendUint32(b, uint32(v)) }
