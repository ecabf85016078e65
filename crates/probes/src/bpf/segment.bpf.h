/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What happens to the segments of connections that are known: they arrive, are sent again, are dropped;
 * and a connection's beginning and end.
 *
 * The hooks run in softirqs and system calls on any CPU, most of them under the lock of their socket.
 * Whoever is not watched pays one lookup for each arriving segment.
 */
#ifndef LACUNA_SEGMENT_H
#define LACUNA_SEGMENT_H

/* The numbers of a segment, from its control block. */
struct segment {
	u32 seq;
	u32 end;
	u32 ack;
	u32 flags;
};

/* `skb` is an argument of the hook. */
static __always_inline void read_segment(struct segment *segment, const struct sk_buff *skb)
{
	const struct tcp_skb_cb *block = (const struct tcp_skb_cb *)skb->cb;

	segment->seq = block->seq;
	segment->end = block->end_seq;
	segment->ack = block->ack_seq;
	segment->flags = block->tcp_flags;
}

/*
 * What held before this hook and was not seen to begin. Bytes are written without a hook: then it began
 * with their flight. A drop began when it was noted. Anything else is LATE.
 */
static __noinline int catch_up(struct connection *connection, const struct tcp_view *view, u64 now)
{
	u32 state = state_of(connection, view), was = 0, came;
	u64 last = 0, began = 0, since = since_of(connection, view, state);
	struct net_phase *phase;

	if (connection->own_count) {
		phase = &connection->own[(connection->own_count - 1) % NET_OWN];
		was = phase->state;
		last = phase->at;
		if (!((was ^ state) & ~(NET_FLAPPING | NET_MIRRORED)))
			return 0;
	}
	came = state & ~was;
	if (came & (NET_DROPPED | NET_PEER_DROPPED))
		began = since;
	else if (came & NET_UNACKED)
		began = flight_since(connection, view);
	if (!began || began > now) {
		state |= NET_LATE;
		began = now;
	} else { /* what the other end saw since then, it told at its own instants */
		state &= ~(NET_PEER_LOST | (came & (NET_UNACKED | NET_DROPPED) ? NET_ARRIVED : 0));
	}
	add_own(connection, began < last ? last : began, since, state);
	return 0;
}

/* What will hold once the segment is processed. New bytes count as heard when they can be read. */
static __always_inline u32 foresee(struct connection *connection, struct tcp_view *view,
				   const struct segment *segment, u64 now)
{
	bool acknowledges = segment->flags & TCP_FLAG_ACK && after(segment->ack, view->una) &&
			    !after(segment->ack, view->nxt);

	if (acknowledges) {
		view->una = segment->ack;
		if (connection->lost.set || view->una == view->nxt)
			view->retransmitted = 0;
		if (view->una == view->nxt) {
			view->out = 0;
			view->in_flight = 0;
			view->pending = 0;
			connection->idle_una = view->una;
		}
	}
	if (!after(segment->end, view->received))
		return state_of(connection, view);
	if (after(segment->seq, view->received)) {
		if (!view->holes)
			connection->gap_since = now;
		view->holes = 1;
	} else {
		view->received = segment->end;
		view->holes = 0;
		connection->heard_at = view->write;
		connection->heard = 1;
	}
	return state_of(connection, view);
}

/* Bytes have arrived here: so the other end, if it waits for that, knows how far. */
static __always_inline void tell_arrival(struct connection *connection, u64 key, u32 received,
					 const struct tcp_view *view, u64 now)
{
	struct connection *other = other_end(connection, key, view);
	struct tcp_sock *its;
	u32 written;

	if (!other || !other->watched)
		return;
	its = (struct tcp_sock *)other->sock;
	written = read_word((u64)&its->write_seq);
	other->arrived = received;
	other->arrived_set = 1;
	if (received == written)
		add_mirror(other, now, 0, NET_HERE | NET_ARRIVED);
}

static __always_inline void keep_oldest(struct connection *connection, struct sock *sk,
					const struct tcp_view *view)
{
	u64 sent = view->out ? oldest_sent(sk, view->una) : 0;

	if (!sent || connection->oldest == view->una)
		return;
	connection->oldest_sent = sent;
	connection->oldest = view->una;
}

/* What is over is forgotten, before the numbers come round to it again. */
static __always_inline void retire(struct trouble *trouble, u32 reached)
{
	if (trouble->set && !after(trouble->end, reached))
		trouble->set = 0;
}

