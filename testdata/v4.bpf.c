/* SPDX-License-Identifier: MIT */
/* clang: -mcpu=v4 */
/* Instructions that came with -mcpu=v4. The context is 64 bytes of memory. */
#include "../cmd/bpfjit/example/bpf.h"

SEC("prog")
u64 signs(long long *p)
{
	signed char b = *(volatile signed char *)&p[0];  /* ldsx b */
	short h = *(volatile short *)&p[1];              /* ldsx h */
	int w = *(volatile int *)&p[2];                  /* ldsx w */
	long long q = p[3];

	p[4] = q / w;                                    /* sdiv */
	p[5] = q % h;                                    /* smod */
	p[6] = (signed char)q + (short)q + (int)q;       /* movsx */
	p[7] = __builtin_bswap64(q) ^ __builtin_bswap32((u32)q); /* bswap */
	return b + h + w;
}

SEC("prog")
u64 far(u64 *p)
{
	__asm__ volatile("gotol 1f\n\t%[p] = 0\n1:" : [p] "+r"(p)); /* gotol */
	return p[0];
}
