/* SPDX-License-Identifier: MIT */
/* Programs that a kernel takes, and what becomes of their longest jump once
   net.core.bpf_jit_harden has blinded them: each constant below it is three
   instructions then. */
#include "../cmd/bpfjit/example/bpf.h"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* Jumps over so many instructions with a constant, and so many without. */
#define JUMP_OVER(x, constants, others)                                      \
	asm volatile("if %0 == 0x11 goto over_%=\n"                          \
		     ".rept " STRING(constants) "\n%0 ^= 0x5eedc0de\n.endr\n" \
		     ".rept " STRING(others) "\n%0 += %0\n.endr\n"            \
		     "over_%=:"                                              \
		     : "+r"(x))

/* 10922 * 3 + 1 = 32767: the last one that fits. */
SEC("socket/edge")
int edge(u32 *skb)
{
	u64 x = *skb; /* the length of the packet */

	JUMP_OVER(x, 10922, 1);
	return x;
}

/* 32768 doesn't fit. */
SEC("socket/over")
int over(u32 *skb)
{
	u64 x = *skb;

	JUMP_OVER(x, 10922, 2);
	return x;
}

/* As far as a jump leads without blinding, 32767, and a few constants. */
SEC("socket/full")
int full(u32 *skb)
{
	u64 x = *skb;

	JUMP_OVER(x, 60, 32707);
	return x;
}

char _license[] SEC("license") = "Dual MIT/GPL";
