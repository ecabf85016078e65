/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What ended a wait in io_uring_enter: the one request whose work waits for the thread as it is woken. Facts
 * only, as in ended.bpf.h, and read at the same instant for the same reason.
 *
 * A request that is armed on a file, or whose I/O is done, is queued as work of the thread that submitted it,
 * and the thread is woken by whoever queued it. A thread sleeps only after it has run all of its work, and
 * nobody else takes any away: so the sole request in the queue is what the thread is being woken for. A timer
 * or a signal finds the queue empty. So does a completion that somebody else posted for the thread (an
 * io_uring worker, the submission queue's thread, another ring): of those nothing is told.
 *
 * Work is queued for the thread, or for its ring where that defers work (IORING_SETUP_DEFER_TASKRUN). There a
 * thread that waits for several completions sleeps on while there are too few: a request is told only if
 * it was enough.
 */
#ifndef LACUNA_URING_H
#define LACUNA_URING_H

#define OP(number) (1ULL << (number))
#define OPS_INPUT \
	(OP(IORING_OP_READV) | OP(IORING_OP_READ_FIXED) | OP(IORING_OP_RECVMSG) | \
	 OP(IORING_OP_ACCEPT) | OP(IORING_OP_READ) | OP(IORING_OP_RECV) | \
	 OP(IORING_OP_READ_MULTISHOT) | OP(IORING_OP_RECV_ZC) | OP(IORING_OP_READV_FIXED))
#define OPS_OUTPUT \
	(OP(IORING_OP_WRITEV) | OP(IORING_OP_WRITE_FIXED) | OP(IORING_OP_SENDMSG) | \
	 OP(IORING_OP_WRITE) | OP(IORING_OP_SEND) | OP(IORING_OP_SEND_ZC) | \
	 OP(IORING_OP_SENDMSG_ZC) | OP(IORING_OP_WRITEV_FIXED))

/* Whether a lone request in the queue of a ring that defers work is why its thread is woken. */
static __always_inline bool was_enough(u64 ring)
{
	s32 wanted;

	if (!bpf_core_field_exists(((struct io_ring_ctx *)0)->cq_wait_nr)) /* any was */
		return true;
	wanted = read_word(ring + bpf_core_field_offset(struct io_ring_ctx, cq_wait_nr));
	return has_counted_work() ? wanted <= 0 : wanted == 1;
}

/* The only node of a queue, 0 where there is none or are several. */
static __always_inline u64 sole_of(u64 queue)
{
	u64 first = read_pointer(queue), stub;

	if (!first)
		return 0;
	if (has_counted_work()) { /* the last one, and a node that is always there, before the first */
		stub = queue + bpf_core_field_offset(struct mpscq, stub);
		return first != stub && read_pointer(stub) == first ? first : 0;
	}
	return read_pointer(first) ? 0 : first;
}

/* The only request that waits for the thread to work on it. */
static __always_inline u64 sole_request(struct task_struct *task, u64 ring)
{
	u32 setup = read_word(ring + bpf_core_field_offset(struct io_ring_ctx, flags));
	u64 own, node;

	if (can_defer_work() && setup & IORING_SETUP_DEFER_TASKRUN) {
		node = was_enough(ring) ? sole_of(ring + deferred_work()) : 0;
	} else {
		own = read_pointer((u64)&task->io_uring);
		node = sole_of(own + bpf_core_field_offset(struct io_uring_task, task_list));
	}
	return node ? node - bpf_core_field_offset(struct io_kiocb, io_task_work.node) : 0;
}

/*
 * The events that a request's file had (0 where its waker did not say), or how many bytes it is done with;
 * negative if it failed.
 */
static __always_inline s32 result_of(u64 request)
{
	if (bpf_core_field_exists(((struct io_kiocb___result *)0)->result))
		return read_word(request + bpf_core_field_offset(struct io_kiocb___result, result));
	return read_word(request + bpf_core_field_offset(struct io_kiocb, cqe.res));
}

/* Somebody took it back; its file may have done nothing. */
static __always_inline bool was_cancelled(u64 request)
{
	return read_word(request + bpf_core_field_offset(struct io_kiocb, poll_refs)) &
	       POLL_CANCELLED;
}

static __always_inline bool is_stored(struct resolved_file *file)
{
	u16 mode = read_half(file->inode + bpf_core_field_offset(struct inode, i_mode)) & S_IFMT;

	return mode == S_IFREG || mode == S_IFBLK;
}

static __always_inline u32 asked_by(u32 opcode, s32 result)
{
	u64 op = opcode < 64 ? OP(opcode) : 0;

	if (opcode == IORING_OP_CONNECT)
		return FLAG_CONNECT;
	if (op & OPS_INPUT)
		return FLAG_INPUT;
	if (op & OPS_OUTPUT)
		return FLAG_OUTPUT;
	return opcode == IORING_OP_POLL_ADD ? asks(result) : 0;
}

/* A worker of the thread's own process has done it, whatever took so long there. */
static __always_inline bool woken_by_worker(struct thread_state *state, struct task_struct *task)
{
	struct task_struct *current = current_task();

	return state->waker >= ID_THREADS && BPF_CORE_READ(current, tgid) == task->tgid &&
	       BPF_CORE_READ(current, flags) & (PF_IO_WORKER | PF_USER_WORKER);
}

/* At the waking of a thread that waits for completions, on the waker's CPU. */
static __noinline int note_request(struct cpu_state *cpu, struct thread_state *state,
				   struct task_struct *task)
{
	u64 ring = state->epoll, request, file;
	u32 opcode, asked;
	s32 result;

	if (woken_by_worker(state, task))
		return 0;
	request = sole_request(task, ring);
	if (!request || read_pointer(request + bpf_core_field_offset(struct io_kiocb, ctx)) != ring)
		return 0;
	file = read_pointer(request + bpf_core_field_offset(struct io_kiocb, file));
	if (!file)
		return 0;
	opcode = read_word(request + bpf_core_field_offset(struct io_kiocb, opcode)) & 0xff;
	result = result_of(request);
	state->ended = resolve_file(cpu, &state->ready, (struct file *)file);
	if (!is_stored(&state->ready) && (result < 0 || (!result && was_cancelled(request))))
		return 0;
	asked = asked_by(opcode, result);
	if (asked == (FLAG_INPUT | FLAG_OUTPUT) && has_input(&state->ready))
		asked = FLAG_INPUT;
	state->told = FLAG_ENDED | asked;
	return 0;
}

/* At the waking of a thread that polls, on the waker's CPU. */
static __noinline int note_end(struct cpu_state *cpu, struct thread_state *state,
			       struct task_struct *task)
{
	state->told = 0;
	if (!(state->asked & FLAG_ENDED))
		state->told = signalled(task) ? 0 : state->asked;
	else if (!(state->asked & ASKED_RING) && has_ready_list())
		note_ready(cpu, state);
	else if (state->asked & ASKED_RING && has_work_list())
		note_request(cpu, state, task);
	return 0;
}

#endif
