/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The scheduler: one record for each stretch off the CPU, written when the thread comes back.
 *
 * sched_switch runs with interrupts off on the CPU that switches, in the context of the thread that
 * leaves; sched_waking runs under the wakee's pi_lock on the waker's CPU, so it may run while its
 * wakee is being switched. Every write to a thread's state but `waking` and `waker` is made by the
 * CPU that the thread leaves or enters.
 */
#ifndef LACUNA_SCHED_H
#define LACUNA_SCHED_H

/* A queue of this length is worth knowing who ran (rule 21). */
#define BLAME_WAIT_NS 50000
/* A cycle that may be merged is off the CPU for less, and its stretch is shorter than the other. */
#define MERGE_OFF_NS 10000
#define MERGE_STRETCH_NS 1000000

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
	u32 unseen; /* found out afterwards: its own switch was not traced */
};

static __always_inline u64 enqueued_at(struct arrival *in)
{
	if (!in->queued || in->queued > in->clock)
		return 0;
	return in->now - (in->clock - in->queued);
}

static __always_inline u32 cycle_flags(struct thread_state *state, struct arrival *in)
{
	u32 flags = 0;

	if (state->flags & THREAD_RUNNABLE)
		flags |= FLAG_RUNNABLE;
	if (state->flags & THREAD_IOWAIT)
		flags |= FLAG_IOWAIT;
	if (state->flags & THREAD_FROZEN)
		flags |= FLAG_FROZEN;
	if (in->from_idle)
		flags |= FLAG_FROM_IDLE;
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

/* Since when it is worth telling who ran instead: from the enqueue, or from when the limit let go. */
static __always_inline u64 blame_from(struct arrival *in)
{
	/* The run queue's clock of switch-out may be a little older than its instant. */
	u64 from = in->clock - in->off_ns;

	if (in->throttle_ns && in->exact)
		from += in->throttle_ns;
	if (in->from_idle || !in->queued)
		return in->clock;
	return in->queued > from ? in->queued : from;
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
	record->throttle_until = in->throttle_ns && in->exact ? state->out + in->throttle_ns : 0;
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
	u64 told = in->clock;

	if (from + BLAME_WAIT_NS > in->clock) {
		emit_plain(cpu, state, task, in, false);
		return 0;
	}
	told = who_ran(cpu, 0, SLICES, from, told);
	if (told <= from) {
		emit_plain(cpu, state, task, in, true);
		return 0;
	}
	in->uncovered_ns = who_ran(cpu, SLICES, OCCUPANCY_WALK, from, told) - from;
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
	return in->queued && in->clock - in->queued >= BLAME_WAIT_NS;
}

static __always_inline void emit_cycle(struct cpu_state *cpu, struct thread_state *state,
				       struct task_struct *task, struct arrival *in)
{
	state->seq++;
	if (is_long(state, task, in))
		emit_long(cpu, state, task, in);
	else if (state->flags & THREAD_RUNNABLE)
		emit_queued(cpu, state, task, in);
	else
		emit_wait(cpu, state, task, in);
	changes_told(state, task);
}

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

/* Whether the cycle went into the sums (rule 11). Whatever does not fit flushes them first. */
static __noinline bool merge(struct cpu_state *cpu, struct thread_state *state,
			     struct task_struct *task, struct arrival *in)
{
	struct merged_state *merged = &state->merged;
	u32 flags = cycle_flags(state, in);
	bool fits = control.merge_short && state->last_in && in->off_ns < MERGE_OFF_NS &&
		    !is_long(state, task, in);

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

static __always_inline void end_cycle(struct cpu_state *cpu, struct thread_state *state,
				      struct task_struct *task, struct arrival *in)
{
	in->off_ns = in->now - state->out;
	if (state->flags & THREAD_THROTTLED) {
		bool exact = false;

		in->throttle_ns = throttle_in(state, task, in->off_ns, &exact);
		in->exact = exact;
	}
	if (!in->unseen && wants_stack(state, in->off_ns))
		in->stack = take_stack(cpu, task);
	if ((control.merge_short || state->merged.count) && merge(cpu, state, task, in))
		return;
	emit_cycle(cpu, state, task, in);
}

/* The first switch-in that is recorded, or another thread pointer: tell who this is. */
static __always_inline void introduce(struct cpu_state *cpu, struct thread_state *state,
				      struct task_struct *task, u64 now)
{
	u64 pointer = thread_pointer(task);

	if (state->flags & THREAD_SINCE && state->flags & THREAD_ANNOUNCED &&
	    pointer == state->fs_base)
		return;
	state->fs_base = pointer;
	if (!state->since)
		state->since = state->out ? state->out : now;
	state->flags |= THREAD_SINCE;
	announce(cpu, state, task, NULL);
}

static __noinline int come_in(struct cpu_state *cpu, struct thread_state *state,
			      struct task_struct *task, struct arrival *in)
{
	introduce(cpu, state, task, in->now);
	if (state->out && state->runs == in->runs)
		end_cycle(cpu, state, task, in);
	else if (state->out || state->last_in)
		state->seq++; /* some switch of it was not seen: a hole says so */
	state->last_in = in->now;
	state->out = 0;
	state->waking = 0;
	state->waker = ID_UNKNOWN;
	state->migrated_at = 0;
	state->migrated_ns = 0;
	state->flags &= ~THREAD_THROTTLED;
	return 0;
}

static __always_inline void save_open_detours(struct record_wait *wait, struct thread_state *state)
{
	for (u32 i = 0; i < OPEN_DETOURS; i++)
		wait->detours[i] = i < state->detour_depth ? state->detours[i].kind : DETOUR_NONE;
}

static __noinline int emit_exit(struct cpu_state *cpu, struct thread_state *state,
				struct task_struct *task, u64 now)
{
	struct exit_record *record;

	if (state->merged.count)
		flush_merged(cpu, state, task);
	state->seq++;
	if (config.drop_exits) {
		cpu->ring_drops++;
		return 0;
	}
	record = reserve(cpu, sizeof(*record));
	if (!record)
		return 0;
	fill_header(&record->header, RECORD_EXIT, state->id);
	record->seq = state->seq;
	record->prev_in = state->last_in;
	record->at = now;
	fill_changes(&record->changes, state, task);
	submit(cpu, record);
	return 0;
}

static __always_inline void leave_flags(struct thread_state *state, struct task_struct *task,
					bool runnable)
{
	u32 flags = state->flags & ~(THREAD_RUNNABLE | THREAD_IOWAIT | THREAD_FROZEN);

	if (runnable)
		flags |= THREAD_RUNNABLE;
	else if (BPF_CORE_READ_BITFIELD(task, in_iowait))
		flags |= THREAD_IOWAIT;
	state->flags = flags;
}

static __always_inline void go_out(struct cpu_state *cpu, struct thread_state *state,
				   struct task_struct *task, bool preempt, u32 task_state, u64 now)
{
	bool runnable = preempt || !task_state;

	if (task_state & TASK_DEAD) {
		emit_exit(cpu, state, task, now);
		return;
	}
	leave_flags(state, task, runnable);
	state->wait.state = task_state;
	save_open_detours(&state->wait, state);
	if (!runnable)
		read_wait(cpu, state, task);
	else if (has_throttled_mark() ? task->throttled : has_bandwidth())
		throttle_out(state, task);
	if (task_state & TASK_INTERRUPTIBLE && task_frozen(task))
		state->flags |= THREAD_FROZEN;
	state->run_delay = task->sched_info.run_delay;
	state->runs = task->sched_info.pcount;
	barrier();
	state->out = now; /* last: the iterator takes it for a sign that the rest is there */
}

/*
 * The thread that leaves is not the one that we saw come: the switch between was skipped, or was not
 * traced at all, which some kernels do for a few threads. The kernel's own account of it tells when it
 * came and how long it had been queued, provided that it came once only since we saw it leave.
 */
static __noinline int arrived_unseen(struct cpu_state *cpu, struct thread_state *state,
				     struct task_struct *task, struct arrival *out)
{
	struct arrival in = {.unseen = 1};
	u64 waited = task->sched_info.run_delay - state->run_delay - state->migrated_ns;

	in.clock = task->sched_info.last_arrival;
	in.now = out->now - (out->clock - in.clock);
	in.queued = in.clock - waited;
	in.runs = task->sched_info.pcount - 1;
	in.from_idle = cpu->thread == ID_IDLE;
	if (in.now <= state->out || in.clock > out->clock)
		in.runs = state->runs + 1; /* the clocks disagree: not to be believed */
	come_in(cpu, state, task, &in);
	if (in.runs != state->runs)
		state->last_in = 0;
	occupy(cpu, state->id, in.clock);
	return 0;
}

static __always_inline struct thread_state *leaving(struct cpu_state *cpu,
						     struct task_struct *task,
						     struct arrival *out)
{
	struct thread_state *state;

	if (cpu->task == (u64)task)
		return cpu->watched ? thread_known(task) : NULL;
	state = thread_known(task);
	if (!state || !(state->flags & THREAD_WATCHED) || !state->since)
		return NULL;
	arrived_unseen(cpu, state, task, out);
	return state;
}

static __always_inline void switched(bool preempt, struct task_struct *prev,
				     struct task_struct *next, u32 prev_state)
{
	struct arrival in = {};
	struct cpu_state *cpu = this_cpu();
	struct thread_state *entering = NULL, *state;
	bool watched = false;

	if (!cpu)
		return;
	if (next->pid) {
		entering = thread_of(cpu, next);
		watched = entering && is_watched(entering, next);
	}
	in.clock = queue_clock(next);
	/* The time costs as much as all else together: only where something is recorded. */
	if (watched || cpu->watched || cpu->task != (u64)prev) {
		in.now = bpf_ktime_get_ns();
		state = leaving(cpu, prev, &in);
		if (state)
			go_out(cpu, state, prev, preempt, prev_state, in.now);
	}
	cpu->task = (u64)next;
	cpu->watched = watched;
	cpu->thread = next->pid ? ID_UNKNOWN : ID_IDLE;
	if (entering) {
		cpu->thread = entering->id;
		in.queued = next->sched_info.last_queued;
		in.runs = next->sched_info.pcount;
		in.from_idle = prev->pid == 0;
		if (watched)
			come_in(cpu, entering, next, &in);
		else if (!(entering->flags & THREAD_ANNOUNCED))
			announce(cpu, entering, next, NULL);
	}
	occupy(cpu, cpu->thread, in.clock);
}

/*
 * Who is waking a thread now: in an interrupt nobody, whoever it runs on top of (rule 20). The
 * address of this CPU's preempt count follows from that of its run queue.
 */
static __always_inline u64 waker_now(struct cpu_state *cpu)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct cfs_rq *leaf = leaf_queue(current);
	struct thread_state *state;
	u32 count;

	if (!config.preempt_offset || !leaf)
		return current->pid ? ID_UNKNOWN : ID_IDLE;
	count = read_word((u64)leaf->rq - config.runqueues_offset + config.preempt_offset);
	if (count & HARDIRQ_OR_NMI)
		return ID_HARDIRQ;
	if (count & SOFTIRQ_SERVING)
		return ID_SOFTIRQ;
	if (!current->pid)
		return ID_IDLE;
	if (cpu->task == (u64)current)
		return cpu->thread;
	state = thread_known(current); /* its switch-in was not traced */
	return state ? state->id : ID_UNKNOWN;
}

static __always_inline bool injected_skip(struct cpu_state *cpu)
{
	cpu->wakings++;
	if (!config.skip_wakings_every || cpu->wakings % config.skip_wakings_every)
		return false;
	cpu->wakings_skipped++;
	return true;
}

static __always_inline void waking(struct task_struct *task)
{
	struct thread_state *state = thread_known(task);
	struct cpu_state *cpu;

	if (!state || !(state->flags & THREAD_WATCHED))
		return;
	cpu = this_cpu();
	if (!cpu || injected_skip(cpu))
		return;
	state->waker = waker_now(cpu);
	state->waking = bpf_ktime_get_ns();
}

/* A new thread starts runnable, woken by the thread that made it. Interrupts are off. */
static __always_inline void born(struct task_struct *task)
{
	struct cpu_state *cpu = this_cpu();
	struct thread_state *parent, *state;

	if (!cpu)
		return;
	parent = thread_known(bpf_get_current_task_btf());
	state = thread_of(cpu, task);
	if (!state)
		return;
	if (parent && parent->flags & THREAD_INHERITS)
		state->flags |= THREAD_INHERITS;
	if (is_watched(state, task)) {
		state->since = bpf_ktime_get_ns();
		state->waking = state->since;
		state->waker = waker_now(cpu);
		state->flags |= THREAD_RUNNABLE | THREAD_SINCE;
		state->run_delay = task->sched_info.run_delay;
		state->runs = task->sched_info.pcount;
		state->out = state->since;
	}
	announce(cpu, state, task, NULL);
}

/* The thread is moved to another CPU. A queued one was dequeued first, which closed its wait there. */
static __always_inline void migrated(struct task_struct *task, int cpu)
{
	struct thread_state *state = thread_known(task);
	u64 waited;

	if (!state || !state->out || !(state->flags & THREAD_WATCHED))
		return;
	if (state->flags & THREAD_THROTTLED)
		throttle_moved(state, task, cpu);
	waited = task->sched_info.run_delay - state->run_delay;
	if (!waited)
		return;
	state->migrated_ns = waited;
	state->migrated_at = bpf_ktime_get_ns();
}

#endif
