// Package tables holds what is known of instructions as data: the forms of
// eBPF instructions and the machine code of each form. The rows are generated
// from the descriptions in gen; the types are written by hand.
package tables
