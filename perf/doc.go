// Package perf tells Linux's perf(1) what machine code a process has made, so
// that samples in it have names. It writes two kinds of files:
//
//   - /tmp/perf-PID.map, a text file. perf report and perf top read it by
//     themselves, when they show samples. It has names and nothing else, and
//     knows no time: where code was freed and its place used again, both names
//     stand for that place.
//
//   - /tmp/jit-PID.dump, the jitdump format, version 1. It has the code itself,
//     the lines of the source, and times, so that code that came and went is
//     told apart.
//
// perf inject merges a dump into a recording:
//
//	perf record -k mono -o perf.data COMMAND
//	perf inject --jit -i perf.data -o perf.jit.data
//	perf report -i perf.jit.data
//	perf annotate -i perf.jit.data
//
// A process has one file of each kind, however many users there are. It is made
// when the first of them comes; what an earlier process of the same number has
// left is removed. Without users the file is closed, and when there is one again,
// it goes on.
//
// The files stay when the process ends, for they are read later. They are
// readable for their owner only: they contain machine code, and in a dump the
// names of source files.
package perf
