/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The record of a cycle: what is known when a thread comes back on a CPU, in the smallest form that
 * holds it. Nothing here changes what the thread is; sched.bpf.h does.
 */
#ifndef LACUNA_CYCLE_H
#define LACUNA_CYCLE_H

/* A queue of this length is worth knowing who ran (rule 21). */
#define BLAME_WAIT_NS 50000
/* What is known at a switch-in. */
struct arrival {
	u64 now;
	u64 clock;   /* the run queue's clock of `now` */
	u64 queued;  /* on that clock; 0 unknown */
	u64 off_ns;
	u64 throttle_ns;
	u64 stack;
	u64 uncovered_ns;
	u64 runs;    /* how often the thread had come on a CPU before */
	u32 from_idle;
	u32 exact;  /* the throttled part came first, in one piece */
	u32 net;    /* a net record was made for this cycle */
};

static __always_inline u64 enqueued_at(struct arrival *in)
{
	if (!in->queued || in->queued > in->clock)
		return 0;
	return in->now - (in->clock - in->queued);
}

/* When it began to wait for a CPU; a thread that was woken, at its enqueue. */
static __always_inline u64 wait_began(struct thread_state *state, struct arrival *in)
{
	return state->flags & THREAD_RUNNABLE ? state->out : enqueued_at(in);
}

static __always_inline u32 cycle_flags(struct thread_state *state, struct arrival *in)
{
	u32 flags = state->told;

	if (state->flags & THREAD_RUNNABLE)
		flags |= FLAG_RUNNABLE;
	if (state->flags & THREAD_IOWAIT)
		flags |= FLAG_IOWAIT;
	if (state->flags & THREAD_FROZEN)
		flags |= FLAG_FROZEN;
	if (in->from_idle)
		flags |= FLAG_FROM_IDLE;
	if (in->net)
		flags |= FLAG_NET;
	return flags;
}

static __always_inline void fill_times(struct record_times *times, struct thread_state *state,
				       struct arrival *in)
{
	times->seq = state->seq;
	times->end = in->now;
	times->prev_in = state->last_in;
	times->out = state->out;
	times->waking = state->waking;
	times->enqueued = enqueued_at(in);
	times->waker = state->waker;
}

static __always_inline void fill_brief(struct record_brief *brief, struct thread_state *state,
				       struct task_struct *task)
{
	brief->minor = task->min_flt - state->minor;
	brief->major = task->maj_flt - state->major;
	brief->detour_seq = state->detour_seq;
}

static __always_inline void fill_changes(struct record_changes *changes,
					 struct thread_state *state, struct task_struct *task)
{
	changes->minor = task->min_flt - state->minor;
	changes->major = task->maj_flt - state->major;
	changes->detour_seq = state->detour_seq;
	__builtin_memcpy(changes->short_ns, state->short_ns, sizeof(changes->short_ns));
}

/* The record carries the changes up to here; the next one starts from zero. */
static __always_inline void changes_told(struct thread_state *state, struct task_struct *task)
{
	state->minor = task->min_flt;
	state->major = task->maj_flt;
	__builtin_memset(state->short_ns, 0, sizeof(state->short_ns));
}

static __always_inline void emit_queued(struct cpu_state *cpu, struct thread_state *state,
					struct task_struct *task, struct arrival *in)
{
	struct queued_record *record = reserve(cpu, sizeof(*record));

	if (!record)
		return;
	fill_header(&record->header, RECORD_QUEUED, state->id);
	record->header.flags = cycle_flags(state, in);
	fill_times(&record->times, state, in);
	fill_brief(&record->brief, state, task);
	submit(cpu, record);
}

static __always_inline void emit_wait(struct cpu_state *cpu, struct thread_state *state,
				      struct task_struct *task, struct arrival *in)
{
	struct wait_record *record = reserve(cpu, sizeof(*record));

	if (!record)
		return;
	fill_header(&record->header, RECORD_WAIT, state->id);
	record->header.flags = cycle_flags(state, in);
	fill_times(&record->times, state, in);
	record->wait = state->wait;
	fill_brief(&record->brief, state, task);
	submit(cpu, record);
}

/*
 * A limit denied the CPU at a place that is not known, and the CPU was idle in the end: user space puts
 * the limit's part last, so before that it was behind others.
 */
static __always_inline bool limited_last(struct arrival *in)
{
	return in->from_idle && in->throttle_ns && !in->exact;
}

