/* SPDX-License-Identifier: MIT */
/* Programs whose context is a __sk_buff. */
#include "../cmd/bpfjit/example/bpf.h"

struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
	u32 vlan_present;
	u32 vlan_tci;
	u32 vlan_proto;
	u32 priority;
	u32 ingress_ifindex;
	u32 ifindex;
	u32 tc_index;
	u32 cb[5];
	u32 hash;
	u32 tc_classid;
	u32 data;
	u32 data_end;
};

/* classify: the packet's bytes must agree with len and protocol; the last
   byte is set to the first. */
SEC("tc")
int classify(struct __sk_buff *skb)
{
	u8 *p = (u8 *)(u64)skb->data;
	u8 *end = (u8 *)(u64)skb->data_end;

	if (p + 60 > end)
		return 2;
	if (skb->len < 60 || skb->protocol != *(u16 *)(p + 12))
		return -1;
	skb->mark = 42;
	skb->cb[0] = p[0];
	p[59] = skb->cb[0];
	return skb->mark;
}

/* length: a socket filter that keeps the whole packet. */
SEC("socket")
int length(struct __sk_buff *skb)
{
	return skb->len;
}

char _license[] SEC("license") = "Dual MIT/GPL";
