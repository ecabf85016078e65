/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Short cycles of one kind as sums (rule 11), for a host that switches more than it may record.
 * Sums have no position, so only what needs none is merged: no stack, no limit, no migration.
 */
#ifndef LACUNA_MERGE_H
#define LACUNA_MERGE_H

/* A cycle that may be merged is off the CPU for less, and its stretch is shorter than the other. */
#define MERGE_OFF_NS 10000
#define MERGE_STRETCH_NS 1000000

static __noinline int flush_merged(struct cpu_state *cpu, struct thread_state *state,
				   struct task_struct *task)
{
	struct merged_state *merged = &state->merged;
	struct merged_record *record;

	state->seq++;
	record = reserve(cpu, sizeof(*record));
	if (record) {
		fill_header(&record->header, RECORD_MERGED, state->id);
		record->header.flags = merged->flags;
		record->seq = state->seq;
		record->prev_in = merged->start;
		record->end = merged->end;
		record->running_ns = merged->running_ns;
		record->runnable_ns = merged->runnable_ns;
		record->idle_wake_ns = merged->idle_wake_ns;
		record->blocked_ns = merged->blocked_ns;
		record->wait = merged->wait;
		fill_changes(&record->changes, state, task);
		record->count = merged->count;
		record->unused = 0;
		submit(cpu, record);
	}
	changes_told(state, task);
	__builtin_memset(merged, 0, sizeof(*merged));
	return 0;
}

static __always_inline bool same_kind(struct thread_state *state, u32 flags)
{
	struct record_wait *a = &state->wait, *b = &state->merged.wait;

	if (((flags ^ state->merged.flags) & ~FLAG_FROM_IDLE) != 0)
		return false;
	if (flags & FLAG_RUNNABLE)
		return true;
	return a->call == b->call && a->entry == b->entry && a->object == b->object &&
	       a->args[0] == b->args[0] && a->state == b->state;
}

/* Adds the cycle to the sums, split as the account would split it. */
static __always_inline void add_merged(struct thread_state *state, struct arrival *in)
{
	struct merged_state *merged = &state->merged;
	u64 wake = state->waking, enqueued = enqueued_at(in);

	if (state->flags & THREAD_RUNNABLE || !wake || wake < state->out)
		wake = state->out;
	if (enqueued < wake)
		enqueued = wake;
	if (in->from_idle && !(state->flags & THREAD_RUNNABLE))
		enqueued = in->now;
	merged->running_ns += state->out - state->last_in;
	merged->blocked_ns += wake - state->out;
	merged->idle_wake_ns += enqueued - wake;
	merged->runnable_ns += in->now - enqueued;
	merged->end = in->now;
	merged->count++;
}

/*
 * A poll that a timer may have ended: sums say nothing of wakers, so in them it would pass for one that
 * its descriptor ended.
 */
static __always_inline bool may_have_timed_out(struct thread_state *state)
{
	return state->told & FLAG_SOLE && state->waker < ID_THREADS &&
	       state->waker != ID_SOFTIRQ;
}

/* Whether the cycle went into the sums (rule 11). Whatever does not fit flushes them first. */
static __noinline bool merge(struct cpu_state *cpu, struct thread_state *state,
			     struct task_struct *task, struct arrival *in)
{
	struct merged_state *merged = &state->merged;
	u32 flags = cycle_flags(state, in);
	bool fits = control.merge_short && state->last_in && in->off_ns < MERGE_OFF_NS &&
		    !is_long(state, task, in) && !may_have_timed_out(state);

	if (merged->count && (!fits || !same_kind(state, flags) ||
			      in->now - merged->start >= MERGE_STRETCH_NS))
		flush_merged(cpu, state, task);
	if (!fits || in->now - state->last_in >= MERGE_STRETCH_NS)
		return false;
	if (!merged->count) {
		merged->start = state->last_in;
		merged->flags = flags & ~FLAG_FROM_IDLE;
		merged->wait = state->wait;
	}
	add_merged(state, in);
	return true;
}

#endif
