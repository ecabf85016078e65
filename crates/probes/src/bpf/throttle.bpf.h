/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * CPU time that a bandwidth limit denied (rule 6), from the queue's own throttled clock.
 *
 * A thread that is off the CPU since switch-out O was denied it until the limit let go:
 * C0 + (S1 - S0) on the run queue's clock, where C0 is when its leaf queue was throttled, and S0 and
 * S1 are the queue's throttled time at switch-out and switch-in. A blocked thread is never throttled.
 * Before 6.18 one that is woken while its queue is throttled waits there: then all of this is counted
 * from the waking, and the wait begins at the enqueue.
 */
#ifndef LACUNA_THROTTLE_H
#define LACUNA_THROTTLE_H

/* Nested limits that are looked at. */
#define LIMITS_MAX 8
#define NO_QUOTA ((u64)-1)

static __noinline int limits_above(struct cfs_rq *leaf, struct limits *limits)
{
	struct task_group *group = leaf->tg;

	limits->throttled_periods = 0;
	limits->shortest_period_ns = NO_QUOTA;
	limits->innermost = 0;
	limits->outermost = 0;
	for (int i = 0; i < LIMITS_MAX && group; i++) {
		u64 period = group->cfs_bandwidth.period;

		if (group->cfs_bandwidth.quota != NO_QUOTA) {
			limits->throttled_periods += group->cfs_bandwidth.nr_throttled;
			limits->outermost = group->css.cgroup->kn->id;
			if (!limits->innermost)
				limits->innermost = limits->outermost;
			if (period < limits->shortest_period_ns)
				limits->shortest_period_ns = period;
		}
		group = group->parent;
	}
	return 0;
}

/*
 * The innermost cgroup whose queue on this CPU is throttled: from the thread's entity up, each lies in
 * the queue of the next. (Where a group keeps its queues is another matter, and changes.)
 */
static __noinline u64 throttled_cgroup(struct task_struct *task)
{
	struct cfs_rq *queue = task->se.cfs_rq;
	struct sched_entity *entity = task->se.parent;

	for (int i = 0; i < LIMITS_MAX; i++) {
		if (BPF_CORE_READ_BITFIELD(queue, throttled))
			return queue->tg->css.cgroup->kn->id;
		if (!entity)
			return 0;
		queue = entity->cfs_rq;
		entity = entity->parent;
	}
	return 0;
}

/* Remembers the clocks of the thread's queue, if a limit may deny it the CPU. */
static __noinline int throttle_open(struct throttle_state *throttle, struct task_struct *task)
{
	struct cfs_rq *leaf = leaf_queue(task);
	struct cpu_state *cpu = this_cpu();

	throttle->leaf = 0;
	if (!leaf || !cpu)
		return 0;
	limits_above(leaf, &cpu->limits);
	/* Before 6.18 also one that is set later denies the CPU to who waits already. */
	if (cpu->limits.shortest_period_ns == NO_QUOTA && has_throttled_mark())
		return 0;
	throttle->leaf = (u64)leaf;
	throttle->clock = leaf->rq->clock;
	throttle->began = queue_throttled_since(leaf);
	throttle->sum = queue_throttled_ns(leaf);
	throttle->periods = cpu->limits.throttled_periods;
	throttle->closed_ns = 0;
	throttle->cgroup = throttled_cgroup(task);
	return 0;
}

/* Before 6.18 a limit may strike after the wait began; where there is one only, it is that one. */
static __always_inline u64 sole_limit(struct cfs_rq *leaf)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu)
		return 0;
	limits_above(leaf, &cpu->limits);
	return cpu->limits.innermost == cpu->limits.outermost ? cpu->limits.innermost : 0;
}

/* A thread leaves the CPU runnable, and a limit took it off, or may have. */
static __always_inline void throttle_out(struct thread_state *state, struct task_struct *task)
{
	throttle_open(&state->throttle, task);
	if (state->throttle.leaf)
		state->flags |= THREAD_THROTTLED;
}

/* How long the limit has denied the CPU on this queue up to `clock`. */
static __always_inline u64 denied_ns(struct throttle_state *throttle, u64 sum)
{
	u64 grown = sum - throttle->sum;
	u64 until = throttle->began + grown;

	if (!throttle->began)
		return grown;
	return until > throttle->clock ? until - throttle->clock : 0;
}

/*
 * The thread is moved to another CPU, after it had been queued that long: close the sum on the old
 * queue, open one on the new.
 */
static __noinline int throttle_moved(struct throttle_state *throttle, struct task_struct *task,
				     u32 cpu, u64 queued_ns)
{
	struct cfs_rq *old = leaf_queue(task), *new = NULL;
	u64 sum, since, denied;

	if (!old)
		return 0;
	sum = queue_throttled_ns(old);
	since = queue_throttled_since(old);
	if (since) /* still throttled there: it counts up to now */
		sum += old->rq->clock - since;
	denied = denied_ns(throttle, sum);
	throttle->closed_ns += denied < queued_ns ? denied : queued_ns;
	throttle->leaf = 0;
	if (has_queue_array())
		bpf_probe_read_kernel(&new, sizeof(new), old->tg->cfs_rq + cpu);
	if (!new) /* what it is denied there is not measured */
		return 0;
	throttle->leaf = (u64)new;
	throttle->clock = BPF_CORE_READ(new, rq, clock);
	throttle->began = read_queue_throttled_since(new);
	throttle->sum = read_queue_throttled_ns(new);
	return 0;
}

/*
 * Whether the queue was throttled once only since switch-out, so that the place is exact. Twice
 * takes more than a period, and two periods that ended throttled.
 */
static __always_inline bool throttled_once(struct throttle_state *throttle, struct cfs_rq *leaf,
					   u64 off_ns)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu || !throttle->began || throttle->closed_ns)
		return false;
	limits_above(leaf, &cpu->limits);
	return cpu->limits.throttled_periods - throttle->periods <= 1 ||
	       off_ns < cpu->limits.shortest_period_ns;
}

/*
 * What was denied, at switch-in, of a wait for a CPU of that length; 0 where nothing was. `exact`: it
 * came first and in one piece.
 */
static __noinline u64 throttle_in(struct throttle_state *throttle, struct task_struct *task,
				  u64 wait_ns, bool *exact)
{
	struct cfs_rq *leaf = leaf_queue(task);
	u64 ns = throttle->closed_ns;

	if (!leaf)
		return 0;
	if (throttle->leaf == (u64)leaf)
		ns += denied_ns(throttle, queue_throttled_ns(leaf));
	*exact = throttled_once(throttle, leaf, wait_ns);
	if (ns && !throttle->cgroup)
		throttle->cgroup = sole_limit(leaf);
	return ns < wait_ns ? ns : wait_ns;
}

/* A new wait for a CPU begins where none was measured. */
static __always_inline void throttle_woken(struct thread_state *state, struct task_struct *task)
{
	if (!has_throttled_mark() && has_bandwidth())
		throttle_open(&state->woken, task);
}

#endif
