// Package describe reads the descriptions in gen: bpf.txt, the forms of eBPF
// instructions, and x86.txt, the machine code of each form. It checks every
// line and knows nothing of what is generated from them.
package describe
