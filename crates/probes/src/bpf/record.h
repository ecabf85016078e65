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
	FLAG_ENDED = 1 << 8,     /* `object` alone was ready as the thread was woken from an epoll wait */
	FLAG_SOLE = 1 << 9,      /* `object` alone was asked about, and no signal was there at the waking */
	FLAG_INPUT = 1 << 11,    /* with one of these: it was asked whether it could be read */
	FLAG_OUTPUT = 1 << 12,   /* the same, written; not for a connection that had something to read */
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
	CALL_SELECT,     /* a number of descriptors and three sets of them */
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

#endif
