/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The wire record: what the kernel side writes into the ring and the iterator, said once for both
 * languages (the Rust types are made from these by the skeleton).
 *
 * It is not a file format: both sides always come from one build. It includes nothing and uses
 * plain integers, so it can be read by itself. One struct a kind, explicit padding, no unions, no
 * packing; sizes are asserted here and in record.rs. 0 means "not known" in every instant.
 */
#ifndef LACUNA_RECORD_H
#define LACUNA_RECORD_H

typedef unsigned char record_u8;
typedef unsigned short record_u16;
typedef unsigned int record_u32;
typedef unsigned long long record_u64;

enum record_kind {
	RECORD_NONE,
	RECORD_QUEUED,   /* a cycle that left the CPU runnable: no wait part */
	RECORD_WAIT,     /* a cycle with a wait, nothing unusual in it */
	RECORD_LONG,     /* a cycle with everything */
	RECORD_CROWDED,  /* the same, and many ran meanwhile */
	RECORD_MERGED,   /* several short cycles as sums */
	RECORD_DETOUR,
	RECORD_EXIT,
	RECORD_THREAD,
	RECORD_OBJECT,
	RECORD_STACK,
	RECORD_SNAPSHOT, /* from the iterator, never in the ring */
	RECORD_NET,      /* what a connection was like in the wait whose cycle comes next */
	RECORD_READ,     /* a thread read a request from a connection that it had not just waited for */
	RECORD_KINDS,
};

enum record_flags {
	FLAG_RUNNABLE = 1 << 0,  /* left the CPU preempted or yielding */
	FLAG_IOWAIT = 1 << 1,    /* task->in_iowait */
	FLAG_FROZEN = 1 << 2,    /* task->frozen: a frozen v2 cgroup */
	FLAG_FROM_IDLE = 1 << 3, /* the CPU was idle until this switch */
	FLAG_KERNEL = 1 << 4,    /* kernel thread or io worker */
	FLAG_ESTIMATED = 1 << 5, /* the throttled amount is an estimate */
	FLAG_QUEUED = 1 << 6,    /* snapshot: it is on a run queue, to run */
	FLAG_ASLEEP = 1 << 7,    /* snapshot: never seen to switch, and off the CPU from `out` to `at` */
	FLAG_ENDED = 1 << 8,     /* `object` alone was ready as the thread was woken from a wait in epoll or io_uring */
	FLAG_SOLE = 1 << 9,      /* `object` alone was asked about, and no signal was there at the waking */
	FLAG_INPUT = 1 << 11,    /* with one of these: it was asked whether it could be read */
	FLAG_OUTPUT = 1 << 12,   /* the same, written; not for a connection that had something to read */
	FLAG_CONNECT = 1 << 13,  /* with ENDED: it was asked to be connected */
	FLAG_NET = 1 << 10,      /* a net record was made for this cycle */
};

enum wait_entry {
	ENTRY_NONE,
	ENTRY_CALL,
	ENTRY_COMPAT, /* a system call of the 32-bit ABI */
	ENTRY_FAULT,
	ENTRY_KERNEL,
};

enum futex_kind {
	FUTEX_NONE,
	FUTEX_MUTEX,
	FUTEX_RWLOCK,
	FUTEX_PI,
	FUTEX_UNOWNED,
};

enum detour_kind {
	DETOUR_NONE,
	DETOUR_COMPACTION,
	DETOUR_MEMCG,
	DETOUR_RECLAIM,
};

/* What a system call's first argument is; the loader's table for each number. */
enum call_class {
	CALL_PLAIN,
	CALL_FD,
	CALL_CONNECT,    /* a descriptor whose file this call makes another object */
	CALL_FUTEX,
	CALL_FUTEX_WAIT, /* futex_wait(2), futex_waitv(2): no operation argument */
	CALL_RESTART,
	CALL_EPOLL,      /* a descriptor of what may become ready */
	CALL_POLL,       /* a list of descriptors and its length */
	CALL_RING,       /* a ring of io_uring, or its place among those that the thread has registered */
	CALL_SELECT,     /* a number of descriptors and three sets of them */
};

/*
 * What held of a connection from an instant on. Facts: which cause they amount to is decided elsewhere.
 * `since` is of the first of PEER_DROPPED, PEER_LOST, GAP, DROPPED, LOST, UNACKED that is set.
 */
