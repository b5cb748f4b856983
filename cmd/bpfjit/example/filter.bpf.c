/* SPDX-License-Identifier: MIT */
/* An XDP packet filter: what "bpfjit run" shows when no object is named.

   It counts packets by kind, drops what is addressed to a blocked port,
   drops what is cut short, answers pings, and lets everything else pass.
   Its state is spread over all that clang makes of C: two array maps,
   constants (.rodata), initialised (.data) and zero (.bss) globals. */
#include "bpf.h"

#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_8021Q 0x8100
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021AD 0x88a8

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO 8

#define htons(x) __builtin_bswap16(x)
#define ntohs(x) __builtin_bswap16(x)

struct ethhdr {
	u8 dst[6];
	u8 src[6];
	u16 proto;
};

struct vlanhdr {
	u16 tci;
	u16 proto;
};

struct iphdr {
	u8 vihl;
	u8 tos;
	u16 len;
	u16 id;
	u16 frag;
	u8 ttl;
	u8 proto;
	u16 check;
	u32 src;
	u32 dst;
};

struct ip6hdr {
	u32 flow;
	u16 len;
	u8 next;
	u8 hops;
	u8 src[16];
	u8 dst[16];
};

struct icmphdr {
	u8 type;
	u8 code;
	u16 check;
	u16 id;
	u16 seq;
};

struct ports {
	u16 src;
	u16 dst;
};

/* Kinds of packet, the keys of counters. A kind may be told by its name, for
   the object keeps the enum in its type information (BTF). */
enum kind {
	KIND_OTHER,
	KIND_ARP,
	KIND_ICMP,
	KIND_TCP,
	KIND_UDP,
	KIND_SHORT,
	KIND_BLOCKED,
	KIND_ANSWERED,
	KINDS,
};

struct counter {
	u64 packets;
	u64 bytes;
};

struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(max_entries, KINDS);
	TYPE(key, enum kind);
	TYPE(value, struct counter);
} counters SEC(".maps");

/* A rule blocks one port of one protocol. */
struct rule {
	u8 proto;
	u8 pad;
	u16 port;
};

#define RULES 4

/* Configuration: a loader may set it before the program is compiled. */
const volatile struct rule blocklist[RULES] = {
	{IPPROTO_TCP, 0, 23},   /* telnet */
	{IPPROTO_TCP, 0, 445},  /* smb */
	{IPPROTO_UDP, 0, 1900}, /* ssdp */
};
const volatile u8 answer_pings = 1;

/* How often each rule applied, by its index in blocklist. */
struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(max_entries, RULES);
	TYPE(key, u32);
	TYPE(value, u64);
} hits SEC(".maps");

u32 shortest = 0xffff; /* .data: the shortest packet so far */
u32 vlan_tags;         /* .bss: VLAN tags stripped so far */

NOINLINE u32 count(u32 kind, u32 bytes)
{
	struct counter *c = bpf_map_lookup_elem(&counters, &kind);

	if (!c)
		return 0;
	__sync_fetch_and_add(&c->packets, 1);
	__sync_fetch_and_add(&c->bytes, bytes);
	return kind;
}

/* blocked says whether a rule forbids the port, given in host byte order. */
NOINLINE u32 blocked(u32 proto, u32 port)
{
	for (u32 i = 0; i < RULES; i++) {
		if (blocklist[i].proto != proto || blocklist[i].port != port)
			continue;

		u64 *n = bpf_map_lookup_elem(&hits, &i);

		if (n)
			__sync_fetch_and_add(n, 1);
		bpf_trace_printk("blocked port %d", sizeof("blocked port %d"), port);
		return 1;
	}
	return 0;
}

INLINE void swap_macs(struct ethhdr *eth)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < 6; i++) {
		u8 b = eth->dst[i];

		eth->dst[i] = eth->src[i];
		eth->src[i] = b;
	}
}

/* answer turns an echo request into its reply. The addresses only change
   places, so of all checksums only ICMP's changes, by the type (RFC 1624). */
INLINE void answer(struct ethhdr *eth, struct iphdr *ip, struct icmphdr *icmp)
{
	u32 ip_src = ip->src;
	u32 sum;

	swap_macs(eth);
	ip->src = ip->dst;
	ip->dst = ip_src;

	sum = (u16)~icmp->check;
	sum += (u16)~htons(ICMP_ECHO << 8);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	icmp->type = ICMP_ECHO_REPLY;
	icmp->check = ~sum;
}

SEC("xdp")
int filter(struct xdp_md *ctx)
{
	void *data = (void *)(u64)ctx->data;
	void *end = (void *)(u64)ctx->data_end;
	u32 size = end - data;
	struct ethhdr *eth = data;
	void *next = eth + 1;
	u8 l4;

	if (size < shortest)
		shortest = size;
	if (next > end)
		goto cut;

	u16 proto = eth->proto;

#pragma clang loop unroll(full)
	for (int i = 0; i < 2; i++) {
		struct vlanhdr *tag = next;

		if (proto != htons(ETH_P_8021Q) && proto != htons(ETH_P_8021AD))
			break;
		next = tag + 1;
		if (next > end)
			goto cut;
		proto = tag->proto;
		vlan_tags++;
	}

	if (proto == htons(ETH_P_IP)) {
		struct iphdr *ip = next;

		next = ip + 1;
		if (next > end || (ip->vihl & 15) < 5)
			goto cut;
		next = (void *)ip + (ip->vihl & 15) * 4;
		l4 = ip->proto;
		if (ip->frag & htons(0x1fff)) {
			count(KIND_OTHER, size); /* a later fragment: no ports to look at */
			return XDP_PASS;
		}
		if (l4 == IPPROTO_ICMP) {
			struct icmphdr *icmp = next;

			if ((void *)(icmp + 1) > end)
				goto cut;
			if (answer_pings && icmp->type == ICMP_ECHO) {
				answer(eth, ip, icmp);
				count(KIND_ANSWERED, size);
				return XDP_TX;
			}
		}
	} else if (proto == htons(ETH_P_IPV6)) {
		struct ip6hdr *ip6 = next;

		next = ip6 + 1;
		if (next > end)
			goto cut;
		l4 = ip6->next;
	} else {
		count(proto == htons(ETH_P_ARP) ? KIND_ARP : KIND_OTHER, size);
		return XDP_PASS;
	}

	switch (l4) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		count(KIND_ICMP, size);
		return XDP_PASS;
	case IPPROTO_TCP:
	case IPPROTO_UDP: {
		struct ports *p = next;

		if ((void *)(p + 1) > end)
			goto cut;
		if (blocked(l4, ntohs(p->dst))) {
			count(KIND_BLOCKED, size);
			return XDP_DROP;
		}
		count(l4 == IPPROTO_TCP ? KIND_TCP : KIND_UDP, size);
		return XDP_PASS;
	}
	}
	count(KIND_OTHER, size);
	return XDP_PASS;

cut:
	count(KIND_SHORT, size);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
