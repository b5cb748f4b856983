// Package maps holds the maps of BPF programs. Their values live in the shared
// guest memory of a cage.Space, where programs read and write them through the
// pointers that a lookup gives; their keys and whatever else a kind of map
// needs are the host's.
//
// A [Set] makes the maps of a Space and gives each a handle: what a program
// passes to a helper to say which map it means. [New] knows the kinds of maps
// by a table; a kind that isn't in it is an [UnsupportedError].
//
// Where a program meets a map through a helper, results and error numbers are
// those that bpf(2) and bpf-helpers(7) describe. There is one processor: a
// per-cpu map has one value for each key.
package maps
