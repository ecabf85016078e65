/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Waits on connections: what one was like as a thread left its CPU to wait for it, and the record of all
 * that is known of it when the thread comes back.
 *
 * It runs under the run queue's lock. Who waits for anything else than TCP pays one comparison.
 */
#ifndef LACUNA_NETWAIT_H
#define LACUNA_NETWAIT_H

/* States in which the numbers of a connection mean something: all but those of no connection yet or any more. */
static __always_inline bool is_connection(u32 state)
{
	return state != TCP_CLOSE && state != TCP_LISTEN && state != TCP_TIME_WAIT &&
	       state != TCP_NEW_SYN_RECV;
}

static __always_inline void note_listener(struct sock *sk)
{
	u64 key = note_key(NOTE_LISTENS,
			   (u64)BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) << 16 |
				   BPF_CORE_READ(sk, __sk_common.skc_num));

	if (!was_noted(key))
		note(key);
}

/*
 * Watches a connection from here on. What it is like is its first phase; that is written before the hooks
 * may write any, because they do so under another lock.
 */
static __always_inline void watch_connection(struct cpu_state *cpu, struct connection *connection)
{
	struct connection *other = other_end(connection, cpu->awaited.other_key, &cpu->view);
	u32 state = state_of(connection, &cpu->view);

	if (other)
		other->watched = 1;
	if (connection->watched)
		return;
	connection->resent_seen = cpu->view.resent;
	if (!connection->own_count)
		add_own(connection, bpf_ktime_get_ns(), since_of(connection, &cpu->view, state), state);
	barrier();
	connection->watched = 1;
}

/* The entry of the connection that a watched thread waits on; a new one if there is none. */
static __always_inline struct connection *awaited_connection(struct cpu_state *cpu, struct sock *sk)
{
	struct connection *connection;

	if (reads_cheaply())
		ends_of(&cpu->ends, bpf_core_cast(sk, struct sock), true);
	else
		ends_of(&cpu->ends, sk, false);
	if (!cpu->ends.local.port)
		return NULL;
	cpu->awaited.key = key_of(&cpu->ends);
	cpu->awaited.other_key = other_key_of(&cpu->ends);
	connection = connection_of(cpu->awaited.key, sk);
	if (connection && !connection->closed)
		return connection;
	connection = new_connection(cpu->awaited.key);
	if (!connection)
		return NULL;
	connection->sock = (u64)sk;
	look_at(&cpu->view, sk);
	begin_at(connection, &cpu->view);
	return connection;
}

/*
 * The connection of this sock, into the CPU's memory; with what it is like now, if the wait on it begins
 * (`now` 0: it ends). Not static, so that the verifier looks at it once, by itself; then its arguments are
 * numbers (before 5.12).
 */
__noinline int look_at_awaited(u64 sock, u64 now)
{
	struct sock *sk = (struct sock *)sock;
	u32 tcp = tcp_state_of(sk), bits;
	struct connection *connection;
	struct cpu_state *cpu = this_cpu();

	if (!cpu)
		return 0;
	cpu->awaited.sock = 0;
	if (tcp == TCP_LISTEN)
		note_listener(sk);
	if (!is_connection(tcp))
		return 0;
	connection = awaited_connection(cpu, sk);
	if (!connection)
		return 0;
	cpu->awaited.sock = sock;
	cpu->awaited.sample.at = 0;
	if (!now && connection->watched)
		return 0;
	look_at(&cpu->view, sk);
	if (!connection->watched || !connection->other)
		watch_connection(cpu, connection);
	if (!now)
		return 0;
	if (cpu->view.una != connection->idle_una)
		keep_oldest(connection, sk, &cpu->view);
	bits = state_of(connection, &cpu->view);
	if (tcp != TCP_ESTABLISHED && tcp != TCP_SYN_SENT && tcp != TCP_SYN_RECV)
		bits |= NET_UNFOLLOWED;
	set_phase(&cpu->awaited.sample, now, since_of(connection, &cpu->view, bits), bits);
	return 0;
}

/* The thread leaves its CPU; if it waits for a descriptor that is a connection, that is looked at. */
static __always_inline void await_direct(struct cpu_state *cpu, struct thread_state *state, u64 now)
{
	if (!config.net || !state->wait.object || !state->resolved.tcp ||
	    state->wait.object != state->resolved.object)
		return;
	look_at_awaited(state->resolved.tcp, now);
	state->awaited = cpu->awaited;
}

static __always_inline void fill_drops(struct net_drops *told, const struct net_drops *ever, u32 *before)
{
	*told = *ever;
	told->count -= *before;
	*before += told->count;
}

static __always_inline void fill_counts(struct net_record *record, struct connection *connection)
{
	for (int i = 0; i < RESENT_KINDS; i++) {
		record->resent[i] = connection->resent[i] - connection->resent_told[i];
		connection->resent_told[i] += record->resent[i];
	}
	record->resent_at = connection->resent_at;
	fill_drops(&record->dropped, &connection->drops, &connection->drops_told);
	fill_drops(&record->peer_dropped, &connection->peer_drops, &connection->peer_drops_told);
}

