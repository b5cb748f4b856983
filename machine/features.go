package machine

import "golang.org/x/sys/cpu"

// HasBMI2 reports whether the processor has shifts of three operands.
func HasBMI2() bool { return cpu.X86.HasBMI2 }
