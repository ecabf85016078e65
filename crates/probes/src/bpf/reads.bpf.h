/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Who reads from a connection, whether or not it ever waited for that: a server may accept a connection and
 * find the request there already, or be handed one by another thread.
 *
 * tcp_rcv_space_adjust fires for each segment that was copied to a reader, also without a copy (splice, zero
 * copy) and for a mere look (MSG_PEEK), under the socket's lock. Unwatched threads pay one lookup, that of
 * their own state.
 */
#ifndef LACUNA_READS_H
#define LACUNA_READS_H

/* That a request was taken. Nobody misses it where there is no room: it only helps to join spans. */
static __always_inline void emit_read(u64 thread, u16 peer_port)
{
	struct cpu_state *cpu = this_cpu();
	struct read_record *record;

	if (!cpu)
		return;
	record = reserve(cpu, sizeof(*record));
	if (!record)
		return;
	fill_header(&record->header, RECORD_READ, thread);
	record->at = bpf_ktime_get_ns();
	record->peer_port = bpf_ntohs(peer_port);
	__builtin_memset(record->unused, 0, sizeof(record->unused));
	submit(cpu, record);
}

/*
 * Whether it is news: the first bytes that are read since this end, which accepts, wrote any; unless they
 * ended a wait of the same thread, which was recorded.
 */
static __always_inline bool note_read(struct connection *connection, struct sock *sk, u64 thread)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u32 taken = read_word((u64)&tp->copied_seq), written = write_seq_of(sk);
	bool waited = connection->waited && connection->reader == thread;
	bool first = !connection->taker || connection->spoken != written;

	if (taken == connection->taken) /* it only looked */
		return false;
	note_reader(connection, thread);
	connection->taken = taken;
	connection->taker = thread;
	connection->spoken = written;
	connection->waited = 0;
	return first && !waited && sk->sk_max_ack_backlog;
}

static __always_inline void reading(struct sock *sk)
{
	struct task_struct *task = current_task();
	struct thread_state *state = thread_known(task);
	struct connection *connection;
	struct ends ends;

	if (!state || !(state->flags & THREAD_WATCHED))
		return;
	/* A softirq that reads for the kernel (kTLS) gets no socket that a thread has the lock of. */
	if (!sk->sk_lock.owned || current_flags(task) & PF_OF_THE_KERNEL)
		return;
	ends_of(&ends, sk, true);
	connection = connection_of(key_of(&ends), sk);
	if (connection && connection->watched && note_read(connection, sk, state->id))
		emit_read(state->id, ends.remote.port);
}

#endif