/* Since when it is worth telling who ran instead: from the enqueue, or from when the limit let go. */
static __always_inline u64 blame_from(struct arrival *in)
{
	/* The run queue's clock of switch-out may be a little older than its instant. */
	u64 from = in->clock - in->off_ns;

	if ((in->from_idle && !limited_last(in)) || !in->queued)
		return in->clock;
	if (in->queued > from)
		from = in->queued;
	if (in->throttle_ns && in->exact)
		from += in->throttle_ns;
	return from;
}

static __noinline int fill_long(struct long_record *record, struct thread_state *state,
				struct task_struct *task, struct arrival *in)
{
	record->header.flags = cycle_flags(state, in);
	fill_times(&record->times, state, in);
	record->wait = state->wait;
	fill_changes(&record->changes, state, task);
	record->stack = in->stack;
	record->migrated_ns = state->migrated_ns;
	record->migrated_at = state->migrated_at;
	record->throttle_ns = in->throttle_ns;
	record->throttle_until =
		in->throttle_ns && in->exact ? wait_began(state, in) + in->throttle_ns : 0;
	record->throttle_cgroup = state->throttle.cgroup;
	if (!has_queue_clock())
		record->header.flags |= FLAG_ESTIMATED;
	record->uncovered_ns = in->uncovered_ns;
	return 0;
}

static __always_inline void emit_plain(struct cpu_state *cpu, struct thread_state *state,
				       struct task_struct *task, struct arrival *in, bool slices)
{
	struct long_record *record = reserve(cpu, sizeof(*record));

	if (!record)
		return;
	fill_header(&record->header, RECORD_LONG, state->id);
	fill_long(record, state, task, in);
	__builtin_memset(record->slices, 0, sizeof(record->slices));
	if (slices)
		__builtin_memcpy(record->slices, cpu->slices, sizeof(record->slices));
	submit(cpu, record);
}

static __noinline int emit_crowded(struct cpu_state *cpu, struct thread_state *state,
				   struct task_struct *task, struct arrival *in)
{
	struct crowded_record *record = reserve(cpu, sizeof(*record));

	if (!record)
		return 0;
	fill_header(&record->base.header, RECORD_CROWDED, state->id);
	fill_long(&record->base, state, task, in);
	__builtin_memcpy(record->base.slices, cpu->slices, sizeof(record->base.slices));
	__builtin_memcpy(record->more, cpu->slices + SLICES, sizeof(record->more));
	submit(cpu, record);
	return 0;
}

static __noinline int emit_long(struct cpu_state *cpu, struct thread_state *state,
				struct task_struct *task, struct arrival *in)
{
	u64 from = blame_from(in);
	u64 told = in->clock - (limited_last(in) ? in->throttle_ns : 0);

	if (from + BLAME_WAIT_NS > told) {
		emit_plain(cpu, state, task, in, false);
		return 0;
	}
	told = who_ran(0, SLICES, from, told);
	if (told <= from) {
		emit_plain(cpu, state, task, in, true);
		return 0;
	}
	in->uncovered_ns = who_ran(SLICES, OCCUPANCY_WALK, from, told) - from;
	emit_crowded(cpu, state, task, in);
	return 0;
}

static __always_inline bool is_long(struct thread_state *state, struct task_struct *task,
				    struct arrival *in)
{
	u64 minor = task->min_flt - state->minor;

	if (in->stack || in->throttle_ns || state->migrated_at || minor > 0xffff)
		return true;
	if (state->short_ns[0] | state->short_ns[1] | state->short_ns[2])
		return true;
	if (state->wait.detours[0]) /* a short record would say that none is open */
		return true;
	return in->queued && in->clock - in->queued >= BLAME_WAIT_NS;
}

static __always_inline void emit_cycle(struct cpu_state *cpu, struct thread_state *state,
				       struct task_struct *task, struct arrival *in, bool unseen)
{
	state->seq++;
	if (!unseen) /* there the stack has no room for it: the caller has done it */
		in->net = tell_connection(cpu, state, state->seq);
	if (is_long(state, task, in))
		emit_long(cpu, state, task, in);
	else if (state->flags & THREAD_RUNNABLE)
		emit_queued(cpu, state, task, in);
	else
		emit_wait(cpu, state, task, in);
	changes_told(state, task);
}

#endif
