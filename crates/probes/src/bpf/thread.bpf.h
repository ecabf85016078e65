/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Who a thread is: our own id for it, whether it is watched, and the record that names it.
 *
 * Ids are a per-CPU counter and the CPU's number, so storage is made only where interrupts are off
 * (sched_switch, sched_wakeup_new); the iterator has a counter and a CPU number of its own.
 */
#ifndef LACUNA_THREAD_H
#define LACUNA_THREAD_H

#define ID_CPU_BITS 12
#define ID_CPU_SNAPSHOT 0xfff

#define PF_OF_THE_KERNEL (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER)

static __always_inline bool is_kernel_thread(struct task_struct *task)
{
	return task->flags & PF_OF_THE_KERNEL;
}

static __always_inline u32 ns_number(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	struct upid upid = {};

	if (!pid)
		return 0;
	bpf_probe_read_kernel(&upid, sizeof(upid), &pid->numbers[pid->level]);
	return upid.nr;
}

static __always_inline void describe(struct thread_record *record, struct thread_state *state,
				     struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	fill_header(&record->header, RECORD_THREAD, state->id);
	if (is_kernel_thread(task))
		record->header.flags = FLAG_KERNEL;
	record->process_start = leader->start_time;
	record->start = task->start_time;
	record->since = state->since;
	record->cgroup = task->cgroups->dfl_cgrp->kn->id;
	record->fs_base = state->fs_base;
	record->tid = task->pid;
	record->tgid = task->tgid;
	record->ns_tid = ns_number(task);
	record->ns_tgid = ns_number(leader);
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), task->comm);
}

/*
 * Sends who the thread is; `comm` where the new name is not in the task yet. Whether it could: who calls
 * it for a thread that it has in hand notes that.
 */
static __noinline bool announce(struct cpu_state *cpu, struct thread_state *state,
			       struct task_struct *task, const char *comm)
{
	struct thread_record *record = reserve(cpu, sizeof(*record));

	if (!record)
		return false;
	describe(record, state, task);
	if (!still_its(state, task)) {
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return false;
	}
	if (comm) {
		__builtin_memset(record->comm, 0, sizeof(record->comm));
		bpf_probe_read_kernel_str(record->comm, sizeof(record->comm), comm);
	}
	submit(cpu, record);
	return true;
}

/* The same for a thread whose state nobody else may be writing to. */
static __always_inline void announce_own(struct cpu_state *cpu, struct thread_state *state,
					 struct task_struct *task)
{
	if (announce(cpu, state, task, NULL))
		state->flags |= THREAD_ANNOUNCED;
}

/* Only where interrupts are off. What is there already is replaced where the table can hold it. */
static __noinline struct thread_state *thread_new(struct cpu_state *cpu, struct task_struct *task)
{
	struct thread_state *state;

	cpu->ids++;
	cpu->fresh.id = cpu->ids << ID_CPU_BITS | (bpf_get_smp_processor_id() & ID_CPU_SNAPSHOT);
	cpu->fresh.watch_generation = control.watch_generation - 1;
	cpu->fresh.minor = task->min_flt;
	cpu->fresh.major = task->maj_flt;
	cpu->fresh.fs_base = thread_pointer(task);
	state = thread_store(task, &cpu->fresh, BPF_ANY);
	if (!state) /* the iterator may just have made it */
		state = thread_known(task);
	if (!state)
		cpu->storage_failures++;
	return state;
}

static __always_inline struct thread_state *thread_of(struct cpu_state *cpu,
						       struct task_struct *task)
{
	struct thread_state *state = thread_known(task);

	return state ? state : thread_new(cpu, task);
}

/* Decides anew, after the selection has changed. A thread that comes back starts a new chain. */
static __noinline int rewatch(struct thread_state *state, struct task_struct *task)
{
	u32 tgid = task->tgid;
	u32 *process = bpf_map_lookup_elem(&watched_processes, &tgid);
	bool was = state->flags & THREAD_WATCHED;

	state->watch_generation = control.watch_generation;
	if (process && *process & WATCH_DESCENDANTS)
		state->flags |= THREAD_INHERITS;
	state->flags &= ~THREAD_WATCHED;
	if (tgid == config.ignore_tgid)
		return 0;
	if (!control.watch_all && !process && !(state->flags & THREAD_INHERITS))
		return 0;
	state->flags |= THREAD_WATCHED;
	if (!was) {
		state->last_in = 0;
		state->out = 0;
		state->detour_depth = 0; /* their ends may have gone by unwatched */
		state->seq += state->since ? 1 : 0;
	}
	return 0;
}

static __always_inline bool is_watched(struct thread_state *state, struct task_struct *task)
{
	if (state->watch_generation != control.watch_generation)
		rewatch(state, task);
	return state->flags & THREAD_WATCHED;
}

#endif
