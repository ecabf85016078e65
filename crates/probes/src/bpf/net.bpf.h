/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * TCP connections: who is who, what holds of one end at an instant, and the rings of phases. Facts of the
 * kernel's own state; what they amount to is decided elsewhere. segment.bpf.h feeds it from hooks,
 * netwait.bpf.h from waits.
 *
 * Nothing here takes a lock of the kernel's network code. What is read of a socket beside its owner is read
 * in an order in which each value may only be too new for the one before.
 */
#ifndef LACUNA_NET_H
#define LACUNA_NET_H

#define IPV4_LOOPBACK 127
/* Changes of these alone begin no phase: in a bulk transfer they flap with each segment. */
#define NET_FLAPPING (NET_UNSENT | NET_WINDOW | NET_CWND | NET_LATE)
/* They speak of bytes that were not sent yet. */
#define NET_HELD (NET_UNSENT | NET_NAGLE | NET_CORKED | NET_WINDOW | NET_CWND)
/* Told by the mirror ring at their own instants. */
#define NET_MIRRORED (NET_ARRIVED | NET_PEER_LOST | NET_HERE)

/* Of entries that are no connection, but say that one to come belongs to a watched thread. */
enum note_kind {
	NOTE_CONNECTS = 1, /* the sock */
	NOTE_LISTENS,      /* the port, and the network namespace */
};

/*
 * What a subprogram returns whose result nobody uses: the compiler leaves in r0 whatever was there, and an
 * address of a caller's stack is refused.
 */
static __always_inline int nothing(void)
{
	asm volatile("r0 = 0" ::: "r0");
	return 0;
}

/* Sequence numbers wrap around. */
static __always_inline bool after(u32 a, u32 b)
{
	return (s32)(b - a) < 0;
}

static __always_inline u64 key_of(const struct ends *ends)
{
	const struct end_address *from = &ends->local, *to = &ends->remote;
	u64 local = from->low ^ from->high * 3, remote = to->low ^ to->high * 3;

	return hash(hash(local, remote), ends->netns << 32 | from->port << 16 | to->port);
}

/* Under this the other end is found, where it is on this host. */
static __always_inline u64 other_key_of(const struct ends *ends)
{
	const struct end_address *from = &ends->remote, *to = &ends->local;
	u64 local = from->low ^ from->high * 3, remote = to->low ^ to->high * 3;

	return hash(hash(local, remote), ends->netns << 32 | from->port << 16 | to->port);
}

static __always_inline void set_ipv4(struct end_address *end, u32 address)
{
	end->high = 0;
	end->low = 0xffff0000ULL | (u64)address << 32; /* as IPv6 writes it */
}

static __always_inline bool is_loopback(const struct end_address *end)
{
	if (end->high)
		return false;
	if ((u32)end->low == 0xffff0000)
		return (end->low >> 32 & 0xff) == IPV4_LOOPBACK;
	return end->low == 1ULL << 56; /* ::1 */
}

/* Read with a helper unless the sock has a type that may be read directly. */
#define OF_SOCK(typed, sk, field) ((typed) ? (sk)->__sk_common.field : \
					     BPF_CORE_READ(sk, __sk_common.field))

static __always_inline void read_ipv6(struct end_address *end, bool typed, const void *address)
{
	if (typed) {
		end->high = ((const u64 *)address)[0];
		end->low = ((const u64 *)address)[1];
	} else {
		bpf_probe_read_kernel(&end->high, sizeof(u64), address);
		bpf_probe_read_kernel(&end->low, sizeof(u64), address + sizeof(u64));
	}
}

