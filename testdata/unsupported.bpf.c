/* SPDX-License-Identifier: MIT */
/* What a kernel offers and bpfjit does not (yet): each program must be refused
   with an error that names the instruction. */
#include "../cmd/bpfjit/example/bpf.h"

extern int LINUX_KERNEL_VERSION __attribute__((section(".kconfig")));
extern int bpf_some_kfunc(int x) __attribute__((section(".ksyms")));

static long (*bpf_tail_call)(void *ctx, void *map, u32 index) = (void *)12;
static long (*bpf_loop)(u32 n, void *fn, void *arg, u64 flags) = (void *)181;
static u32 (*bpf_get_hash_recalc)(void *ctx) = (void *)34;

struct {
	UINT(type, BPF_MAP_TYPE_PROG_ARRAY);
	UINT(max_entries, 2);
	TYPE(key, u32);
	TYPE(value, u32);
} jumps SEC(".maps");

struct {
	UINT(type, 9999);
	UINT(max_entries, 2);
	TYPE(key, u32);
	TYPE(value, u32);
} strange SEC(".maps");

SEC("xdp")
int kfunc(void *ctx)
{
	return bpf_some_kfunc(1);
}

SEC("xdp")
int kconfig(void *ctx)
{
	return LINUX_KERNEL_VERSION;
}

SEC("xdp")
int tail(void *ctx)
{
	bpf_tail_call(ctx, &jumps, 0);
	return 2;
}

SEC("xdp")
int map_type(void *ctx)
{
	u32 key = 0;

	return bpf_map_lookup_elem(&strange, &key) != 0;
}

SEC("xdp")
int helper(void *ctx)
{
	return bpf_get_hash_recalc(ctx);
}

NOINLINE long callback(u32 i, void *arg)
{
	*(u32 *)arg += i;
	return 0;
}

SEC("xdp")
int loop(void *ctx)
{
	u32 sum = 0;

	bpf_loop(10, callback, &sum, 0);
	return sum;
}

NOINLINE u64 down(u64 n);
NOINLINE u64 up(u64 n) { return n ? down(n - 1) + 1 : 0; }
NOINLINE u64 down(u64 n) { return n ? up(n - 1) + 2 : 0; }

SEC("xdp")
int recursion(void *ctx)
{
	return up(5);
}

char _license[] SEC("license") = "Dual MIT/GPL";
