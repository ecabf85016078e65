/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What ended a poll-like wait: which file an epoll instance had ready as its thread was woken, and
 * which descriptor alone a poll or select asked about. Facts only: what of them proves that the
 * object ended the wait is decided in user space.
 *
 * It is read at the waking, not when the thread comes back on a CPU: by then more may have become
 * ready, also after a timeout, and another thread may have taken what was. A thread blocks only after it
 * has found the list empty. Who then puts a file on it wakes the thread in the same breath, holding the
 * instance's lock (ep_poll_callback): nothing can be taken off the list meanwhile, and the file is there
 * as long as its waiters are called. Without that lock run only wakings by a timer or a signal, and those
 * find the list empty; what they could catch of a change on another CPU is asked twice (the item must name
 * this instance), and memory that is no more is read as 0 or refused.
 */
#ifndef LACUNA_ENDED_H
#define LACUNA_ENDED_H

static __always_inline u32 asks(u32 events)
{
	u32 flags = 0;

	if (events & POLL_INPUT)
		flags |= FLAG_INPUT;
	if (events & POLL_OUTPUT)
		flags |= FLAG_OUTPUT;
	return flags;
}

/* poll(2) of one descriptor; a negative one is not looked at. */
static __always_inline s32 sole_polled(struct thread_state *state)
{
	struct pollfd polled = {};

	if ((u32)state->wait.args[1] != 1 ||
	    bpf_probe_read_user(&polled, sizeof(polled), (void *)state->wait.args[0]) ||
	    polled.fd < 0)
		return -1;
	state->asked = FLAG_SOLE | asks(polled.events);
	return polled.fd;
}

static __always_inline u64 selected(u64 address, u64 mask)
{
	u64 set = 0;

	if (address && bpf_probe_read_user(&set, sizeof(set), (void *)address))
		return ~0ULL; /* too many to be one */
	return set & mask;
}

/* select(2) of one descriptor below 64, in any of its sets: one word each. */
static __always_inline s32 sole_selected(struct thread_state *state)
{
	u32 highest = state->wait.args[0];
	u64 input, output, other, all, mask;

	if (highest == 0 || highest > 64)
		return -1;
	mask = ~0ULL >> (64 - highest);
	input = selected(state->wait.args[1], mask);
	output = selected(state->wait.args[2], mask);
	other = selected(state->wait.args[3], mask);
	all = input | output | other;
	if (!all || all & (all - 1))
		return -1;
	state->asked = FLAG_SOLE;
	if (input | other)
		state->asked |= FLAG_INPUT;
	if (output)
		state->asked |= FLAG_OUTPUT;
	return __builtin_popcountll(all - 1);
}

/* The descriptor that a wait is for; negative: there is none, or not one alone. */
static __always_inline s32 descriptor_of(struct thread_state *state, u32 class)
{
	if (class != CALL_POLL && class != CALL_SELECT)
		return state->wait.args[0];
	if (!(state->wait.state & TASK_INTERRUPTIBLE)) /* it waits for something on the way */
		return -1;
	return class == CALL_POLL ? sole_polled(state) : sole_selected(state);
}

/* As recalc_sigpending_tsk of kernel/signal.c asks it. */
static __always_inline bool signalled(struct task_struct *task)
{
	u64 pending = task->pending.signal.sig[0] | task->signal->shared_pending.signal.sig[0];

	return pending & ~task->blocked.sig[0] || task->jobctl & JOBCTL_STOPS;
}

static __always_inline u16 read_half(u64 address)
{
	return read_word(address);
}

/* Whether a file is a TCP socket that has got something to read: it is told before its waiters are. */
static __always_inline bool has_input(struct resolved_file *file)
{
	u16 mode = read_half(file->inode + bpf_core_field_offset(struct inode, i_mode));
	u64 sk;

	if ((mode & S_IFMT) != S_IFSOCK)
		return false;
	sk = read_pointer(file->private_data + bpf_core_field_offset(struct socket, sk));
	if (read_half(sk + bpf_core_field_offset(struct sock, sk_protocol)) != IPPROTO_TCP)
		return false;
	return read_word(sk + bpf_core_field_offset(struct tcp_sock, rcv_nxt)) !=
	       read_word(sk + bpf_core_field_offset(struct tcp_sock, copied_seq));
}

/* The one file that the instance has ready; of several none is told. */
static __always_inline void note_ready(struct cpu_state *cpu, struct thread_state *state)
{
	u64 list = state->epoll + bpf_core_field_offset(struct eventpoll, rdllist);
	u64 link = read_pointer(list);
	u64 item, file;
	u32 asked;

	if (link == list || link != read_pointer(list + sizeof(link)))
		return;
	item = link - bpf_core_field_offset(struct epitem, rdllink);
	if (read_pointer(item + bpf_core_field_offset(struct epitem, ep)) != state->epoll)
		return;
	file = read_pointer(item + bpf_core_field_offset(struct epitem, ffd.file));
	if (!file)
		return;
	state->ended = resolve_file(cpu, &state->ready, (struct file *)file);
	asked = asks(read_word(item + bpf_core_field_offset(struct epitem, event.events)));
	if (asked == (FLAG_INPUT | FLAG_OUTPUT) && has_input(&state->ready))
		asked = FLAG_INPUT;
	state->told = FLAG_ENDED | asked;
}

#endif