/* `typed`: the sock is an argument of the hook, or was cast to its type. */
static __always_inline void ends_of(struct ends *ends, struct sock *sk, bool typed)
{
	__builtin_memset(ends, 0, sizeof(*ends));
	if (OF_SOCK(typed, sk, skc_family) == AF_INET6) {
		read_ipv6(&ends->local, typed, &sk->__sk_common.skc_v6_rcv_saddr);
		read_ipv6(&ends->remote, typed, &sk->__sk_common.skc_v6_daddr);
	} else {
		set_ipv4(&ends->local, OF_SOCK(typed, sk, skc_rcv_saddr));
		set_ipv4(&ends->remote, OF_SOCK(typed, sk, skc_daddr));
	}
	ends->local.port = bpf_htons(OF_SOCK(typed, sk, skc_num));
	ends->remote.port = OF_SOCK(typed, sk, skc_dport);
	if (is_loopback(&ends->local) && is_loopback(&ends->remote))
		ends->netns = typed ? sk->__sk_common.skc_net.net->ns.inum :
				      BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

/* When the first of the segments in flight that are not known to have arrived was sent, if it is `una`. */
static __always_inline u64 oldest_sent(struct sock *sk, u32 una)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u64 first, anchor = bpf_core_field_offset(struct sk_buff, tcp_tsorted_anchor);
	struct sk_buff *skb;
	u32 seq;

	first = read_pointer((u64)&tp->tsorted_sent_queue);
	if (first == (u64)&tp->tsorted_sent_queue || !first)
		return 0;
	skb = (struct sk_buff *)(first - anchor);
	seq = read_word((u64)&((struct tcp_skb_cb *)skb->cb)->seq);
	return seq == una ? read_pointer((u64)&skb->skb_mstamp_ns) : 0;
}

#define VIEW(READ, READ_BITS) \
	view->una = READ(tp, snd_una); \
	view->nxt = READ(tp, snd_nxt); \
	view->write = READ(tp, write_seq); \
	view->received = READ(tp, rcv_nxt); \
	view->window_end = READ(tp, snd_wnd); \
	view->mss = READ(tp, mss_cache); \
	view->small = READ(tp, snd_sml); \
	view->nonagle = READ_BITS(tp, nonagle); \
	view->out = READ(tp, packets_out); \
	view->retransmitted = READ(tp, retrans_out); \
	view->in_flight = view->out + view->retransmitted - READ(tp, sacked_out) - \
			  READ(tp, lost_out); \
	view->allowed = READ(tp, snd_cwnd); \
	view->holes = READ(tp, out_of_order_queue.rb_node) != NULL; \
	view->resent = READ(tp, total_retrans); \
	view->tried = READ(tp, bytes_sent) - READ(tp, bytes_retrans) - view->nxt; \
	view->flight = READ(tp, first_tx_mstamp); \
	view->delivered = READ(tp, delivered_mstamp); \
	view->pending = READ(icsk, icsk_pending);

#define DIRECTLY(pointer, field) ((pointer)->field)

/* A full socket of TCP only. `una` before `nxt` before `write`: read later, each may only be larger. */
static __noinline int look_at(struct tcp_view *view, struct sock *sk)
{
	struct inet_connection_sock *icsk;
	struct tcp_sock *tp;

	if (reads_cheaply()) {
		tp = bpf_core_cast(sk, struct tcp_sock);
		icsk = bpf_core_cast(sk, struct inet_connection_sock);
		VIEW(DIRECTLY, BPF_CORE_READ_BITFIELD)
	} else {
		tp = (struct tcp_sock *)sk;
		icsk = (struct inet_connection_sock *)sk;
		VIEW(BPF_CORE_READ, BPF_CORE_READ_BITFIELD_PROBED)
	}
	view->window_end += view->una;
	view->flight *= 1000;
	view->delivered *= 1000;
	return nothing();
}

/*
 * Yes (1) or no (0), without a branch: some twenty bits of state by branches would be a million paths to the
 * verifier. The compiler must not find out.
 */
static __always_inline u32 nonzero(u32 value)
{
	u32 negated = -value;

	barrier_var(negated);
	return (value | negated) >> 31;
}

static __always_inline u32 is_after(u32 a, u32 b)
{
	u32 difference = b - a;

	barrier_var(difference);
	return difference >> 31;
}

/* Since nothing was in flight last, bytes were tried and this host did not let them out. */
static __always_inline u32 was_tried(const struct connection *connection,
				     const struct tcp_view *view)
{
	return is_after(view->tried, connection->idle_tried);
}

