package abi

import (
	"errors"
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
		{"Native", OffNative, unsafe.Offsetof(c.Native)},
		{"CPU", OffCPU, unsafe.Offsetof(c.CPU)},
		{"Maps", OffMaps, unsafe.Offsetof(c.Maps)},
		{"Arrays", OffArrays, unsafe.Offsetof(c.Arrays)},
		{"Arrays[].Limit", OffLimit, unsafe.Offsetof(c.Arrays[0].Limit)},
		{"Arrays[].Base", OffBase, unsafe.Offsetof(c.Arrays[0].Base)},
		{"Arrays[].Step", OffStep, unsafe.Offsetof(c.Arrays[0].Step)},
		{"Arrays[1]", ArraySize, unsafe.Sizeof(c.Arrays[0])},
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
	// Indices are masked, sizes shifted.
	for _, n := range []int{NativeMaps, ArraySize, HandleStep} {
		if n&(n-1) != 0 {
			t.Errorf("%d must be a power of two", n)
		}
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

func TestHandles(t *testing.T) {
	for _, i := range []int{0, 1, 77, MaxHandles - 1} {
		h := MapHandle(i)
		if got, ok := MapIndex(h); !ok || got != i {
			t.Errorf("MapIndex(MapHandle(%d)) = %d, %v", i, got, ok)
		}
		for _, not := range []uint64{h + 1, h - 1, h + 1<<32, FuncHandle(i)} {
			if got, ok := MapIndex(not); ok {
				t.Errorf("MapIndex(%#x) = %d, but that is no handle of a map", not, got)
			}
		}
		if f := FuncHandle(i); f < FuncHandleBase || f >= HandleLimit {
			t.Errorf("FuncHandle(%d) = %#x is outside of the handles", i, f)
		}
	}
}

func TestResultCause(t *testing.T) {
	own := errors.New("own")
	for _, c := range []struct {
		r    Result
		want error
	}{
		{Result{Stop: StopExit}, nil},
		{Result{Stop: StopFault}, ErrFault},
		{Result{Stop: StopBudget}, ErrBudget},
		{Result{Stop: StopHelper, Err: own}, own},
		{Result{Stop: StopHelper, Err: UnknownHelper(77)}, ErrHelper},
		{Result{Stop: StopCancel, Err: own}, own},
	} {
		if got := c.r.Cause(); !errors.Is(got, c.want) {
			t.Errorf("%v: cause %v, want %v", c.r.Stop, got, c.want)
		}
	}
}
