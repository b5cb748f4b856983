// Package bpftest tests BPF programs with go test: without root, without a
// kernel, and the same way every time.
//
//	func TestFilter(t *testing.T) {
//		o := bpftest.Load(t, "filter.bpf.o", nil)
//		verdict, reply := o.Packet("filter", ping)
//		...
//		var c struct{ Packets, Bytes uint64 }
//		o.Value("counters", uint32(2), &c)
//	}
//
// An [Object] holds all programs and maps of a clang object. Time stands still
// until the test moves [Object.Clock], random numbers come from a fixed seed,
// and what programs print is kept in [Object.Trace].
//
// Where machine code can be had, every run takes place in both engines, each
// with maps of its own; the test fails if they disagree.
package bpftest
