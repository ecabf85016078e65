/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Why a thread leaves the CPU, read while it is still the current one (rules 17 and 19).
 *
 * Only for threads that block: a preempted thread waits for nothing.
 */
#ifndef LACUNA_WAIT_H
#define LACUNA_WAIT_H

/* restart_syscall hides what was interrupted; its restart block knows. */
static __always_inline void unmask_restart(struct task_struct *task, struct record_wait *wait)
{
	u64 function = (u64)BPF_CORE_READ(task, restart_block.fn);

	if (!function)
		return;
	if (function == config.restart_futex) {
		wait->call = config.call_futex;
		wait->args[0] = (u64)BPF_CORE_READ(task, restart_block.futex.uaddr);
		wait->args[1] = FUTEX_OP_WAIT;
		wait->args[2] = BPF_CORE_READ(task, restart_block.futex.val);
	} else if (function == config.restart_sleep) {
		wait->call = config.call_sleep;
		wait->args[0] = BPF_CORE_READ(task, restart_block.nanosleep.clockid);
	} else if (function == config.restart_poll) {
		wait->call = config.call_poll;
		wait->args[0] = (u64)BPF_CORE_READ(task, restart_block.poll.ufds);
		wait->args[1] = BPF_CORE_READ(task, restart_block.poll.nfds);
	}
}

static __always_inline u32 class_of(u32 call)
{
	return call < CALLS_MAX ? call_class[call] : CALL_PLAIN;
}

static __always_inline void read_objects(struct cpu_state *cpu, struct thread_state *state,
					 struct task_struct *task, u32 class)
{
	struct record_wait *wait = &state->wait;
	bool ring = class == CALL_RING, registered;
	s32 fd;

	if (class == CALL_CONNECT)
		state->resolved.object = 0;
	if (class == CALL_FUTEX) {
		read_futex(wait, wait->args[0], wait->args[1], wait->args[2]);
		wait->args[0] = hash(wait->args[0], task->tgid);
	} else if (class == CALL_FUTEX_WAIT) {
		wait->futex = FUTEX_UNOWNED;
		wait->args[0] = hash(wait->args[0], task->tgid);
	} else {
		fd = descriptor_of(state, class);
		registered = ring && wait->args[3] & IORING_ENTER_REGISTERED_RING;
		if (fd >= 0)
			wait->object = resolve(cpu, state, task, fd, registered);
		if ((class == CALL_EPOLL || ring) && wait->object && wait->state & TASK_INTERRUPTIBLE) {
			state->epoll = state->resolved.private_data;
			barrier(); /* a waking that sees the other sees this */
			state->asked = ring ? FLAG_ENDED | ASKED_RING : FLAG_ENDED;
		}
	}
}

static __always_inline void read_wait(struct cpu_state *cpu, struct thread_state *state,
				      struct task_struct *task)
{
	struct record_wait *wait = &state->wait;
	struct registers saved;
	u32 class;

	wait->object = 0;
	wait->owner = 0;
	wait->futex = FUTEX_NONE;
	state->awaited.sock = 0;
	if (is_kernel_thread(task)) {
		wait->entry = ENTRY_KERNEL;
		return;
	}
	saved_registers(cpu, task, &saved);
	if (saved.call < 0) {
		wait->entry = ENTRY_FAULT;
		return;
	}
	wait->call = saved.call;
	__builtin_memcpy(wait->args, saved.args, sizeof(wait->args));
	if (in_compat_call(task)) {
		wait->entry = ENTRY_COMPAT;
		return;
	}
	wait->entry = ENTRY_CALL;
	class = class_of(wait->call);
	if (class == CALL_RESTART) {
		unmask_restart(task, wait);
		class = class_of(wait->call);
	}
	if (class != CALL_PLAIN)
		read_objects(cpu, state, task, class);
}

#endif