enum net_state {
	NET_UNACKED = 1 << 0,      /* snd_una != write_seq; since the flight began, from idle */
	NET_UNSENT = 1 << 1,       /* snd_nxt != write_seq */
	NET_NAGLE = 1 << 2,        /* a small segment waits for the acknowledgement of another */
	NET_WINDOW = 1 << 3,       /* the peer's window is closed for the next segment */
	NET_CWND = 1 << 4,         /* as much is in flight as the congestion window allows */
	NET_LOST = 1 << 5,         /* a segment was sent again; since the oldest unacknowledged one was first sent */
	NET_DROPPED = 1 << 6,      /* this host dropped a segment of it; since then */
	NET_GAP = 1 << 7,          /* what arrived lies beyond a hole; since its first segment arrived */
	NET_PEER_LOST = 1 << 8,    /* LOST of the other end, on this host */
	NET_ARRIVED = 1 << 9,      /* all that was sent has arrived at the other end, on this host */
	NET_ASKED = 1 << 10,       /* bytes were written since bytes last arrived */
	NET_HEARD = 1 << 11,       /* bytes arrived since bytes were last written */
	NET_HERE = 1 << 12,        /* the other end is on this host */
	NET_PEER_DROPPED = 1 << 13,/* this host dropped a segment of the other end on its way here */
	NET_CORKED = 1 << 14,      /* a small segment waits because the program asked for it (TCP_CORK) */
	NET_UNFOLLOWED = 1 << 15,  /* half closed: arrivals are not seen; or it is not known who spoke last */
	NET_LATE = 1 << 16,        /* it held before `at` already; since when is not known */
};

/* What made the kernel send a segment again. */
enum net_resent {
	RESENT_TIMEOUT,
	RESENT_PROBE, /* tail loss probe */
	RESENT_FAST,  /* told by acknowledgements */
	RESENT_KINDS,
};

/* Why this host dropped a segment; ours, because the kernel's numbers differ between versions. */
enum drop_kind {
	DROP_NONE,    /* none of these: not of interest */
	DROP_QUEUE,   /* a queueing discipline */
	DROP_TC_OUT,  /* tc, on the way out */
	DROP_TC_IN,   /* tc, on the way in */
	DROP_FILTER,  /* netfilter */
	DROP_DEVICE,  /* a device's queue is full, or it is not ready; XDP */
	DROP_POLICY,  /* BPF of a cgroup, a security module, IPsec policy */
	DROP_NEIGHBOUR, /* no hardware address */
	DROP_ROUTE,   /* no route, or not by this way */
	DROP_SOCKET,  /* the receiving socket's buffer or backlog is full */
	DROP_CHECKSUM,
	DROP_MEMORY,
	DROP_KINDS,
};

/* Ids below this are no threads: a waker that is an interrupt, the idle task as an occupant. */
enum special_id {
	ID_UNKNOWN,
	ID_HARDIRQ,
	ID_SOFTIRQ,
	ID_IDLE,
	ID_THREADS = 4096,
};

enum record_limits {
	STACK_FRAMES = 16,
	SLICES = 4,        /* of a long record */
	SLICES_MORE = 28,  /* of a crowded one besides */
	OPEN_DETOURS = 4,
	SHORT_DETOURS = 3,
	OBJECT_NAME = 48,
	CALLS_MAX = 512, /* system call numbers that the class table knows */
	PORTS_MAX = 4,
	THREAD_TABLE_MAX = 32768, /* threads that can be known where the kernel keeps nothing for us */
	DROP_REASONS_MAX = 256,   /* of the kernel's numbers */
	DEVICE_NAME = 16,         /* IFNAMSIZ */
	NET_OWN = 8,              /* latest phases that are kept of a connection by what its own end saw, */
	NET_MIRROR = 4,           /* and by what the other end on this host saw */
};

struct record_header {
	record_u16 kind;
	record_u16 cpu;
	record_u32 flags;
	record_u64 id; /* thread, object or stack */
};

struct record_times {
	record_u64 seq;
	record_u64 end;      /* switch-in that ends the cycle */
	record_u64 prev_in;  /* switch-in that it starts with */
	record_u64 out;
	record_u64 waking;
	record_u64 enqueued;
	record_u64 waker;
};

/* What a thread was doing when it left the CPU. Of a futex call, args[0] is a keyed hash. */
struct record_wait {
	record_u64 args[4];
	record_u64 object;
	record_u32 state; /* prev_state as the tracepoint said it */
	record_u32 owner;
	record_u16 call;
	record_u8 entry;
	record_u8 futex;
	record_u8 detours[OPEN_DETOURS]; /* outermost first */
};

/* Changes since the thread's previous record. */
struct record_changes {
	record_u32 minor;
	record_u32 major;
	record_u32 detour_seq;
	record_u32 short_ns[SHORT_DETOURS];
};

struct record_brief {
	record_u16 minor;
	record_u16 major;
	record_u32 detour_seq;
};

struct queued_record {
	struct record_header header;
	struct record_times times;
	struct record_brief brief;
};

struct wait_record {
	struct record_header header;
	struct record_times times;
	struct record_wait wait;
	struct record_brief brief;
};

/* A stretch that a thread ran for; newest first, of one thread there may be several. */
struct record_slice {
	record_u64 thread;
	record_u64 ns;
};

struct long_record {
	struct record_header header;
	struct record_times times;
	struct record_wait wait;
	struct record_changes changes;
	record_u64 stack;
	record_u64 migrated_ns;
	record_u64 migrated_at;
	record_u64 throttle_ns;
	record_u64 throttle_until; /* 0: the place is not exact */
	record_u64 throttle_cgroup;
	record_u64 uncovered_ns; /* older than what the occupancy ring holds */
	struct record_slice slices[SLICES];
};

