/* SPDX-License-Identifier: MIT */
/* CO-RE: accesses that a loader may move to where the running kernel has the
   field. */
#include "../cmd/bpfjit/example/bpf.h"

#define CORE __attribute__((preserve_access_index))

struct xdp_md___core {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
} CORE;

SEC("xdp")
int ifindex(struct xdp_md___core *ctx)
{
	return ctx->ingress_ifindex;
}
