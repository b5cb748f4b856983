// Package lower turns a checked source program into one that machine code can
// be made of: it inserts what the author did not write. These are the guards
// of divisions, the counters of may_goto, and CHARGE, which takes from the
// budget. What it inserts is marked bpf.Inserted and may use AX.
package lower
