// Package interp executes BPF programs by reading them. It is the reference
// that machine code is measured against, and what runs where there is no
// machine code. It runs what the author wrote: the checked source program,
// never the one that a compiler has lowered.
//
// A program is decoded once, by Prepare, into one operation a slot, and then
// run any number of times, from several goroutines at once, each on a
// cage.Instance of its own. A run neither allocates nor changes the Prog.
//
// What every instruction does is said in RFC 9669; where that leaves a choice,
// the choice is the same as in machine code:
//
//   - At entry R1 and R2 are as the caller says, R10 is abi.StackTop, all
//     others are 0. A helper leaves 0 in R1 to R5. A function of the program
//     begins with all of its caller's registers but R10, which is
//     abi.FrameSize lower; its caller gets R6 to R10 back as they were, and R0
//     to R5 as the function left them.
//   - An address is the low 32 bits of its register; offset and address are
//     added without wrapping. An access that isn't all mapped, and an atomic
//     one that isn't aligned, ends the run and changes nothing. A load that a
//     loader has marked as fault-tolerant gives 0 instead.
//   - A division by 0 gives 0, a remainder by 0 the dividend. The least
//     signed number divided by -1 is itself, remainder 0. Shift counts are
//     taken modulo the width. Operations of 32 bits clear the upper half of
//     what they write, also the register that an atomic operation fetches to,
//     R0 of a compare-and-exchange included, whether it exchanged or not.
//   - may_goto falls through abi.MayGotoCount times in each invocation of its
//     function and jumps from then on. What is left stands in the frame, at
//     R10 + abi.MayGotoOffset, where a program with a wild pointer can change
//     it.
//   - Budget is taken where bpf.Charges says. If less is left than is to be
//     taken the run ends before that instruction.
package interp
