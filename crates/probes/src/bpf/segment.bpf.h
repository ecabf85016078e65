/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What happens to the segments of connections that are known: they arrive and are sent again (drops.bpf.h:
 * are dropped); and a connection's beginning and end.
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
	u32 count; /* on the wire */
};

/* `skb` is an argument of the hook. */
static __always_inline void read_segment(struct segment *segment, const struct sk_buff *skb)
{
	const struct tcp_skb_cb *block = (const struct tcp_skb_cb *)skb->cb;

	segment->seq = block->seq;
	segment->end = block->end_seq;
	segment->ack = block->ack_seq;
	segment->flags = block->tcp_flags;
	segment->count = block->tcp_gso_segs;
}

/*
 * Bytes were acknowledged, and maybe sent before that, since the last hook, which was not traced. When, the
 * kernel has of the latest flight: whatever fits into one segment was no more than that.
 */
static __always_inline u64 acknowledged_unseen(struct connection *connection,
					       const struct tcp_view *view, u32 state, u64 last)
{
	u32 sent = view->una - connection->idle_una;

	if (view->una != view->nxt || !sent || sent > view->mss)
		return 0;
	connection->idle_una = view->una;
	connection->idle_tried = view->tried;
	if (view->flight > last && view->flight < view->delivered)
		add_own(connection, view->flight, view->flight,
			(state | NET_UNACKED) & ~(NET_ARRIVED | NET_PEER_LOST));
	return view->delivered;
}

/*
 * Bytes were written since the last hook and were on their way before what came next, at `until`: that is put
 * where their flight began. The instant of the latest phase then.
 */
static __always_inline u64 written_unseen(struct connection *connection,
					  const struct tcp_view *view, u32 state, u64 last,
					  u64 until)
{
	u64 flight = flight_since(connection, view);

	if (flight <= last || flight >= until)
		return last;
	add_own(connection, flight, flight,
		state & ~(NET_DROPPED | NET_PEER_DROPPED | NET_PEER_LOST | NET_GAP | NET_LOST |
			  NET_ARRIVED));
	return flight;
}

/*
 * When all that was written by then had arrived at the other end, the latest time; 0: not known. Whatever
 * is unsent now was written after that.
 */
static __always_inline u64 arrived_all(const struct connection *connection)
{
	const struct net_phase *latest;

	if (!connection->mirror_count)
		return 0;
	latest = &connection->mirror[(connection->mirror_count - 1) % NET_MIRROR];
	return latest->state & NET_ARRIVED ? latest->at : 0;
}

/*
 * When the kernel's tick 0 was, by CLOCK_MONOTONIC. Ticks are counted late and never early, so of all that is
 * seen the least is nearest; `now` was read after `ticks`.
 */
static s64 tick_zero;

static __always_inline void note_tick(u64 ticks, u64 now)
{
	s64 zero = now - ticks * config.tick_ns;

	if (!tick_zero || zero < tick_zero)
		tick_zero = zero;
}

/*
 * The bytes of the latest flight from idle, or of the one that is to come, were written before this instant,
 * and not just before they were sent; else 0. The kernel has the tick in which it came to have something to
 * send.
 */
static __noinline u64 written_by(const struct connection *connection, const struct tcp_view *view,
				 u64 now)
{
	struct tcp_sock *tp = (struct tcp_sock *)connection->sock;
	u64 until = view->out ? view->flight : now, by;
	u64 ticks = bpf_jiffies64();

	if (!tick_zero || view->una == view->write || connection->idle_una != view->una ||
	    BPF_CORE_READ_BITFIELD_PROBED(tp, chrono_type) != TCP_CHRONO_BUSY)
		return 0;
	ticks -= (u32)ticks - BPF_CORE_READ(tp, chrono_start);
	by = tick_zero + (ticks + 1) * config.tick_ns;
	return by < until ? by : 0;
}

/*
 * Bytes waited here before they were sent, or still do, and no hook told of it. If they were tried, this host
 * dropped them; else it is not known what held them back. Whether there was such a thing.
 */
static __noinline u32 tell_held(struct connection *connection, const struct tcp_view *view,
				u32 state, u64 now)
{
	u32 held = (state & (NET_ASKED | NET_HERE)) | NET_UNACKED | NET_UNSENT, was;
	u64 last, by, unclear;
	struct net_phase *phase;

	if (!connection->own_count || lasts(&connection->dropped, view->una))
		return 0;
	phase = &connection->own[(connection->own_count - 1) % NET_OWN];
	was = phase->state;
	last = phase->at;
	if (view->out && view->flight <= last)
		return 0;
	by = written_by(connection, view, now);
	if (!by)
		return 0;
	if (was & (NET_DROPPED | NET_UNFOLLOWED))
		return view->out;
	unclear = by - 2 * config.tick_ns;
	if (by > last || !was_tried(connection, view))
		add_own(connection, unclear < last ? last : unclear, 0, held | NET_UNFOLLOWED);
	if (was_tried(connection, view))
		add_own(connection, by < last ? last : by, by, held | NET_DROPPED);
	return 1;
}

