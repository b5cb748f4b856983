package abi

import (
	"testing"
	"unsafe"
)

// TestContextOffsets pins the constants that assembly uses to the struct.
func TestContextOffsets(t *testing.T) {
	var c Context
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"Exit", OffExit, unsafe.Offsetof(c.Exit)},
		{"GoSP", OffGoSP, unsafe.Offsetof(c.GoSP)},
		{"GoBP", OffGoBP, unsafe.Offsetof(c.GoBP)},
		{"Regs", OffRegs, unsafe.Offsetof(c.Regs)},
		{"RIP", OffRIP, unsafe.Offsetof(c.RIP)},
		{"RFlags", OffRFlags, unsafe.Offsetof(c.RFlags)},
		{"Helper", OffHelper, unsafe.Offsetof(c.Helper)},
		{"Signal", OffSignal, unsafe.Offsetof(c.Signal)},
		{"Code", OffCode, unsafe.Offsetof(c.Code)},
		{"FaultAddr", OffFaultAddr, unsafe.Offsetof(c.FaultAddr)},
		{"HelperStub", OffHelperStub, unsafe.Offsetof(c.HelperStub)},
		{"SliceStub", OffSliceStub, unsafe.Offsetof(c.SliceStub)},
	} {
		if f.got != f.want {
			t.Errorf("Context.%s is at %d, the constant says %d", f.name, f.want, f.got)
		}
	}
	if s := unsafe.Sizeof(Insn{}); s != InsnSize {
		t.Errorf("Insn is %d bytes, want %d", s, InsnSize)
	}
	if unsafe.Sizeof(c) > PageSize {
		t.Error("Context must fit a page")
	}
}

func TestPlan(t *testing.T) {
	if MaxFrames*FrameSize > StackSize {
		t.Error("the frames don't fit the stack")
	}
	for i, r := range [][2]uint64{{GuardSize, StackBase}, {StackTop, CtxBase}, {CtxBase + CtxSize, MemBase},
		{MemBase + MemMax, HandleBase}, {HandleLimit, SharedBase}, {SharedBase + SharedMax, WindowSize}} {
		if r[0] > r[1] {
			t.Errorf("region %d overlaps the next one: %#x > %#x", i, r[0], r[1])
		}
		if r[1]%PageSize != 0 {
			t.Errorf("region %d does not begin at a page: %#x", i+1, r[1])
		}
	}
}
