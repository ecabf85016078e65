/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Every kernel type and field that we read, and nothing else: the reviewed list of what we depend
 * on. Offsets here mean nothing; each access is relocated at load time against the running kernel
 * (CO-RE). Where a field was renamed, the older shape is a flavour (`name___older`), and the one
 * place that chooses between them is compat.bpf.h.
 */
#ifndef LACUNA_KERNEL_H
#define LACUNA_KERNEL_H

typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;
typedef _Bool bool;

#define true 1
#define false 0
#define NULL ((void *)0)

/* Numbers of the kernel's interfaces; they never change. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
};

/* Its number is the kernel's own, by configuration. */
enum cgroup_subsys_id {
	memory_cgrp_id = 4,
};

/* Asked with bpf_core_enum_value_exists only. */
enum bpf_func_id {
	BPF_FUNC_task_pt_regs = 175,
};

/* include/linux/sched.h; the values have not changed since 4.14 (DEAD) and 5.15 (RTLOCK). */
enum {
	TASK_ON_RQ_QUEUED = 1,
	TASK_DEAD = 0x80,
	TASK_INTERRUPTIBLE = 0x1,
	TASK_UNINTERRUPTIBLE = 0x2,
	PF_IO_WORKER = 0x10,
	PF_USER_WORKER = 0x4000,
	PF_KTHREAD = 0x200000,
};

/* include/linux/sched/jobctl.h: what stops a thread without a signal of its own (5.2 on). */
enum {
	JOBCTL_STOPS = 1 << 17 | 1 << 19 | 1 << 20 | 1 << 23,
};

/* include/uapi/asm-generic/poll.h; those of epoll are the same. */
enum {
	POLL_INPUT = 0x1 | 0x2 | 0x40 | 0x80 | 0x2000,
	POLL_OUTPUT = 0x4 | 0x100 | 0x200,
};

struct pollfd {
	int fd;
	short events;
	short revents;
};

/* include/uapi/linux/futex.h. */
enum {
	FUTEX_OP_WAIT = 0,
	FUTEX_OP_LOCK_PI = 6,
	FUTEX_OP_WAIT_BITSET = 9,
	FUTEX_OP_WAIT_REQUEUE_PI = 11,
	FUTEX_OP_LOCK_PI2 = 13,
	FUTEX_OP_MASK = ~(128 | 256),
	FUTEX_TID_MASK = 0x3fffffff,
};

/* include/uapi/linux/io_uring.h. */
enum {
	IORING_ENTER_REGISTERED_RING = 1 << 4,
	IORING_SETUP_DEFER_TASKRUN = 1 << 13,
	IORING_OP_READV = 1,
	IORING_OP_WRITEV = 2,
	IORING_OP_READ_FIXED = 4,
	IORING_OP_WRITE_FIXED = 5,
	IORING_OP_POLL_ADD = 6,
	IORING_OP_SENDMSG = 9,
	IORING_OP_RECVMSG = 10,
	IORING_OP_ACCEPT = 13,
	IORING_OP_CONNECT = 16,
	IORING_OP_READ = 22,
	IORING_OP_WRITE = 23,
	IORING_OP_SEND = 26,
	IORING_OP_RECV = 27,
	IORING_OP_SEND_ZC = 47,
	IORING_OP_SENDMSG_ZC = 48,
	IORING_OP_READ_MULTISHOT = 49,
	IORING_OP_RECV_ZC = 58,
	IORING_OP_READV_FIXED = 60,
	IORING_OP_WRITEV_FIXED = 61,
	REGISTERED_RINGS = 16, /* IO_RINGFD_REG_MAX of io_uring/tctx.h */
	POLL_CANCELLED = 1U << 31, /* IO_POLL_CANCEL_FLAG of io_uring/poll.c */
};

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	S_IFMT = 0170000,
	S_IFSOCK = 0140000,
	S_IFREG = 0100000,
	S_IFBLK = 0060000,
	ANON_INODE_FS = 0x09041934,
};

