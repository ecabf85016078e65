/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Kernel stacks of waits (rule 18), taken from the incoming task while it is still off the CPU, when
 * the length of its wait is known. Each stack is sent once, named by the hash of its frames.
 */
#ifndef LACUNA_STACK_H
#define LACUNA_STACK_H

/* Waits of any other kind get a stack from this length on. */
#define STACK_WAIT_NS 1000000
/* TASK_NOLOAD: an idle kernel thread waits uninterruptibly in name only. */
#define TASK_NOLOAD 0x400

static __always_inline bool wants_stack(struct thread_state *state, u64 off_ns)
{
	if (state->flags & THREAD_RUNNABLE)
		return false;
	if (off_ns >= STACK_WAIT_NS || state->flags & THREAD_IOWAIT)
		return true;
	if (state->wait.entry == ENTRY_FAULT)
		return true;
	return (state->wait.state & (TASK_UNINTERRUPTIBLE | TASK_NOLOAD)) == TASK_UNINTERRUPTIBLE;
}

static __noinline int send_stack(struct cpu_state *cpu, u64 id, u64 *entry)
{
	struct stack_record *record = reserve(cpu, sizeof(*record));

	if (!record)
		return 0;
	fill_header(&record->header, RECORD_STACK, id);
	__builtin_memcpy(record->frames, cpu->frames, sizeof(record->frames));
	submit(cpu, record);
	mark_seen(entry, id);
	return 0;
}

static __noinline u64 take_stack(struct cpu_state *cpu, struct task_struct *task)
{
	u64 id = 0, *entry;
	long bytes;

	__builtin_memset(cpu->frames, 0, sizeof(cpu->frames));
	bytes = bpf_get_task_stack(task, cpu->frames, sizeof(cpu->frames), 0);
	if (bytes <= 0)
		return 0;
	for (int i = 0; i < STACK_FRAMES; i++)
		id = (id ^ (id >> 31) ^ cpu->frames[i]) * 0x9e3779b97f4a7c15ULL;
	id = hash(id, STACK_FRAMES);
	entry = unseen(id);
	if (entry)
		send_stack(cpu, id, entry);
	return id;
}

#endif
