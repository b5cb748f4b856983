// Command rows turns x86.txt into the encoder's tables, its test vectors and
// docs/opcodes.md. It proves every row against a disassembler first.
package main
