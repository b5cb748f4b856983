package main

import (
	"fmt"

	"github.com/bpfjit/bpfjit"
)

// Names of what programs return, from the kernel's ABI.
var (
	xdpActions = map[int32]string{0: "XDP_ABORTED", 1: "XDP_DROP", 2: "XDP_PASS", 3: "XDP_TX", 4: "XDP_REDIRECT"}
	tcActions  = map[int32]string{-1: "TC_ACT_UNSPEC", 0: "TC_ACT_OK", 1: "TC_ACT_RECLASSIFY", 2: "TC_ACT_SHOT",
		3: "TC_ACT_PIPE", 4: "TC_ACT_STOLEN", 5: "TC_ACT_QUEUED", 6: "TC_ACT_REPEAT", 7: "TC_ACT_REDIRECT", 8: "TC_ACT_TRAP"}
)

// typeName returns the name of a program's type, as cilium/ebpf has it, or ""
// for a program without one.
func typeName(prog *bpfjit.Program) string {
	if prog.Type() == 0 {
		return ""
	}
	return prog.Type().String()
}

// takesPackets reports whether a program can only be run on packets.
func takesPackets(prog *bpfjit.Program) bool {
	switch typeName(prog) {
	case "XDP", "SchedCLS", "SchedACT", "SocketFilter", "CGroupSKB", "LWTIn", "LWTOut", "LWTXmit", "LWTSeg6Local", "SkSKB":
		return true
	}
	return false
}

// verdict says what r0 means.
func verdict(prog *bpfjit.Program, r0 uint64) string {
	var names map[int32]string
	switch typeName(prog) {
	case "XDP":
		names = xdpActions
	case "SchedCLS", "SchedACT":
		names = tcActions
	}
	if names == nil {
		return fmt.Sprintf("%#x", r0)
	}
	if name, ok := names[int32(r0)]; ok {
		return name
	}
	return fmt.Sprintf("%d", int32(r0))
}