static __noinline int follow_segment(struct connection *connection, u64 other_key,
				     const struct segment *segment)
{
	struct sock *sk = (struct sock *)connection->sock;
	u32 was, state, received;
	struct tcp_view view;
	u64 now = bpf_ktime_get_ns();

	look_at(&view, sk);
	if (view.una != connection->idle_una)
		keep_oldest(connection, sk, &view);
	catch_up(connection, &view, now);
	was = state_of(connection, &view);
	received = view.received;
	state = foresee(connection, &view, segment, now);
	if ((was ^ state) & ~(NET_FLAPPING | NET_HERE | NET_ARRIVED))
		add_own(connection, now, since_of(connection, &view, state), state);
	retire(&connection->lost, view.una);
	retire(&connection->dropped, view.una);
	retire(&connection->peer_lost, view.received);
	retire(&connection->peer_dropped, view.received);
	if (connection->other && view.received != received)
		tell_arrival(connection, other_key, view.received, &view, now);
	return 0;
}

/* A segment of an established connection has arrived; it is not processed yet. */
static __always_inline void arriving(struct sock *sk, const struct sk_buff *skb)
{
	struct connection *connection;
	struct segment segment;
	struct ends ends;

	ends_of(&ends, sk, true);
	connection = connection_of(key_of(&ends), sk);
	if (!connection)
		return;
	read_segment(&segment, skb);
	if (connection->watched) {
		follow_segment(connection, other_key_of(&ends), &segment);
	} else if (segment.end != segment.seq) {
		connection->heard_at = write_seq_of(sk);
		connection->heard = 1;
	}
}

static __always_inline u32 resent_by(struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	u32 pending = BPF_CORE_READ(icsk, icsk_pending);
	u32 state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);

	/* Each timer's handler clears what was pending but that of the tail loss probe, which does it last. */
	if (pending == ICSK_TIME_LOSS_PROBE && state < TCP_CA_RECOVERY)
		return RESENT_PROBE;
	return state == TCP_CA_LOSS && !pending ? RESENT_TIMEOUT : RESENT_FAST;
}

static __always_inline void set_trouble(struct trouble *trouble, u32 from, u32 end, u64 since)
{
	if (trouble->set && after(trouble->end, from)) { /* still in the same one */
		if (after(end, trouble->end))
			trouble->end = end;
		return;
	}
	trouble->since = since;
	trouble->end = end;
	barrier();
	trouble->set = 1;
}

/* The segments up to `end` are lost: the sender sends them again. */
static __always_inline void set_loss(struct trouble *trouble, u32 from, u32 end, u64 since, u64 now,
				     u32 srtt_us)
{
	set_trouble(trouble, from, end, since);
	trouble->srtt_us = srtt_us;
	trouble->at = now;
}

/* Has this end all bytes up to there? Then what is sent again up to there was not lost. */
static __always_inline bool has_received(const struct connection *connection, u32 end)
{
	struct tcp_sock *tp = (struct tcp_sock *)connection->sock;

	return !after(end, read_word((u64)&tp->rcv_nxt));
}

static __noinline int follow_resent(struct connection *connection, u64 other_key,
				    const struct segment *segment)
{
	struct sock *sk = (struct sock *)connection->sock;
	u32 was, state, srtt_us = BPF_CORE_READ((struct tcp_sock *)sk, srtt_us) >> 3;
	u64 now = bpf_ktime_get_ns(), since;
	struct connection *other;
	struct tcp_view view;

	look_at(&view, sk);
	catch_up(connection, &view, now);
	was = state_of(connection, &view);
	set_loss(&connection->lost, view.una, segment->end, flight_since(connection, &view), now,
		 srtt_us);
	connection->resent_at = now;
	connection->resent[resent_by(sk) % RESENT_KINDS]++;
	since = connection->lost.since;
	state = state_of(connection, &view);
	if ((was ^ state) & ~NET_FLAPPING)
		add_own(connection, now, since_of(connection, &view, state), state);
	if (!connection->other)
		return 0;
	other = other_end(connection, other_key, &view);
	if (!other || !other->watched || has_received(other, segment->end))
		return 0;
	set_loss(&other->peer_lost, view.una, segment->end, since, now, srtt_us);
	add_mirror(other, now, other->peer_lost.since, NET_HERE | NET_PEER_LOST);
	return 0;
}

/* A segment was sent again; from 6.15 on also where that failed at once. */
static __always_inline void resent(struct sock *sk, const struct sk_buff *skb)
{
	struct connection *connection;
	struct segment segment;
	struct ends ends;

	ends_of(&ends, sk, true);
	connection = connection_of(key_of(&ends), sk);
	if (!connection || !connection->watched)
		return;
	read_segment(&segment, skb);
	follow_resent(connection, other_key_of(&ends), &segment);
}

/* Where a dropped segment came from, and its stretch of numbers; false: it carries none. */
struct dropped_segment {
	struct ends ends; /* local: the sender */
	u32 end;
	u32 netns;
	u32 ifindex;
	u32 kind;
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
		found->ifindex = BPF_CORE_READ(device, ifindex);
		found->netns = BPF_CORE_READ(device, nd_net.net, ns.inum);
	}
	if (is_loopback(&found->ends.local) && is_loopback(&found->ends.remote))
		found->ends.netns = found->netns;
	return found->end != bpf_ntohl(tcp.seq);
}