struct crowded_record {
	struct long_record base;
	struct record_slice more[SLICES_MORE];
};

struct merged_record {
	struct record_header header;
	record_u64 seq;
	record_u64 prev_in;
	record_u64 end;
	record_u64 running_ns;
	record_u64 runnable_ns;
	record_u64 idle_wake_ns;
	record_u64 blocked_ns;
	struct record_wait wait;
	struct record_changes changes;
	record_u32 count;
	record_u32 unused;
};

struct detour_record {
	struct record_header header;
	record_u64 begin;
	record_u64 end;
	record_u64 detail;
	record_u32 detour_seq;
	record_u32 detour;
};

struct exit_record {
	struct record_header header;
	record_u64 seq;
	record_u64 prev_in;
	record_u64 at;
	struct record_changes changes;
};

struct thread_record {
	struct record_header header;
	record_u64 process_start;
	record_u64 start;
	record_u64 since; /* 0: its switches are not recorded yet */
	record_u64 cgroup;
	record_u64 fs_base;
	record_u32 tid;
	record_u32 tgid;
	record_u32 ns_tid;
	record_u32 ns_tgid;
	record_u8 comm[16];
};

struct object_record {
	struct record_header header;
	record_u64 dev;
	record_u64 ino;
	record_u64 magic; /* of the file system */
	record_u32 mode;
	record_u32 netns;
	record_u16 family;
	record_u16 type;
	record_u16 protocol;
	record_u16 state;
	record_u16 local_port;  /* host order */
	record_u16 remote_port; /* network order */
	record_u32 unused;
	record_u8 local[16];
	record_u8 remote[16];
	record_u8 name[OBJECT_NAME];
};

struct stack_record {
	struct record_header header;
	record_u64 frames[STACK_FRAMES];
};

struct snapshot_record {
	struct record_header header;
	record_u64 seq;
	record_u64 at;
	record_u64 last_in;
	record_u64 out;
	record_u64 waking;
	struct record_wait wait;
	record_u32 detour_seq;
	record_u32 unused;
};

struct net_phase {
	record_u64 at;
	record_u32 since_us; /* before `at`, up to a microsecond; NET_SINCE_UNKNOWN */
	record_u32 state;
};

#define NET_SINCE_UNKNOWN 0xffffffffU

/* What this host dropped of one end since the last record of its connection; where, of the latest. */
struct net_drops {
	record_u64 at;
	record_u32 count;
	record_u32 kind; /* enum drop_kind */
	record_u32 ifindex;
	record_u32 netns;
	record_u8 device[DEVICE_NAME]; /* what it was called then */
};

/*
 * What a connection was like in a wait. The rings are as they were found while others may have written
 * to them: of an entry whose turn came between `_before` and `_after` nothing is known, nor of the one
 * that would come next.
 */
struct net_record {
	struct record_header header; /* id: the thread */
	record_u64 seq;
	record_u64 object;
	record_u64 out;
	record_u64 reader;      /* thread whose wait it ended before, 0: none */
	record_u64 peer_reader; /* who reads at the other end (netwait.bpf.h), 0: nobody yet, or not known */
	record_u64 resent_at;
	record_u32 srtt_us;
	record_u32 rtt_min_us;
	record_u32 rto_us; /* without back-off */
	record_u32 resent[RESENT_KINDS]; /* since the last record of this connection */
	record_u32 own_before;
	record_u32 own_after;
	record_u32 mirror_before;
	record_u32 mirror_after;
	record_u32 accepted;
	record_u32 unused;
	struct net_drops dropped;
	struct net_drops peer_dropped; /* of the other end */
	struct net_phase sample; /* at `out`; `at` 0: none was taken */
	struct net_phase own[NET_OWN];
	struct net_phase mirror[NET_MIRROR];
};

struct read_record {
	struct record_header header; /* id: the thread */
	record_u64 at;
	record_u16 peer_port; /* host order */
	record_u16 unused[3];
};

_Static_assert(sizeof(struct record_header) == 16, "header");
_Static_assert(sizeof(struct record_wait) == 56, "wait");
_Static_assert(sizeof(struct queued_record) == 80, "queued");
_Static_assert(sizeof(struct wait_record) == 136, "wait");
_Static_assert(sizeof(struct long_record) == 272, "long");
_Static_assert(sizeof(struct crowded_record) == 720, "crowded");
_Static_assert(sizeof(struct merged_record) == 160, "merged");
_Static_assert(sizeof(struct detour_record) == 48, "detour");
_Static_assert(sizeof(struct exit_record) == 64, "exit");
_Static_assert(sizeof(struct thread_record) == 88, "thread");
_Static_assert(sizeof(struct object_record) == 144, "object");
_Static_assert(sizeof(struct stack_record) == 144, "stack");
_Static_assert(sizeof(struct snapshot_record) == 120, "snapshot");
_Static_assert(sizeof(struct net_record) == 400, "net");
_Static_assert(sizeof(struct read_record) == 32, "read");

#endif
