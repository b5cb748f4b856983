// Package bpf holds BPF programs as the compiler sees them: raw 8-byte slots
// with one flag byte each. It decodes and checks them, lists them, finds their
// functions and charge points, and inserts instructions.
package bpf