/*
 * What held before this hook and was not seen to begin. Bytes are written without a hook: then it began
 * with their flight, or, of those that are held back, when all before them had arrived. A drop began when it
 * was noted, after the flight of what was dropped, or asked for it. The hook of an arrival may be missed: the
 * kernel's own clock has when all was acknowledged. Anything else is LATE.
 */
static __noinline int catch_up(struct connection *connection, const struct tcp_view *view, u64 now)
{
	u32 state = state_of(connection, view), was = 0, came, changed;
	u64 last = 0, began = 0, since = since_of(connection, view, state), arrived;
	struct net_phase *phase;

	if (tell_held(connection, view, state, now)) {
		if (view->out)
			add_own(connection, view->flight, view->flight,
				state & ~(NET_PEER_LOST | NET_ARRIVED));
		return nothing();
	}
	if (connection->own_count) {
		phase = &connection->own[(connection->own_count - 1) % NET_OWN];
		was = phase->state;
		last = phase->at;
	}
	changed = (was ^ state) & ~(NET_FLAPPING | NET_MIRRORED);
	if (last && !changed)
		return nothing();
	came = state & ~was;
	if (came & (NET_DROPPED | NET_PEER_DROPPED)) {
		began = since;
		if (came & NET_UNACKED && last)
			last = written_unseen(connection, view, state, last, began);
	} else if (came & NET_UNACKED) {
		began = flight_since(connection, view);
		arrived = state & NET_UNSENT ? arrived_all(connection) : 0;
		if (began > last && arrived > began && arrived < now) {
			last = written_unseen(connection, view, state & ~NET_HELD, last, arrived);
			began = arrived + 1;
		}
	} else if (!(state & NET_UNACKED) && !(changed & came & ~NET_ASKED))
		began = acknowledged_unseen(connection, view, state, last);
	if (!began || began > now) {
		state |= NET_LATE;
		began = now;
	} else { /* what the other end saw since then, it told at its own instants */
		state &= ~(NET_PEER_LOST | (connection->arrived_at > began ? NET_ARRIVED : 0));
	}
	add_own(connection, began < last ? last : began, since, state);
	return nothing();
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
			connection->idle_tried = view->tried;
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
		hear(connection, view->write);
	}
	return state_of(connection, view);
}

/* Bytes have arrived here: so the other end, if it waits for that, knows how far. */
static __always_inline void tell_arrival(struct connection *other, u32 received, u64 now)
{
	struct tcp_sock *its = (struct tcp_sock *)other->sock;
	u32 written;

	written = read_word((u64)&its->write_seq);
	set_arrived(other, received, now);
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

/* What was sent again since the last hook was sent again by this; asked before an arrival is processed. */
static __always_inline u32 resent_unseen_by(struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	if (BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state) == TCP_CA_LOSS)
		return RESENT_TIMEOUT;
	return BPF_CORE_READ(tp, tlp_high_seq) ? RESENT_PROBE : RESENT_FAST;
}

/*
 * Segments that were sent again and whose hook was not traced (0001): the kernel's own count of them has
 * grown by more than those that are `noticed` now. Which ones is not known: all that is in flight counts
 * as lost. What held before that is put where it began first.
 */
static __noinline int notice_resent(struct connection *connection, struct tcp_view *view,
				    u32 noticed, u64 now)
{
	struct sock *sk = (struct sock *)connection->sock;
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	s32 missed = view->resent - noticed - connection->resent_seen;
	u32 retransmitted = view->retransmitted, state;

	connection->resent_seen = view->resent;
	if (missed <= 0)
		return nothing();
	connection->resent[resent_unseen_by(sk) % RESENT_KINDS] += missed;
	connection->resent_at = now;
	if (!view->out)
		return nothing();
	view->retransmitted = 0;
	catch_up(connection, view, now);
	view->retransmitted = retransmitted;
	set_loss(&connection->lost, view->una, view->nxt, flight_since(connection, view), now,
		 BPF_CORE_READ(tp, srtt_us) >> 3);
	state = state_of(connection, view);
	add_own(connection, now, since_of(connection, view, state), state);
	return nothing();
}