/*
 * The round trip is that of who lost something, from before it was found out: whatever was acknowledged in
 * the wait is in today's, also what was only acknowledged late.
 */
static __always_inline void fill_measures(struct net_record *record, struct sock *sk,
					  const struct connection *connection)
{
	const struct trouble *lost = connection->peer_lost.at > connection->lost.at ?
					     &connection->peer_lost : &connection->lost;
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u32 rtt = read_word((u64)&tp->srtt_us) >> 3, least = read_word((u64)&tp->rtt_min.s[0].v);
	u32 rto = rtt + read_word((u64)&tp->rttvar_us);

	record->srtt_us = lost->at >= record->out ? lost->srtt_us : rtt;
	record->rtt_min_us = least == ~0U ? 0 : least;
	record->rto_us = rtt ? rto : 1000000; /* __tcp_set_rto, TCP_TIMEOUT_INIT */
	record->accepted = read_word((u64)&sk->sk_max_ack_backlog) > 0;
}

/* Where what has not been answered yet begins, or what was answered last. */
static __always_inline u32 question_of(const struct connection *connection, u32 written)
{
	return connection->heard_at == written ? connection->asked_from : connection->heard_at;
}

/*
 * The thread at the other end that has to do with what was written here last: who read some of that. While
 * nobody has, it is whoever was the only one so far; of several, nobody knows which it will be.
 */
static __always_inline u64 peer_of(const struct connection *connection, u64 key)
{
	struct tcp_sock *tp = (struct tcp_sock *)connection->sock;
	struct connection *other = bpf_map_lookup_elem(&connections, &key);
	u32 question = question_of(connection, read_word((u64)&tp->write_seq));

	if (!connection->other || !other || other->sock != connection->other)
		return 0;
	if (other->taker && after(other->taken, question))
		return other->taker;
	if (other->passed_on)
		return 0;
	return other->taker ? other->taker : other->reader;
}

static __always_inline void note_reader(struct connection *connection, u64 thread)
{
	u64 before = connection->taker ? connection->taker : connection->reader;

	if (before && before != thread)
		connection->passed_on = 1;
}

static __always_inline void copy_phases(struct net_record *record, struct connection *connection)
{
	record->own_before = connection->own_count;
	record->mirror_before = connection->mirror_count;
	barrier();
	__builtin_memcpy(record->own, connection->own, sizeof(record->own));
	__builtin_memcpy(record->mirror, connection->mirror, sizeof(record->mirror));
	barrier();
	record->own_after = connection->own_count;
	record->mirror_after = connection->mirror_count;
}

/*
 * The record of what cpu->awaited says; verified by itself, as above. 1 if it was made, or should have been
 * and found no room.
 */
__noinline int emit_connection(u64 thread, u64 seq, u64 object, u64 out)
{
	struct cpu_state *cpu = this_cpu();
	struct connection *connection;
	struct net_record *record;
	struct awaited *awaited;

	if (!cpu)
		return 0;
	awaited = &cpu->awaited;
	connection = connection_of(awaited->key, (void *)awaited->sock);
	if (!connection) { /* it had to give its place to another one meanwhile */
		cpu->connections_lost++;
		return 1;
	}
	if (!awaited->sample.at && !connection->own_count)
		return 0;
	record = reserve(cpu, sizeof(*record));
	if (!record)
		return 1;
	fill_header(&record->header, RECORD_NET, thread);
	record->seq = seq;
	record->object = object;
	record->out = out;
	record->reader = connection->reader;
	record->peer_reader = peer_of(connection, awaited->other_key);
	record->unused = 0;
	fill_counts(record, connection);
	fill_measures(record, (struct sock *)awaited->sock, connection);
	record->sample = awaited->sample;
	copy_phases(record, connection);
	submit(cpu, record);
	note_reader(connection, thread);
	connection->reader = thread;
	connection->waited = 1;
	return 1;
}

/*
 * Whether a record of the connection that the wait was for was made, or should have been: the one that it was
 * for from its beginning, or the one that ended it. `seq` is the number of the cycle.
 */
static __always_inline bool tell_connection(struct cpu_state *cpu, struct thread_state *state,
					    u64 seq)
{
	if (!config.net || state->flags & THREAD_RUNNABLE)
		return false;
	if (state->told & FLAG_ENDED && state->ready.tcp && state->ended == state->ready.object)
		look_at_awaited(state->ready.tcp, 0);
	else if (state->awaited.sock)
		cpu->awaited = state->awaited;
	else
		return false;
	if (!cpu->awaited.sock)
		return false;
	if (state->told & FLAG_ENDED)
		return emit_connection(state->id, seq, state->ended, state->out);
	return emit_connection(state->id, seq, state->wait.object, state->out);
}

#endif
