/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Where the state of a thread is kept: with its task, or in a table where the kernel cannot do that
 * (has_task_storage). Nothing else knows which.
 *
 * The table is keyed by the task's address, because nothing else stays the same: an exec by another
 * thread than the leader takes over the leader's tid and start time. What makes that right:
 *
 * - A thread's last act is its TASK_DEAD switch-out, and there its entry is given back. After it no
 *   program writes to the entry: it is never switched again, its state matches no waking (both are
 *   decided under its pi_lock), and it is not migrated.
 * - An address that is used again starts with a new entry, because every new thread comes through
 *   sched_wakeup_new, which replaces whatever is there.
 * - Two programs look at threads that they do not stop: the iterator and the renaming of another
 *   thread. They write nothing, and ask `still_its` once they have read: a given-back entry belongs to
 *   nobody, a reused one to another task. The address itself cannot be reused meanwhile, because both
 *   hold the task.
 * - At the limit there is no entry: the thread is unknown and each attempt is counted.
 */
#ifndef LACUNA_STORE_H
#define LACUNA_STORE_H

static __always_inline struct thread_state *thread_known(struct task_struct *task)
{
	u64 key = (u64)task;

	if (has_task_storage())
		return bpf_task_storage_get(&threads, task, 0, 0);
	return bpf_map_lookup_elem(&thread_table, &key);
}

/* The state of a thread that has none, from `fresh`. NULL: there is no room. */
static __always_inline struct thread_state *thread_store(struct task_struct *task,
							  struct thread_state *fresh, u64 how)
{
	u64 key = (u64)task;

	fresh->task = key;
	if (has_task_storage())
		return bpf_task_storage_get(&threads, task, fresh,
					    BPF_LOCAL_STORAGE_GET_F_CREATE);
	bpf_map_update_elem(&thread_table, &key, fresh, how);
	return bpf_map_lookup_elem(&thread_table, &key);
}

/* The thread has left its CPU in this state. With its task goes what is kept with the task. */
static __always_inline void thread_left(struct task_struct *task, u32 task_state)
{
	u64 key = (u64)task;
	struct thread_state *state;

	if (has_task_storage() || !(task_state & TASK_DEAD))
		return;
	state = bpf_map_lookup_elem(&thread_table, &key);
	if (!state)
		return;
	state->task = 0;
	bpf_map_delete_elem(&thread_table, &key);
}

/* Whether what was read of the state until now was this task's. */
static __always_inline bool still_its(struct thread_state *state, struct task_struct *task)
{
	barrier();
	return has_task_storage() || state->task == (u64)task;
}

#endif
