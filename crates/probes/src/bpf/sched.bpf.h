/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The scheduler: one record for each stretch off the CPU, written when the thread comes back.
 *
 * sched_switch runs with interrupts off on the CPU that switches, in the context of the thread that
 * leaves; sched_waking runs under the wakee's pi_lock on the waker's CPU, so it may run while its
 * wakee is being switched. Every write to a thread's state is made by the CPU that the thread leaves or
 * enters, but for `waking`, `waker`, and what note_end writes.
 */
#ifndef LACUNA_SCHED_H
#define LACUNA_SCHED_H

/* Both waits, at switch-in: of a thread that left the CPU runnable, and of one that was woken. */
static __always_inline void throttle_cycle(struct thread_state *state, struct task_struct *task,
					   struct arrival *in)
{
	bool exact = false;

	if (state->flags & THREAD_THROTTLED) {
		in->throttle_ns = throttle_in(&state->throttle, task, in->off_ns, &exact);
	} else if (!has_throttled_mark() && state->woken.leaf && in->queued &&
		   in->queued < in->clock && !(state->flags & THREAD_RUNNABLE)) {
		state->woken.clock = in->queued;
		state->throttle.cgroup = state->woken.cgroup;
		in->throttle_ns = throttle_in(&state->woken, task, in->clock - in->queued, &exact);
	}
	in->exact = exact;
}

static __always_inline void end_cycle(struct cpu_state *cpu, struct thread_state *state,
				      struct task_struct *task, struct arrival *in, bool unseen)
{
	in->off_ns = in->now - state->out;
	if (state->told & FLAG_ENDED)
		state->wait.object = state->ended;
	throttle_cycle(state, task, in);
	if (!unseen && wants_stack(state, in->off_ns))
		in->stack = take_stack(cpu, task);
	if ((control.merge_short || state->merged.count) && merge(cpu, state, task, in))
		return;
	emit_cycle(cpu, state, task, in, unseen);
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
	announce_own(cpu, state, task);
}

/* `unseen`: found out afterwards, its own switch was not traced. Known to the compiler at each call. */
static __always_inline void come_in(struct cpu_state *cpu, struct thread_state *state,
				    struct task_struct *task, struct arrival *in, bool unseen)
{
	introduce(cpu, state, task, in->now);
	if (state->out && state->runs == in->runs)
		end_cycle(cpu, state, task, in, unseen);
	else if (state->out || state->last_in)
		state->seq++; /* some switch of it was not seen: a hole says so */
	state->last_in = in->now;
	state->out = 0;
	state->waking = 0;
	state->waker = ID_UNKNOWN;
	if (state->asked) {
		state->asked = 0;
		state->told = 0;
	}
	state->migrated_at = 0;
	state->migrated_ns = 0;
	state->flags &= ~THREAD_THROTTLED;
	state->woken.leaf = 0;
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
	if (!runnable) {
		read_wait(cpu, state, task);
		await_direct(cpu, state, now);
	} else if (has_throttled_mark() ? task->throttled : has_bandwidth()) {
		throttle_out(state, task);
	}
	if (task_state & TASK_INTERRUPTIBLE && task_frozen(task))
		state->flags |= THREAD_FROZEN;
	state->run_delay = task->sched_info.run_delay;
	state->runs = task->sched_info.pcount;
	barrier();
	state->out = now; /* last: the iterator takes it for a sign that the rest is there */
}

/*
 * The run queue's clock stands still between its updates, and a switch for a thread that was just
 * woken does without one. So it tells when that switch became due: it is behind where the thread before
 * was in a long stretch of the kernel without a place to switch (by up to a tick), and where a virtual
 * CPU lost its host meanwhile. The least difference to the time in this stretch and the one before is
 * the true one, up to a microsecond; the clocks drift apart by less than that in so short a time.
 */
#define AHEAD_FOR_NS 100000000
/* What a switch itself may take; a clock that is behind by more stood still, and is put forward. */
#define BEHIND_NS 10000

static __always_inline u64 least_ahead(struct cpu_state *cpu)
{
	return cpu->ahead < cpu->ahead_before ? cpu->ahead : cpu->ahead_before;
}

static __always_inline void compare_clocks(struct cpu_state *cpu, struct arrival *in)
{
	u64 ahead = in->now - in->clock, least;

	if (in->now - cpu->ahead_at > AHEAD_FOR_NS) {
		cpu->ahead_before = cpu->ahead ? cpu->ahead : ahead;
		cpu->ahead = ahead;
		cpu->ahead_at = in->now;
	} else if (ahead < cpu->ahead) {
		cpu->ahead = ahead;
	}
	least = least_ahead(cpu);
	if (in->clock && ahead - least > BEHIND_NS)
		in->clock = in->now - least;
}

/*
 * The thread that leaves is not the one that we saw come: the switch between was skipped, or was not
 * traced at all, which some kernels do for a few threads. The kernel's own account of it tells when it
 * came and how long it had been queued, provided that it came once only since we saw it leave.
 */
static __noinline int arrived_unseen(struct cpu_state *cpu, struct thread_state *state,
				     struct task_struct *task, struct arrival *out)
{
	struct arrival in = {.net = out->net};
	u64 waited = task->sched_info.run_delay - state->run_delay - state->migrated_ns;

