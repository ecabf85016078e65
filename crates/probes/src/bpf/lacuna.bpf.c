/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The one translation unit: the list of programs, each on one hook. What they do is in the topic
 * headers. Everything is a tracepoint: it loads where kprobes and fentry are locked down.
 */
#include "kernel.h"
#include "record.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "maps.bpf.h"
#include "compat.bpf.h"
#include "arch.bpf.h"
#include "store.bpf.h"
#include "ring.bpf.h"
#include "thread.bpf.h"
#include "object.bpf.h"
#include "futex.bpf.h"
#include "ended.bpf.h"
#include "uring.bpf.h"
#include "wait.bpf.h"
#include "net.bpf.h"
#include "segment.bpf.h"
#include "drops.bpf.h"
#include "netwait.bpf.h"
#include "reads.bpf.h"
#include "occupancy.bpf.h"
#include "throttle.bpf.h"
#include "stack.bpf.h"
#include "cycle.bpf.h"
#include "merge.bpf.h"
#include "sched.bpf.h"
#include "memory.bpf.h"
#include "snapshot.bpf.h"

/* BPF_PROG gives every program a `ctx` that it need not use. */
#pragma clang diagnostic ignored "-Wunused-parameter"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The skeleton has Rust types only for what a program's symbols reach. */
struct queued_record *unused_queued __attribute__((unused));
struct wait_record *unused_wait __attribute__((unused));
struct long_record *unused_long __attribute__((unused));
struct crowded_record *unused_crowded __attribute__((unused));
struct merged_record *unused_merged __attribute__((unused));
struct detour_record *unused_detour __attribute__((unused));
struct exit_record *unused_exit __attribute__((unused));
struct thread_record *unused_thread __attribute__((unused));
struct object_record *unused_object __attribute__((unused));
struct stack_record *unused_stack __attribute__((unused));
struct snapshot_record *unused_snapshot __attribute__((unused));
struct net_record *unused_net __attribute__((unused));
struct read_record *unused_read __attribute__((unused));
enum record_kind *unused_kind __attribute__((unused));
enum record_flags *unused_flags __attribute__((unused));
enum wait_entry *unused_entry __attribute__((unused));
enum futex_kind *unused_futex __attribute__((unused));
enum detour_kind *unused_detour_kind __attribute__((unused));
enum call_class *unused_class __attribute__((unused));
enum special_id *unused_special __attribute__((unused));
enum record_limits *unused_limits __attribute__((unused));
enum watch_bits *unused_watch __attribute__((unused));
enum net_state *unused_state __attribute__((unused));
enum net_resent *unused_resent __attribute__((unused));
enum drop_kind *unused_drop __attribute__((unused));

/* Every context switch, interrupts off, in the context of the thread that leaves. 5.18 on. */
SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	switched(preempt, prev, next, prev_state);
	return 0;
}

/* The same before 5.18 (fa2c3254d7cf), where the state must be read from the task. */
SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch_stateless, bool preempt, struct task_struct *prev,
	     struct task_struct *next)
{
	switched(preempt, prev, next, task_state_field(prev));
	return 0;
}

/* Every wake-up, on the waker's CPU, interrupts off. */
SEC("tp_btf/sched_waking")
int BPF_PROG(sched_waking, struct task_struct *task)
{
	waking(task);
	return 0;
}

/* Every new thread, on its maker's CPU, interrupts off. */
SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *task)
{
	born(task);
	return 0;
}

/* Every change of CPU, under the thread's locks. */
SEC("tp_btf/sched_migrate_task")
int BPF_PROG(sched_migrate_task, struct task_struct *task, int cpu)
{
	migrated(task, cpu);
	return 0;
}

/* After exec: the thread may have taken its leader's tid, and has a new name. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task)
{
	struct thread_state *state = thread_known(task);
	struct cpu_state *cpu = this_cpu();

	if (state && cpu)
		announce_own(cpu, state, task);
	return 0;
}

/* Before a thread gets another name; the task is any thread, not only the current one. */
SEC("tp_btf/task_rename")
int BPF_PROG(task_rename, struct task_struct *task, const char *comm)
{
	struct thread_state *state = thread_known(task);
	struct cpu_state *cpu = this_cpu();

	if (state && cpu)
		announce(cpu, state, task, comm);
	return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(direct_reclaim_begin, u64 first, u64 second)
{
	detour_begin(DETOUR_RECLAIM, config.order_is_second ? second : first);
	return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int BPF_PROG(direct_reclaim_end)
{
	detour_end(DETOUR_RECLAIM);
	return 0;
}

/* Only where CONFIG_NUMA is on. */
SEC("tp_btf/mm_vmscan_node_reclaim_begin")
int BPF_PROG(node_reclaim_begin, int node, int order)
{
	detour_begin(DETOUR_RECLAIM, order);
	return 0;
}

SEC("tp_btf/mm_vmscan_node_reclaim_end")
int BPF_PROG(node_reclaim_end)
{
	detour_end(DETOUR_RECLAIM);
	return 0;
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_begin")
int BPF_PROG(memcg_reclaim_begin)
{
	detour_begin(DETOUR_MEMCG, limited_cgroup());
	return 0;
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end")
int BPF_PROG(memcg_reclaim_end)
{
	detour_end(DETOUR_MEMCG);
	return 0;
}

/* Compaction of one zone, also by kcompactd; its order is in a struct only since 6.1. */
SEC("tp_btf/mm_compaction_begin")
int BPF_PROG(compaction_begin)
{
	detour_begin(DETOUR_COMPACTION, 0);
	return 0;
}

SEC("tp_btf/mm_compaction_end")
int BPF_PROG(compaction_end)
{
	detour_end(DETOUR_COMPACTION);
	return 0;
}

/*
 * A TCP socket changes state; for SYN_SENT in the context of the thread that connects. A process
 * that connects to a port of ours is watched from here on (rule 16).
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int old_state, int new_state)
{
	u32 port, tgid, bits = WATCH_PROCESS;

	state_changes(sk, new_state);
	if (new_state != TCP_SYN_SENT)
		return 0;
	port = bpf_ntohs(sk->__sk_common.skc_dport);
	for (int i = 0; i < PORTS_MAX; i++) {
		if (!port || control.ports[i] != port)
			continue;
		tgid = bpf_get_current_pid_tgid() >> 32;
		if (!bpf_map_update_elem(&watched_processes, &tgid, &bits, BPF_NOEXIST))
			__sync_fetch_and_add(&control.watch_generation, 1);
	}
	return 0;
}

/*
 * Each segment that arrives on an established connection, before it is processed, under the socket's lock:
 * in a softirq, or in a system call that works off the backlog.
 */
SEC("tp_btf/tcp_probe")
int BPF_PROG(tcp_probe, struct sock *sk, struct sk_buff *skb)
{
	arriving(sk, skb);
	return 0;
}

/* Each segment that was copied to a reader, under the socket's lock: in the reader's context, or a softirq. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_rcv_space_adjust, struct sock *sk)
{
	reading(sk);
	return 0;
}

/* Each segment that is sent again, after that, under the socket's lock: by a timer or an acknowledgement. */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit_skb, struct sock *sk, struct sk_buff *skb)
{
	resent(sk, skb);
	return 0;
}

/* Each packet that is dropped, by whoever drops it; with a reason, so 5.17 on (c504e5c2f964). */
SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb, struct sk_buff *skb, void *location, u32 reason)
{
	dropping(skb, reason);
	return 0;
}

/* Every thread of the host, in the loader's context. */
SEC("iter/task")
int snapshot_task(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;

	if (task)
		snapshot(seq, task);
	return 0;
}
