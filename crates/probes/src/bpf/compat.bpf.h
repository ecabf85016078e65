/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Each difference between kernels that we read across, once, with the version and the upstream
 * change that made it, and the test that fails without it on the other side. Choose by the existence of
 * a field, never by a version number: distributions carry changes back.
 *
 * What a program cannot ask, because it would not load, the loader decides (src/features.rs):
 *
 * - sched_switch says the state: 5.18 (fa2c3254d7cf "sched/tracing: Don't re-read p->state when emitting
 *   sched_switch event"). Without: the program is refused, root_every_hook_can_be_tried.
 * - Direct reclaim names the allocation flags before the order: 7.2, seen in its BTF. Without: the
 *   order in a reclaim's evidence is a set of flags; no test asks for it.
 * - A dropped packet says why: 5.17 (c504e5c2f964 "net: skb: introduce kfree_skb_reason()"); the numbers of
 *   the reasons differ between versions, so they are found by name. Without: tests/losses.rs, which asks for
 *   the reason where there is one.
 * - The preempt count is in pcpu_hot: 6.2 (64701838bf05) to 6.14 (46e8fff6d45f); in some kernels only the
 *   symbols tell where. Without: root_the_waker_is_the_thread_that_woke_or_the_interrupt.
 *
 * arch.bpf.h has the saved registers (5.15), which differ by architecture too.
 */
#ifndef LACUNA_COMPAT_H
#define LACUNA_COMPAT_H

/*
 * 5.14 (2f064a59a11f "sched: Change task_struct::state"): `state` became `__state`. Only kernels
 * before 5.18 need it here. Without: root_switches_are_as_many_as_the_thread_read_of_itself.
 */
static __always_inline u32 task_state_field(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return task->__state;
	return ((struct task_struct___state *)task)->state;
}

/*
 * 5.12 (a10787e6d58c "bpf: Enable task local storage for tracing programs") gave task_struct this
 * field. The helper for the current task as a typed pointer is one version older (3ca1032ab7ab), so
 * one question answers both; store.bpf.h says what is done instead. Without: no program loads.
 */
static __always_inline bool has_task_storage(void)
{
	return bpf_core_field_exists(((struct task_struct *)0)->bpf_storage);
}

/* The current task; where it has no type, only what is below may be done with it. */
static __always_inline struct task_struct *current_task(void)
{
	if (has_task_storage())
		return bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

static __always_inline u32 current_tid(struct task_struct *current)
{
	return has_task_storage() ? (u32)current->pid : (u32)bpf_get_current_pid_tgid();
}

static __always_inline u32 current_flags(struct task_struct *current)
{
	return has_task_storage() ? current->flags : BPF_CORE_READ(current, flags);
}

/*
 * 6.18 (e1fad12dcb66 "sched/fair: Switch to task based throttle model") marks the task itself; before, all
 * of a throttled queue waits, also who is woken. Without: all of tests/throttle.rs, and before 6.18
 * root_a_thread_woken_while_its_group_is_denied_waits_for_the_limit.
 */
static __always_inline bool has_throttled_mark(void)
{
	return bpf_core_field_exists(((struct task_struct *)0)->throttled);
}

/*
 * 6.6 (677ea015f231 "sched: add throttled time stat for throttled children"). Without: tests/throttle.rs,
 * which asks too that amounts are marked as estimates where it is missing.
 */
static __always_inline bool has_queue_clock(void)
{
	return bpf_core_field_exists(((struct cfs_rq *)0)->throttled_clock_self_time);
}

/*
 * Throttled time of the leaf queue. Before 6.6 there is none in wall time; the growth of the PELT
 * clock's stopped time is an estimate: that clock leaves out interrupt and steal time where the kernel
 * accounts for them, is slow while the CPU is busy below its full speed, and is put right when it idles.
 * None of this happens in an emulated guest, where the two agree. 5.19 (64eaf50731ac "sched/fair: Fix
 * cfs_rq_clock_pelt() for throttled cfs_rq") renamed that field, and was carried back to 5.10. Without:
 * tests/throttle.rs.
 */
static __always_inline u64 queue_throttled_ns(struct cfs_rq *queue)
{
	if (has_queue_clock())
		return queue->throttled_clock_self_time;
	if (bpf_core_field_exists(queue->throttled_clock_pelt_time))
		return queue->throttled_clock_pelt_time;
	return ((struct cfs_rq___task_clock *)queue)->throttled_clock_task_time;
}

static __always_inline u64 queue_throttled_since(struct cfs_rq *queue)
{
	return has_queue_clock() ? queue->throttled_clock_self : 0;
}

/* The same of a queue whose address was read by a helper. */
static __always_inline u64 read_queue_throttled_ns(struct cfs_rq *queue)
{
	if (has_queue_clock())
		return BPF_CORE_READ(queue, throttled_clock_self_time);
	if (bpf_core_field_exists(queue->throttled_clock_pelt_time))
		return BPF_CORE_READ(queue, throttled_clock_pelt_time);
	return BPF_CORE_READ((struct cfs_rq___task_clock *)queue, throttled_clock_task_time);
}

static __always_inline u64 read_queue_throttled_since(struct cfs_rq *queue)
{
	return has_queue_clock() ? BPF_CORE_READ(queue, throttled_clock_self) : 0;
}

/*
 * Before 7.2 a group has an array of its queues, and of its entities; then both lie together in per-CPU
 * memory, and the queue of another CPU is not looked up. Without: garbage would be read as a queue
 * when a thread is moved while a limit denies it the CPU; no test moves one.
 */
static __always_inline bool has_queue_array(void)
{
	return bpf_core_field_exists(((struct task_group *)0)->se);
}

/* CONFIG_FAIR_GROUP_SCHED off: entities know no queue, and enqueue times are not recorded. */
static __always_inline struct cfs_rq *leaf_queue(struct task_struct *task)
{
	if (!bpf_core_field_exists(task->se.cfs_rq))
		return NULL;
	return task->se.cfs_rq;
}

/* The address of the run queue that the current task is on, 0 where entities know no queue. */
static __always_inline u64 current_queue(struct task_struct *current)
{
	struct cfs_rq *leaf;

	if (!has_task_storage())
		return bpf_core_field_exists(current->se.cfs_rq) ?
			       (u64)BPF_CORE_READ(current, se.cfs_rq, rq) : 0;
	leaf = leaf_queue(current);
	return leaf ? (u64)leaf->rq : 0;
}

/* The clock that sched_info and throttling use, as it was when this switch began. */
static __always_inline u64 queue_clock(struct task_struct *task)
{
	struct cfs_rq *leaf = leaf_queue(task);

	return leaf ? leaf->rq->clock : 0;
}

/* CONFIG_CFS_BANDWIDTH off: no task is ever throttled. */
static __always_inline bool has_bandwidth(void)
{
	return bpf_core_field_exists(((struct task_group *)0)->cfs_bandwidth);
}

/*
 * 5.2 (76f969e8948d "cgroup: cgroup v2 freezer"): a task of a frozen group sleeps interruptibly; only this
 * bit tells it apart. Without: root_a_frozen_thread_is_frozen_and_not_asleep.
 */
static __always_inline bool task_frozen(struct task_struct *task)
{
	if (!bpf_core_field_exists(task->frozen))
		return false;
	return BPF_CORE_READ_BITFIELD(task, frozen);
}

/*
 * 6.12 (152e11f6df29 "sched/fair: Implement delayed dequeue"): a task that blocks may stay on its queue
 * for a while; it is not to run. on_rq is a byte from 7.2 on (kernel.h). Without:
 * root_a_silent_thread_is_confirmed_by_the_iterator.
 */
static __always_inline bool task_queued(struct task_struct *task)
{
	if (bpf_core_field_exists(task->se.sched_delayed) && task->se.sched_delayed)
		return false;
	return task->on_rq == TASK_ON_RQ_QUEUED;
}

/*
 * An address to calculate with. What the verifier takes an address for, and so which arithmetic it
 * allows, differs between kernels: `void *` is a number to 6.12 and memory to 6.18. What comes out of
 * a map is a number to all of them. Without, the programs do not load on 6.2 to 6.16.
 */
static __always_inline u64 as_number(u64 *place, u64 address)
{
	volatile u64 *through = place;

	*through = address;
	return *through;
}

/*
 * 6.2 (a35b9af4ec2c "bpf: Add a kfunc for generic type cast") can give an address a type, so that reading
 * costs a load and no helper call; the verifier makes a wrong address read as 0. Before, a helper reads.
 * Without: root_the_waker_is_the_thread_that_woke_or_the_interrupt,
 * root_a_read_of_a_pipe_names_the_pipe_and_its_writer.
 */
static __always_inline bool reads_cheaply(void)
{
	return bpf_ksym_exists(bpf_rdonly_cast);
}

static __always_inline u32 read_word(u64 address)
{
	u32 word = 0;

	if (reads_cheaply()) /* any type that starts with a word */
		return bpf_core_cast((void *)address, struct upid)->nr;
	bpf_probe_read_kernel(&word, sizeof(word), (void *)address);
	return word;
}

static __always_inline u64 read_pointer(u64 address)
{
	u64 pointer = 0;

	/* A type that starts with a number: what is calculated with must be one to every verifier. */
	if (reads_cheaply())
		return bpf_core_cast((void *)address, struct timespec64)->tv_sec;
	bpf_probe_read_kernel(&pointer, sizeof(pointer), (void *)address);
	return pointer;
}

/*
 * Without CONFIG_EPOLL, or if what is ready is kept otherwise one day, nothing is told of the end of an
 * epoll wait. 7.2 names the type of `ffd` otherwise, which makes no difference. Without: all of
 * tests/polls.rs.
 */
static __always_inline bool has_ready_list(void)
{
	struct epitem *item = NULL;

	return bpf_core_field_exists(((struct eventpoll *)0)->rdllist) &&
	       bpf_core_field_exists(item->rdllink) && bpf_core_field_exists(item->ep) &&
	       bpf_core_field_exists(item->ffd.file) && bpf_core_field_exists(item->event.events);
}

/*
 * 5.18 (e7a6c00dc77a "io_uring: add support for registering ring file descriptors"): a thread may name a ring
 * by its place in this table. Without: no program loads on 5.10.
 */
static __always_inline bool has_registered_rings(void)
{
	return bpf_core_field_exists(((struct io_uring_task *)0)->registered_rings);
}

/*
 * Work of io_uring is queued in a list of its own from 5.14 on (carried back to 5.10 with all of io_uring
 * 5.15); before, and without CONFIG_IO_URING, or if it is kept otherwise one day, nothing is told of the end
 * of a wait for completions. Without: all of tests/rings.rs.
 */
static __always_inline bool has_work_list(void)
{
	struct io_kiocb *request = NULL;

	return bpf_core_field_exists(((struct task_struct *)0)->io_uring) &&
	       bpf_core_field_exists(((struct io_uring_task *)0)->task_list) &&
	       bpf_core_field_exists(((struct io_ring_ctx *)0)->flags) &&
	       bpf_core_field_exists(request->io_task_work.node) &&
	       bpf_core_field_exists(request->ctx) && bpf_core_field_exists(request->opcode) &&
	       bpf_core_field_exists(request->file) &&
	       bpf_core_field_exists(request->poll_refs) &&
	       (bpf_core_field_exists(request->cqe.res) ||
		bpf_core_field_exists(((struct io_kiocb___result *)0)->result));
}

/*
 * 7.2, seen in its BTF: the work of io_uring is kept in the order in which it came, and a ring that defers it
 * counts down what its waiter still wants (before, the requests are counted up to it). Without:
 * tests/rings.rs.
 */
static __always_inline bool has_counted_work(void)
{
	return bpf_core_field_exists(((struct io_ring_ctx *)0)->work_list);
}

/* 6.1 on: c0e0d6ba25f1 "io_uring: add IORING_SETUP_DEFER_TASKRUN". Without: no program loads on 5.10. */
static __always_inline bool can_defer_work(void)
{
	return has_counted_work() ||
	       bpf_core_field_exists(((struct io_ring_ctx *)0)->work_llist);
}

/* Where a ring that defers work keeps it. */
static __always_inline u64 deferred_work(void)
{
	if (has_counted_work())
		return bpf_core_field_offset(struct io_ring_ctx, work_list);
	return bpf_core_field_offset(struct io_ring_ctx, work_llist);
}

static __always_inline u32 write_seq_of(struct sock *sk)
{
	if (reads_cheaply())
		return bpf_core_cast(sk, struct tcp_sock)->write_seq;
	return BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
}

static __always_inline u32 tcp_state_of(struct sock *sk)
{
	if (reads_cheaply())
		return bpf_core_cast(sk, struct sock)->__sk_common.skc_state;
	return BPF_CORE_READ(sk, __sk_common.skc_state);
}

static __always_inline void read_file(struct file *file, struct resolved_file *found)
{
	struct file *typed;

	if (reads_cheaply()) {
		typed = bpf_core_cast(file, struct file);
		found->inode = (u64)typed->f_inode;
		found->ino = typed->f_inode->i_ino;
		found->private_data = (u64)typed->private_data;
		return;
	}
	found->inode = (u64)BPF_CORE_READ(file, f_inode);
	found->ino = BPF_CORE_READ(file, f_inode, i_ino);
	found->private_data = (u64)BPF_CORE_READ(file, private_data);
}

#endif