	in.clock = task->sched_info.last_arrival;
	in.now = in.clock + least_ahead(cpu);
	in.queued = in.clock - waited;
	in.runs = task->sched_info.pcount - 1;
	in.from_idle = cpu->thread == ID_IDLE;
	if (in.now <= state->out || in.now > out->now)
		in.runs = state->runs + 1; /* the clocks disagree: not to be believed */
	come_in(cpu, state, task, &in, true);
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
	/* What the connection has been like since the wait goes into it too. */
	if (state->out && !control.merge_short)
		out->net = tell_connection(cpu, state, state->seq + 1);
	arrived_unseen(cpu, state, task, out);
	out->net = 0;
	return state;
}

/*
 * As if a switch to a watched thread, out of one that nobody watches, were not traced (0001): nothing
 * counts it.
 */
static __always_inline bool injected_gap(struct cpu_state *cpu)
{
	if (!config.untraced_every || cpu->watched)
		return false;
	return ++cpu->changes % config.untraced_every == 0;
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
	if (watched && injected_gap(cpu))
		return;
	in.clock = queue_clock(next);
	/* The time costs as much as all else together: only where something is recorded. */
	if (watched || cpu->watched || cpu->task != (u64)prev) {
		in.now = bpf_ktime_get_ns();
		compare_clocks(cpu, &in);
		state = leaving(cpu, prev, &in);
		if (state)
			go_out(cpu, state, prev, preempt, prev_state, in.now);
	}
	thread_left(prev, prev_state);
	cpu->task = (u64)next;
	cpu->watched = watched;
	cpu->thread = next->pid ? ID_UNKNOWN : ID_IDLE;
	if (entering) {
		cpu->thread = entering->id;
		in.queued = next->sched_info.last_queued;
		in.runs = next->sched_info.pcount;
		in.from_idle = prev->pid == 0;
		if (watched)
			come_in(cpu, entering, next, &in, false);
		else if (!(entering->flags & THREAD_ANNOUNCED))
			announce_own(cpu, entering, next);
	}
	occupy(cpu, cpu->thread, in.clock);
}

/* The address of this CPU's per-CPU variables follows from that of its run queue. */
static __always_inline void find_variables(struct cpu_state *cpu)
{
	u64 queue = current_queue(current_task());

	if (config.preempt_offset && queue)
		cpu->variables = queue - config.runqueues_offset;
}

/*
 * The thread that runs, as a waker, where that is not who we saw come: its switch-in was not traced,
 * or it has run since before we looked. In that case it has no storage yet, and none is made here:
 * while interrupts are off the allocator has one place of this size at hand, and that one is the
 * newborn's.
 */
static __noinline u64 waker_unseen(struct cpu_state *cpu)
{
	struct task_struct *current = current_task();
	struct thread_state *state;

	if (!current_tid(current))
		return ID_IDLE;
	if (cpu->task == (u64)current)
		return cpu->thread;
	state = thread_known(current);
	return state ? state->id : ID_UNKNOWN;
}

/* Who is waking a thread now: in an interrupt nobody, whoever it runs on top of (rule 20). */
static __always_inline u64 waker_now(struct cpu_state *cpu)
{
	u32 count;

	if (!cpu->variables)
		find_variables(cpu);
	if (!cpu->variables) /* it may be an interrupt */
		return current_tid(current_task()) ? ID_UNKNOWN : ID_IDLE;
	count = read_word(cpu->variables + config.preempt_offset);
	if (count & HARDIRQ_OR_NMI)
		return ID_HARDIRQ;
	if (count & SOFTIRQ_SERVING)
		return ID_SOFTIRQ;
	if (reads_cheaply() && config.current_offset &&
	    cpu->task == read_pointer(cpu->variables + config.current_offset))
		return cpu->thread;
	return waker_unseen(cpu);
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
	throttle_woken(state, task);
	state->waker = waker_now(cpu);
	state->waking = bpf_ktime_get_ns();
	if (state->asked)
		note_end(cpu, state, task);
}

/* A new thread starts runnable, woken by the thread that made it. Interrupts are off. */
static __always_inline void born(struct task_struct *task)
{
	struct cpu_state *cpu = this_cpu();
	struct thread_state *parent, *state;

	if (!cpu)
		return;
	parent = thread_known(current_task());
	state = thread_new(cpu, task);
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
		if (!has_throttled_mark() && has_bandwidth())
			throttle_out(state, task);
	}
	announce_own(cpu, state, task);
}

/* The thread is moved to another CPU. A queued one was dequeued first, which closed its wait there. */
static __always_inline void migrated(struct task_struct *task, int cpu)
{
	struct thread_state *state = thread_known(task);
	u64 waited;

	if (!state || !state->out || !(state->flags & THREAD_WATCHED))
		return;
	waited = task->sched_info.run_delay - state->run_delay;
	if (state->flags & THREAD_THROTTLED)
		throttle_moved(&state->throttle, task, cpu, waited);
	else if (!has_throttled_mark() && state->woken.leaf)
		throttle_moved(&state->woken, task, cpu, waited);
	if (!waited)
		return;
	state->migrated_ns = waited;
	state->migrated_at = bpf_ktime_get_ns();
}

#endif