/* The same of what the other end has sent again, and arrives here now. */
static __noinline int notice_peer_resent(struct connection *connection, struct connection *other,
					 const struct segment *segment,
					 const struct tcp_view *view, u64 now)
{
	struct tcp_sock *sender = (struct tcp_sock *)other->sock;
	u32 resent = read_word((u64)&sender->total_retrans);
	struct tcp_view its;
	u64 since;

	if (resent == other->resent_seen || resent == connection->peer_resent ||
	    !after(segment->end, view->received))
		return nothing();
	connection->peer_resent = resent;
	look_at(&its, (struct sock *)sender);
	since = flight_since(other, &its);
	set_loss(&connection->peer_lost, view->received, segment->end, since, now,
		 BPF_CORE_READ(sender, srtt_us) >> 3);
	add_own(connection, now, connection->peer_lost.since, state_of(connection, view));
	return nothing();
}

/* The same of what the other end could not send before. */
static __noinline int notice_peer_held(struct connection *connection, struct connection *other,
				       const struct segment *segment, const struct tcp_view *view,
				       u64 now)
{
	struct tcp_view its;
	u64 since;

	if (connection->peer_dropped.set)
		return nothing();
	look_at(&its, (struct sock *)other->sock);
	if (its.tried == connection->peer_tried || !was_tried(other, &its))
		return nothing();
	connection->peer_tried = its.tried;
	since = written_by(other, &its, now);
	if (!since)
		return nothing();
	set_trouble(&connection->peer_dropped, view->received, segment->end, since);
	add_own(connection, now, since, state_of(connection, view));
	return nothing();
}

static __noinline int follow_segment(struct connection *connection, u64 other_key,
				     const struct segment *segment)
{
	struct sock *sk = (struct sock *)connection->sock;
	struct connection *other = NULL;
	u32 was, state, received;
	struct tcp_view view;
	u64 ticks = bpf_jiffies64(), now = bpf_ktime_get_ns();

	note_tick(ticks, now);
	look_at(&view, sk);
	if (view.una != connection->idle_una)
		keep_oldest(connection, sk, &view);
	notice_resent(connection, &view, 0, now);
	catch_up(connection, &view, now);
	if (connection->other && segment->end != segment->seq)
		other = other_end(connection, other_key, &view);
	if (other && other->watched)
		notice_peer_resent(connection, other, segment, &view, now);
	if (config.drops_unsaid && other && other->watched)
		notice_peer_held(connection, other, segment, &view, now);
	was = state_of(connection, &view);
	received = view.received;
	state = foresee(connection, &view, segment, now);
	if ((was ^ state) & ~(NET_FLAPPING | NET_HERE | NET_ARRIVED))
		add_own(connection, now, since_of(connection, &view, state), state);
	retire(&connection->lost, view.una);
	retire(&connection->dropped, view.una);
	retire(&connection->peer_lost, view.received);
	retire(&connection->peer_dropped, view.received);
	if (other && other->watched && view.received != received)
		tell_arrival(other, view.received, now);
	return nothing();
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
	if (config.untraced_acks && segment.end == segment.seq)
		return;
	if (connection->watched) {
		follow_segment(connection, other_key_of(&ends), &segment);
	} else if (segment.end != segment.seq) {
		hear(connection, write_seq_of(sk));
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

static __noinline int follow_resent(struct connection *connection, u64 other_key,
				    const struct segment *segment)
{
	struct sock *sk = (struct sock *)connection->sock;
	u32 was, state, srtt_us = BPF_CORE_READ((struct tcp_sock *)sk, srtt_us) >> 3;
	u64 now = bpf_ktime_get_ns(), since;
	struct connection *other = NULL;
	struct tcp_view view;
	bool in_vain;

	look_at(&view, sk);
	notice_resent(connection, &view, segment->count, now);
	catch_up(connection, &view, now);
	was = state_of(connection, &view);
	if (connection->other)
		other = other_end(connection, other_key, &view);
	/* What has arrived already was not lost, only long under way, or its acknowledgement was. */
	in_vain = other && has_received(other, segment->end);
	if (!in_vain)
		set_loss(&connection->lost, view.una, segment->end,
			 flight_since(connection, &view), now, srtt_us);
	connection->resent_at = now;
	connection->resent[resent_by(sk) % RESENT_KINDS]++;
	since = connection->lost.since;
	state = state_of(connection, &view);
	if ((was ^ state) & ~NET_FLAPPING)
		add_own(connection, now, since_of(connection, &view, state), state);
	if (!other || !other->watched || in_vain)
		return nothing();
	set_loss(&other->peer_lost, view.una, segment->end, since, now, srtt_us);
	add_mirror(other, now, other->peer_lost.since, NET_HERE | NET_PEER_LOST);
	return nothing();
}

/* A segment was sent again; from 6.15 on also where that failed at once. */
static __always_inline void resent(struct sock *sk, const struct sk_buff *skb)
{
	struct connection *connection;
	struct segment segment;
	struct ends ends;

	ends_of(&ends, sk, true);
	connection = connection_of(key_of(&ends), sk);
	if (!connection || !connection->watched || config.untraced_resent)
		return;
	read_segment(&segment, skb);
	follow_resent(connection, other_key_of(&ends), &segment);
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