static __always_inline void note_drop(struct connection *connection,
				      const struct dropped_segment *found, u64 now)
{
	struct tcp_sock *tp = (struct tcp_sock *)connection->sock;

	set_trouble(&connection->dropped, read_word((u64)&tp->snd_una), found->end, now);
	connection->dropped_at = now;
	connection->drops++;
	connection->drop_kind = found->kind;
	connection->drop_ifindex = found->ifindex;
	connection->drop_netns = found->netns;
}

static __noinline int follow_drop(struct sk_buff *skb, u32 kind)
{
	struct dropped_segment found;
	struct connection *connection;
	struct tcp_sock *tp;
	u64 now, key;

	if (!read_dropped(&found, skb))
		return 0;
	found.kind = kind;
	now = bpf_ktime_get_ns();
	key = key_of(&found.ends);
	connection = bpf_map_lookup_elem(&connections, &key);
	if (connection && connection->sock && connection->watched)
		note_drop(connection, &found, now);
	key = other_key_of(&found.ends);
	connection = bpf_map_lookup_elem(&connections, &key);
	if (connection && connection->sock && connection->watched) {
		tp = (struct tcp_sock *)connection->sock;
		set_trouble(&connection->peer_dropped, read_word((u64)&tp->rcv_nxt), found.end, now);
	}
	return 0;
}

static __always_inline void dropping(struct sk_buff *skb, u32 reason)
{
	u32 kind;

	if (reason >= DROP_REASONS_MAX)
		return;
	barrier_var(reason); /* or the verifier does not see the mask, which the compiler finds needless */
	kind = drop_class[reason % DROP_REASONS_MAX];
	if (kind != DROP_NONE)
		follow_drop(skb, kind);
}

/* Whoever waits, or will wait, on a connection that begins: known by the thread that made its socket ready. */
static __always_inline bool current_is_watched(void)
{
	struct thread_state *state = thread_known(current_task());

	return control.watch_all || (state && state->flags & THREAD_WATCHED);
}

static __always_inline u64 listener_note(struct sock *sk)
{
	return note_key(NOTE_LISTENS, (u64)sk->__sk_common.skc_net.net->ns.inum << 16 |
					      sk->__sk_common.skc_num);
}

static __always_inline u64 connects_note(struct cpu_state *cpu, struct sock *sk)
{
	return note_key(NOTE_CONNECTS, as_number(&cpu->number, (u64)sk));
}

static __noinline int established(struct cpu_state *cpu, struct sock *sk)
{
	struct connection *connection, *other;
	struct tcp_view view;
	struct ends ends;
	u32 watched;
	u64 key;

	ends_of(&ends, sk, true);
	key = key_of(&ends);
	connection = connection_of(key, sk);
	if (connection && connection->closed)
		connection = NULL;
	watched = control.watch_all || (connection && connection->watched) ||
		  was_noted(connects_note(cpu, sk)) || was_noted(listener_note(sk));
	if (!connection)
		connection = new_connection(key);
	if (!connection)
		return 0;
	connection->sock = (u64)sk;
	look_at(&view, (struct sock *)connection->sock);
	view.una = view.nxt; /* the acknowledgement of our SYN is being processed */
	begin_at(connection, &view);
	other = other_end(connection, other_key_of(&ends), &view);
	if (other) {
		watched = watched || other->watched;
		other->watched = watched;
	}
	connection->watched = watched;
	if (watched)
		add_own(connection, bpf_ktime_get_ns(), 0, state_of(connection, &view));
	return 0;
}

/* It stays for whoever still waits on it, until its place is needed. */
static __always_inline void closed(struct sock *sk)
{
	struct connection *connection;
	struct ends ends;

	ends_of(&ends, sk, true);
	ends.local.port = BPF_CORE_READ((struct inet_sock *)sk, inet_sport); /* skc_num is 0 by now */
	connection = connection_of(key_of(&ends), sk);
	if (connection)
		connection->closed = 1;
}

/* `sk` may be of any protocol over IP that has states. */
static __always_inline void state_changes(struct sock *sk, int state)
{
	struct cpu_state *cpu = this_cpu();

	if (!config.net || !cpu || sk->sk_protocol != IPPROTO_TCP)
		return;
	if (state == TCP_ESTABLISHED)
		established(cpu, sk);
	else if (state == TCP_SYN_SENT && current_is_watched())
		note(connects_note(cpu, sk));
	else if (state == TCP_LISTEN && current_is_watched())
		note(listener_note(sk));
	else if (state == TCP_CLOSE)
		closed(sk);
}

#endif