/* What keeps the next segment, if there is one. */
static __always_inline u32 held_by(const struct connection *connection, const struct tcp_view *view)
{
	u32 unsent = view->write - view->nxt, waits = nonzero(unsent);
	u32 small = is_after(view->mss, unsent);
	u32 next = view->nxt + view->mss + (unsent - view->mss) * small;
	u32 closed = is_after(next, view->window_end) & waits, open = waits & ~closed;
	u32 corked = open & small & view->nonagle / TCP_NAGLE_CORK;
	/* tcp_nagle_check, tcp_minshall_check */
	u32 nagle = open & small & ~nonzero(view->nonagle) & nonzero(view->out) &
		    is_after(view->small, view->una) & ~is_after(view->small, view->nxt);
	u32 full = waits & ~is_after(view->allowed, view->in_flight);
	/*
	 * Nothing is on its way, the window is open, and a timer tries again: the sending failed here, or was
	 * not tried: by a program that said that more would come, without a cork.
	 */
	u32 stuck = open & ~nonzero(view->out) & ~nonzero(view->pending ^ ICSK_TIME_PROBE0);
	u32 tried = was_tried(connection, view), untried = stuck & ~corked & ~tried;

	return waits * NET_UNSENT | closed * NET_WINDOW | (corked & 1) * NET_CORKED |
	       (nagle & 1) * NET_NAGLE | (full & 1) * NET_CWND | (stuck & tried & 1) * NET_DROPPED |
	       (untried & 1) * NET_UNFOLLOWED;
}

static __always_inline u32 lasts(const struct trouble *trouble, u32 reached)
{
	return nonzero(trouble->set) & is_after(trouble->end, reached);
}

static __always_inline u32 troubles(const struct connection *connection,
				    const struct tcp_view *view)
{
	u32 lost = nonzero(view->retransmitted) | lasts(&connection->lost, view->una);

	return lost * NET_LOST | lasts(&connection->dropped, view->una) * NET_DROPPED |
	       lasts(&connection->peer_lost, view->received) * NET_PEER_LOST |
	       lasts(&connection->peer_dropped, view->received) * NET_PEER_DROPPED |
	       nonzero(view->holes) * NET_GAP;
}

/* All bits of net_state but LATE; UNFOLLOWED where it is not known whose turn it is, or what holds bytes back. A subprogram, as the next: inlined, they fill the stack. */
static __noinline u32 state_of(const struct connection *connection, const struct tcp_view *view)
{
	u32 asked = nonzero(view->write ^ connection->heard_at);
	u32 heard = nonzero(connection->heard) & ~asked;
	u32 unknown = nonzero(connection->turn_unknown) & ~asked & ~nonzero(connection->heard);
	u32 here = nonzero((u32)(connection->other >> 32) | (u32)connection->other);
	u32 arrived = here & ~is_after(view->write, connection->arrived);

	return nonzero(view->una ^ view->write) * NET_UNACKED | held_by(connection, view) |
	       troubles(connection, view) | asked * NET_ASKED | (heard & 1) * NET_HEARD |
	       here * NET_HERE | (arrived & 1) * NET_ARRIVED | (unknown & 1) * NET_UNFOLLOWED;
}

/* When the oldest unacknowledged segment was first sent; 0: not known. */
static __always_inline u64 flight_since(const struct connection *connection,
					const struct tcp_view *view)
{
	if (!view->out)
		return 0;
	if (connection->idle_una == view->una)
		return view->flight;
	return connection->oldest == view->una ? connection->oldest_sent : 0;
}

/* Of the first bit that has an instant of its own (net_state). */
static __noinline u64 since_of(const struct connection *connection, const struct tcp_view *view,
			       u32 state)
{
	if (state & NET_PEER_DROPPED)
		return connection->peer_dropped.since;
	if (state & NET_PEER_LOST)
		return connection->peer_lost.since;
	if (state & NET_GAP)
		return connection->gap_since;
	if (state & NET_DROPPED)
		return connection->dropped.set && after(connection->dropped.end, view->una) ?
			       connection->dropped.since : 0;
	if (state & NET_LOST)
		return connection->lost.set && after(connection->lost.end, view->una) ?
			       connection->lost.since : 0;
	return state & NET_UNACKED ? flight_since(connection, view) : 0;
}

static __always_inline void set_phase(struct net_phase *phase, u64 at, u64 since, u32 state)
{
	u64 ago_us = (at - since) / 1000;

	phase->at = at;
	phase->state = state;
	phase->since_us = !since || since > at || ago_us >= NET_SINCE_UNKNOWN ?
				  NET_SINCE_UNKNOWN : ago_us;
}

/* The count is moved last: a reader that sees it sees the phase. */
static __always_inline void add_own(struct connection *connection, u64 at, u64 since, u32 state)
{
	u32 count = connection->own_count;

	set_phase(&connection->own[count % NET_OWN], at, since, state);
	barrier();
	connection->own_count = count + 1;
}

