/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Segments that this host drops, wherever it does: found by the packet's own headers, because the socket is
 * not always known there, and told to both ends.
 *
 * Only drops with a reason that may be one of a connection's are looked at (DROP_NONE).
 */
#ifndef LACUNA_DROPS_H
#define LACUNA_DROPS_H

struct dropped_segment {
	struct ends ends; /* local: the sender */
	u32 end;          /* of its stretch of numbers */
	struct net_drops here;
};

struct ip_start {
	u8 version_and_length;
	u8 between[8];
	u8 protocol;
	u8 checksum[2];
	u32 from;
	u32 to;
};

struct ipv6_start {
	u8 version[6];
	u8 next;
	u8 hops;
	u64 from[2];
	u64 to[2];
};

struct tcp_start {
	u16 from;
	u16 to;
	u32 seq;
	u32 ack;
	u8 length;
	u8 flags;
};

/* Reads the network header; how long it is, 0 where TCP does not follow. */
static __always_inline u32 read_network(struct ends *ends, u64 header, u32 protocol)
{
	struct ipv6_start six;
	struct ip_start four;

	if (protocol == ETH_P_IP) {
		if (bpf_probe_read_kernel(&four, sizeof(four), (void *)header) ||
		    four.protocol != IPPROTO_TCP)
			return 0;
		set_ipv4(&ends->local, four.from);
		set_ipv4(&ends->remote, four.to);
		return (four.version_and_length & 0xf) * 4;
	}
	if (protocol != ETH_P_IPV6 || bpf_probe_read_kernel(&six, sizeof(six), (void *)header) ||
	    six.next != IPPROTO_TCP)
		return 0;
	ends->local.high = six.from[0];
	ends->local.low = six.from[1];
	ends->remote.high = six.to[0];
	ends->remote.low = six.to[1];
	return sizeof(six);
}

/* Whether it carries any numbers. */
static __noinline int read_dropped(struct dropped_segment *found, struct sk_buff *skb)
{
	u64 header = (u64)skb->head + skb->network_header;
	struct net_device *device = skb->dev;
	struct tcp_start tcp;
	u32 length, before;

	__builtin_memset(found, 0, sizeof(*found));
	length = read_network(&found->ends, header, bpf_ntohs(skb->protocol));
	if (!length || bpf_probe_read_kernel(&tcp, sizeof(tcp), (void *)(header + length)))
		return 0;
	before = header - (u64)skb->data + length + (tcp.length >> 4) * 4;
	found->end = bpf_ntohl(tcp.seq) + skb->len - before;
	if (tcp.flags & TCP_FLAG_FIN_OR_SYN)
		found->end++;
	found->ends.local.port = tcp.from;
	found->ends.remote.port = tcp.to;
	if (device) {
		found->here.ifindex = BPF_CORE_READ(device, ifindex);
		found->here.netns = BPF_CORE_READ(device, nd_net.net, ns.inum);
		bpf_core_read(found->here.device, sizeof(found->here.device), &device->name);
	}
	if (is_loopback(&found->ends.local) && is_loopback(&found->ends.remote))
		found->ends.netns = found->here.netns;
	return found->end != bpf_ntohl(tcp.seq);
}

static __always_inline void note_drop(struct net_drops *drops, const struct net_drops *here)
{
	u32 count = drops->count + 1;

	*drops = *here;
	drops->count = count;
}

static __noinline int follow_drop(struct sk_buff *skb, u32 kind)
{
	struct dropped_segment found;
	struct connection *connection;
	struct tcp_sock *tp;
	u64 now, key;

	if (!read_dropped(&found, skb))
		return 0;
	now = bpf_ktime_get_ns();
	found.here.at = now;
	found.here.kind = kind;
	key = key_of(&found.ends);
	connection = bpf_map_lookup_elem(&connections, &key);
	if (connection && connection->sock && connection->watched) {
		tp = (struct tcp_sock *)connection->sock;
		set_trouble(&connection->dropped, read_word((u64)&tp->snd_una), found.end, now);
		note_drop(&connection->drops, &found.here);
	}
	key = other_key_of(&found.ends);
	connection = bpf_map_lookup_elem(&connections, &key);
	if (connection && connection->sock && connection->watched) {
		tp = (struct tcp_sock *)connection->sock;
		set_trouble(&connection->peer_dropped, read_word((u64)&tp->rcv_nxt), found.end, now);
		note_drop(&connection->peer_drops, &found.here);
	}
	return 0;
}

static __always_inline void dropping(struct sk_buff *skb, u32 reason)
{
	u32 kind;

	if (config.untraced_drops || reason >= DROP_REASONS_MAX)
		return;
	barrier_var(reason); /* or the verifier does not see the mask, which the compiler finds needless */
	kind = drop_class[reason % DROP_REASONS_MAX];
	if (kind != DROP_NONE)
		follow_drop(skb, kind);
}

#endif
