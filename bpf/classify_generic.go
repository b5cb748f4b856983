//go:build !amd64 || purego

package bpf

func classify(insns []Insn, blocks []block, r *refusal) { classifyGeneric(insns, blocks, r) }