/* include/net/tcp_states.h, include/net/tcp.h, include/uapi/linux/tcp.h, include/net/inet_connection_sock.h. */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
	TCP_NEW_SYN_RECV = 12,
	TCP_NAGLE_OFF = 1,
	TCP_NAGLE_CORK = 2,
	TCP_FLAG_FIN_OR_SYN = 0x3,
	TCP_FLAG_ACK = 0x10,
	TCP_CA_RECOVERY = 3,
	TCP_CA_LOSS = 4,
	TCP_CHRONO_BUSY = 1,
	ICSK_TIME_PROBE0 = 3,
	ICSK_TIME_LOSS_PROBE = 5,
	IPPROTO_TCP = 6,
	SOCK_STREAM = 1,
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86dd,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
	struct list_head *prev;
};

struct timespec64 {
	s64 tv_sec;
};

struct pt_regs {
	unsigned long r10;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
};

struct thread_info {
	unsigned int status;
};

struct thread_struct {
	unsigned long fsbase;
};

struct rq {
	u64 clock;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

typedef struct {
	s64 counter;
} atomic64_t;

struct page_counter {
	atomic64_t usage;
	unsigned long max;
	unsigned long high;
};

/* Starts with its css. */
struct mem_cgroup {
	struct page_counter memory;
};

struct cfs_bandwidth {
	s64 period;
	u64 quota;
	int nr_throttled;
};

struct task_group;
struct sched_entity;

struct cfs_rq {
	struct rq *rq;
	struct task_group *tg;
	u64 throttled_clock_self;
	u64 throttled_clock_self_time;
	u64 throttled_clock_pelt_time;
	bool throttled : 1;
};

/* Before 5.19. */
struct cfs_rq___task_clock {
	u64 throttled_clock_task_time;
};

struct task_group {
	struct cgroup_subsys_state css;
	struct sched_entity **se; /* before 7.2 */
	struct cfs_rq **cfs_rq;
	struct task_group *parent;
	struct cfs_bandwidth cfs_bandwidth;
};

struct sched_entity {
	unsigned char sched_delayed; /* 6.12 on */
	struct sched_entity *parent;
	struct cfs_rq *cfs_rq;
};

struct sched_info {
	unsigned long pcount;
	unsigned long long run_delay;
	unsigned long long last_arrival;
	unsigned long long last_queued;
};

struct upid {
	int nr;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct restart_block {
	long (*fn)(struct restart_block *);
	union {
		struct {
			u32 *uaddr;
			u32 val;
			u32 flags;
		} futex;
		struct {
			int clockid;
			u64 expires;
		} nanosleep;
		struct {
			void *ufds;
			int nfds;
		} poll;
	};
};

struct super_block {
	u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	u32 i_rdev;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	void *private_data;
	struct inode *f_inode;
	struct path f_path;
};

struct epoll_filefd {
	struct file *file;
};

struct epoll_event {
	u32 events;
};

/* An instance, and a file that it watches. */
struct eventpoll {
	struct list_head rdllist;
};

struct epitem {
	struct list_head rdllink;
	struct epoll_filefd ffd;
	struct eventpoll *ep;
	struct epoll_event event;
};

/* One type before 5.19, another one since; either is one pointer. */
struct llist_node {
	struct llist_node *next;
};

struct work_queue {
	struct llist_node *first;
};

/* 7.2 on: `tail` is the stub while nothing is there, and the first one comes after the stub. */
struct mpscq {
	struct llist_node *tail;
	struct llist_node stub;
};

typedef struct {
	int counter;
} atomic_t;

/* A ring; what waits to be worked on where it defers that: `work_list` from 7.2 on. */
struct io_ring_ctx {
	unsigned int flags;
	struct work_queue work_llist;
	struct mpscq work_list;
	atomic_t cq_wait_nr;
};

struct io_uring_task {
	struct work_queue task_list;
	struct file *registered_rings[16];
};

struct io_cqe {
	s32 res;
};

struct io_task_work {
	struct llist_node node;
};

/* A request. */
struct io_kiocb {
	struct file *file;
	u8 opcode;
	struct io_cqe cqe;
	struct io_ring_ctx *ctx;
	atomic_t poll_refs;
	struct io_task_work io_task_work;
};

/* Before 5.19. */
struct io_kiocb___result {
	u32 result;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct in6_addr {
	u8 s6_addr[16];
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

typedef struct {
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	u16 sk_protocol;
	u16 sk_type;
	u32 sk_max_ack_backlog;
};

struct net_device {
	char name[16]; /* IFNAMSIZ */
	int ifindex;
	possible_net_t nd_net;
};

struct sk_buff {
	struct net_device *dev;
	u64 skb_mstamp_ns;
	char cb[48];
	struct list_head tcp_tsorted_anchor;
	unsigned int len;
	__be16 protocol;
	__u16 network_header;
	unsigned char *head;
	unsigned char *data;
};

/* What TCP keeps in `cb` of a segment. */
struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq;
	__u8 tcp_flags; /* two bytes from 6.16 on: only an unsigned field is relocated to another size */
	__u32 ack_seq;
	__u16 tcp_gso_segs;
};

struct rb_root {
	void *rb_node;
};

struct minmax_sample {
	u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

/* Starts with its sock, as do the next two. */
struct inet_sock {
	__be16 inet_sport;
};

struct inet_connection_sock {
	__u8 icsk_ca_state : 5;
	__u8 icsk_pending;
	struct {
		__u32 lrcvtime;
	} icsk_ack;
};

struct tcp_sock {
	u64 bytes_received;
	u64 bytes_sent; /* with each try, as the next */
	u64 bytes_retrans;
	u64 first_tx_mstamp; /* microseconds, as the next */
	u64 delivered_mstamp;
	u32 rcv_nxt;
	u32 copied_seq;
	u32 snd_una;
	u32 snd_nxt;
	u32 write_seq;
	u32 snd_sml;
	u32 snd_wnd;
	u32 snd_cwnd;
	u32 mss_cache;
	u32 srtt_us;
	u32 rttvar_us;
	u32 packets_out;
	u32 retrans_out;
	u32 total_retrans;
	u32 tlp_high_seq;
	u32 lost_out;
	u32 sacked_out;
	u32 lsndtime;
	u32 chrono_start; /* ticks */
	u8 chrono_type : 2;
	u8 nonagle : 4;
	struct minmax rtt_min;
	struct rb_root out_of_order_queue;
	struct list_head tsorted_sent_queue;
};

struct socket {
	struct sock *sk;
};

typedef struct {
	unsigned long sig[1];
} sigset_t;

struct sigpending {
	sigset_t signal;
};

struct signal_struct {
	struct sigpending shared_pending;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	void *stack;
	unsigned int flags;
	unsigned int on_rq; /* a byte from 7.2 on: only an unsigned field is relocated to another size */
	struct sched_entity se;
	bool throttled; /* 6.18 on */
	struct sched_info sched_info;
	unsigned int in_iowait : 1;
	unsigned int frozen : 1;
	struct restart_block restart_block;
	int exit_state;
	int pid;
	int tgid;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	u64 start_time;
	unsigned long min_flt;
	unsigned long maj_flt;
	char comm[16];
	struct files_struct *files;
	struct io_uring_task *io_uring;
	unsigned long jobctl;
	struct signal_struct *signal;
	sigset_t blocked;
	struct sigpending pending;
	struct css_set *cgroups;
	void *bpf_storage;
	struct thread_struct thread;
};

/* Before 5.14 (2f064a59a11f renamed it). */
struct task_struct___state {
	volatile long state;
};

struct compact_control {
	int order;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#endif
