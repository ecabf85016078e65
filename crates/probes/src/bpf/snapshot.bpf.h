/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The task iterator: who exists, and what each thread has been doing since its last record. It makes
 * storage for threads that have not switched yet, so that every thread has an id and a name.
 *
 * It runs in the loader's context with interrupts on, beside the switch programs; a thread that
 * switches meanwhile is left out, because it is not silent.
 */
#ifndef LACUNA_SNAPSHOT_H
#define LACUNA_SNAPSHOT_H

/*
 * A switch program takes the time, then writes it down. What is read here is said of an instant
 * this much earlier, when any program that had taken the time was done with writing.
 */
#define IN_FLIGHT_NS 1000000

static __always_inline struct thread_state *snapshot_thread(struct task_struct *task)
{
	struct thread_state *state = thread_known(task);

	if (state || task->exit_state) /* it has ended: nobody would take its state back */
		return state;
	snapshot_ids++;
	snapshot_fresh.id = snapshot_ids << ID_CPU_BITS | ID_CPU_SNAPSHOT;
	snapshot_fresh.watch_generation = control.watch_generation - 1;
	snapshot_fresh.minor = task->min_flt;
	snapshot_fresh.major = task->maj_flt;
	state = thread_store(task, &snapshot_fresh, BPF_NOEXIST);
	return state ? state : thread_known(task);
}

static __always_inline void fill_snapshot(struct snapshot_record *record,
					  struct thread_state *state,
					  struct task_struct *task)
{
	record->at = bpf_ktime_get_ns() - IN_FLIGHT_NS;
	barrier();
	record->out = state->out;
	barrier();
	record->seq = state->seq;
	record->last_in = state->last_in;
	record->waking = state->waking;
	record->wait = state->wait;
	record->detour_seq = state->detour_seq;
	if (!record->out)
		save_open_detours(&record->wait, state);
	if (state->flags & THREAD_RUNNABLE)
		record->header.flags |= FLAG_RUNNABLE;
	if (state->flags & THREAD_IOWAIT)
		record->header.flags |= FLAG_IOWAIT;
	if (state->flags & THREAD_FROZEN)
		record->header.flags |= FLAG_FROZEN;
	if (task_queued(task))
		record->header.flags |= FLAG_QUEUED;
	barrier();
}

static __always_inline bool torn(struct snapshot_record *record, struct thread_state *state,
				 struct task_struct *task)
{
	return !still_its(state, task) || record->header.id != state->id ||
	       record->out != state->out || record->last_in != state->last_in ||
	       record->seq != state->seq;
}

/*
 * The thread did something that no program was told of (see arrived_unseen): it has come on a CPU
 * since it was seen to leave, or it was woken and waits in a queue. It is not silent, whatever its
 * state says.
 */
static __always_inline bool acted_unseen(struct snapshot_record *record,
					 struct thread_state *state, struct task_struct *task)
{
	if (!record->out)
		return false;
	if (task->sched_info.pcount != state->runs)
		return true;
	return record->header.flags & FLAG_QUEUED && !(record->header.flags & FLAG_RUNNABLE) &&
	       !record->waking;
}

/*
 * A thread that was never seen to switch left its CPU before anybody looked, so what it waits for is not
 * known. But off the CPU it is, from when it was first found in no queue until it comes back, which the
 * kernel counts: without this every span of a process that was there before us could be such a thread's.
 */
static __always_inline bool asleep(struct snapshot_record *record, struct thread_state *state,
				   struct task_struct *task)
{
	u64 until = bpf_ktime_get_ns() - IN_FLIGHT_NS;
	u64 runs;

	barrier();
	runs = task->sched_info.pcount;
	barrier();
	if (task_queued(task)) {
		state->asleep_since = 0;
		return false;
	}
	if (!state->asleep_since || state->runs != runs) {
		state->runs = runs;
		state->asleep_since = bpf_ktime_get_ns();
		return false;
	}
	record->header.flags |= FLAG_ASLEEP;
	record->out = state->asleep_since;
	record->at = until;
	return record->out < record->at;
}

static __always_inline void snapshot(struct seq_file *seq, struct task_struct *task)
{
	struct snapshot_record record = {};
	struct thread_record who = {};
	struct thread_state *state;

	if (!task->pid)
		return;
	state = snapshot_thread(task);
	if (!state)
		return;
	if (!(state->flags & THREAD_ANNOUNCED)) {
		describe(&who, state, task);
		if (still_its(state, task))
			bpf_seq_write(seq, &who, sizeof(who));
	}
	fill_header(&record.header, RECORD_SNAPSHOT, state->id);
	if (!state->last_in && !state->out) {
		if (asleep(&record, state, task) && !state->last_in && !state->out &&
		    still_its(state, task))
			bpf_seq_write(seq, &record, sizeof(record));
		return;
	}
	if (!(state->flags & THREAD_WATCHED))
		return;
	fill_snapshot(&record, state, task);
	if (record.last_in > record.at || record.out > record.at)
		return;
	if (acted_unseen(&record, state, task))
		return;
	if (!torn(&record, state, task))
		bpf_seq_write(seq, &record, sizeof(record));
}

#endif