static __always_inline void add_mirror(struct connection *connection, u64 at, u64 since, u32 state)
{
	u32 count = connection->mirror_count;

	set_phase(&connection->mirror[count % NET_MIRROR], at, since, state);
	barrier();
	connection->mirror_count = count + 1;
}

/* The other end has all up to there. Whoever sees how far that is sees no instant from before it. */
static __always_inline void set_arrived(struct connection *connection, u32 received, u64 now)
{
	connection->arrived_at = now;
	barrier();
	connection->arrived = received;
	barrier();
}

/* Bytes arrive. What was written since that happened last is what they answer. */
static __always_inline void hear(struct connection *connection, u32 written)
{
	if (connection->heard_at != written)
		connection->asked_from = connection->heard_at;
	connection->heard_at = written;
	connection->heard = 1;
}

static const struct connection no_connection = {};

/* A new entry, in place of any that is there; NULL where there is no room. */
static __noinline struct connection *new_connection(u64 key)
{
	struct cpu_state *cpu;

	if (!bpf_map_update_elem(&connections, &key, &no_connection, BPF_ANY))
		return bpf_map_lookup_elem(&connections, &key);
	cpu = this_cpu();
	if (cpu)
		cpu->connections_lost++;
	return NULL;
}

/* The entry of a sock; one of another sock is of another connection. */
static __always_inline struct connection *connection_of(u64 key, const void *sk)
{
	struct connection *connection = bpf_map_lookup_elem(&connections, &key);

	return connection && connection->sock == (u64)sk ? connection : NULL;
}

static __always_inline u64 note_key(u64 kind, u64 what)
{
	return hash(what, kind << 56);
}

static __always_inline void note(u64 key)
{
	struct connection *noted = new_connection(key);

	if (noted)
		noted->watched = 1;
}

static __always_inline bool was_noted(u64 key)
{
	struct connection *noted = bpf_map_lookup_elem(&connections, &key);

	return noted && noted->watched;
}

/*
 * The entry of the other end, where it is on this host. Two addresses and ports may be there twice, in
 * namespaces that do not know of each other, so the sequence numbers of both must fit each other first.
 */
static __noinline struct connection *other_end(struct connection *connection, u64 key,
					       const struct tcp_view *view)
{
	struct connection *other = bpf_map_lookup_elem(&connections, &key);
	struct tcp_view its;
	u64 now;

	if (!other || !other->sock || other == connection)
		return NULL;
	if (connection->other == other->sock)
		return other;
	look_at(&its, (struct sock *)other->sock);
	if (after(view->una, its.received) || after(its.received, view->nxt) ||
	    after(its.una, view->received) || after(view->received, its.nxt))
		return NULL;
	now = bpf_ktime_get_ns();
	set_arrived(connection, its.received, now);
	connection->other = other->sock;
	set_arrived(other, view->received, now);
	other->other = connection->sock;
	return other;
}

/*
 * A connection from its beginning, or as first seen. Who spoke last before is known where only one did, or
 * by the kernel's own clock of both, in ticks. In one tick, it is not known.
 */
static __always_inline void begin_at(struct connection *connection, const struct tcp_view *view)
{
	struct tcp_sock *tp = (struct tcp_sock *)connection->sock;
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)connection->sock;
	bool heard = BPF_CORE_READ(tp, bytes_received) > 0;
	bool spoke = BPF_CORE_READ(tp, bytes_sent) > 0 || view->nxt != view->write;
	s32 later = BPF_CORE_READ(tp, lsndtime) - BPF_CORE_READ(icsk, icsk_ack.lrcvtime);

	if (heard && view->nxt != view->write)
		later = 0; /* when those bytes were written is not known */
	connection->heard = heard && (!spoke || later < 0);
	connection->turn_unknown = heard && spoke && !later;
	connection->heard_at = view->write;
	if (spoke && (!heard || later > 0))
		connection->heard_at--; /* so that it counts as written to since */
	connection->asked_from = connection->heard_at;
	connection->taken = read_word((u64)&tp->copied_seq);
	connection->idle_tried = view->tried;
	if (view->una == view->nxt)
		connection->idle_una = view->una;
	else
		connection->idle_una = view->una - 1;
	if (view->una == view->nxt && view->nxt != view->write)
		connection->idle_tried--; /* so that what waits counts as tried */
	connection->resent_seen = view->resent;
}

#endif
