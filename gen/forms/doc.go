// Command forms generates tables/zforms.go, the forms of eBPF
// instructions, from bpf.txt.
package main
