/* SPDX-License-Identifier: MIT */
/* Several programs in one object, sharing globals and maps. */
#include "../cmd/bpfjit/example/bpf.h"

#define SLOTS 4

const volatile u32 factor = 3;          /* .rodata */
static const u16 table[8] = {2, 3, 5, 7, 11, 13, 17, 19}; /* .rodata, static */
u64 total = 1000;                       /* .data */
static volatile u32 seed = 7;           /* .data, static */
u64 runs;                               /* .bss */
struct { u32 a; u8 b[3]; } record;      /* .bss */

struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(max_entries, SLOTS);
	TYPE(key, u32);
	TYPE(value, u64);
} sums SEC(".maps");

NOINLINE u32 scale(u32 v)
{
	runs++;
	return v * factor + seed;
}

/* A function that other objects could link to. */
__attribute__((noinline)) u32 lookup(u32 i)
{
	return scale(table[i & 7]);
}

/* add: sums[len % SLOTS] += scale(first byte). */
SEC("xdp")
int add(struct xdp_md *ctx)
{
	u8 *p = (u8 *)(u64)ctx->data;
	u8 *end = (u8 *)(u64)ctx->data_end;
	u32 key = (u32)(end - p) % SLOTS;
	u64 *sum;
	u32 v;

	if (p + 1 > end)
		return XDP_ABORTED;
	v = scale(*p);
	sum = bpf_map_lookup_elem(&sums, &key);
	if (!sum)
		return XDP_ABORTED;
	*sum += v;
	total += v;
	record.a = v;
	record.b[key & 1] = *p;
	return XDP_PASS;
}

/* primes: the sum of four values of table, by two bpf2bpf calls each. */
SEC("xdp")
int primes(struct xdp_md *ctx)
{
	return lookup(0) + lookup(3) + lookup(5) + lookup(7);
}

/* store: sums[1] = ifindex by map_update_elem, then reads it back; a key
   beyond the map must be refused. */
SEC("xdp")
int store(struct xdp_md *ctx)
{
	u32 key = 1, beyond = SLOTS;
	u64 value = ctx->ingress_ifindex;
	u64 *v;

	if (bpf_map_update_elem(&sums, &key, &value, 0))
		return 100;
	if (!bpf_map_update_elem(&sums, &beyond, &value, 0))
		return 101;
	if (!bpf_map_delete_elem(&sums, &key))
		return 102;
	v = bpf_map_lookup_elem(&sums, &key);
	return v ? (int)*v : 103;
}

/* environment: what the simple helpers return. */
SEC("xdp")
int environment(struct xdp_md *ctx)
{
	u64 before = bpf_ktime_get_ns();

	bpf_trace_printk("cpu %d", sizeof("cpu %d"), bpf_get_smp_processor_id());
	return bpf_ktime_get_ns() < before || bpf_get_prandom_u32() == bpf_get_prandom_u32();
}

char _license[] SEC("license") = "Dual MIT/GPL";
