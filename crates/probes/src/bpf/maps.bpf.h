/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Every map, its limit and what happens at the limit; and what the loader tells the programs.
 *
 * Nothing is pinned: all of it ends with the loader's descriptors.
 */
#ifndef LACUNA_MAPS_H
#define LACUNA_MAPS_H

/* Entries of the occupancy ring of a CPU; a walk looks at OCCUPANCY_WALK of them at most. */
#define OCCUPANCY_ENTRIES 64
#define OCCUPANCY_WALK (SLICES + SLICES_MORE)
/* Direct-mapped memory of what was already sent; at a collision the older one is sent again. */
#define SEEN_ENTRIES 8192
/* Processes that can be selected at once; beyond it watch_process fails. */
#define WATCHED_PROCESSES_MAX 4096
/* Connections that are known at once; the one that was looked at least gives its place to a new one. */
#define CONNECTIONS_MAX 32768
/* The real size is set at load. */
#define RING_BYTES_DEFAULT (1 << 20)

/* Fixed at load. */
struct probe_config {
	u64 key;              /* random; hides addresses */
	u64 watermark_bytes;  /* unread bytes at which the reader is woken */
	u64 runqueues_offset; /* of per-CPU variables, from BTF; 0: unknown */
	u64 preempt_offset;
	u64 current_offset;
	u64 restart_poll; /* addresses of restart functions, 0: unknown */
	u64 restart_futex;
	u64 restart_sleep;
	u64 tick_ns;
	u32 ignore_tgid;
	u32 drop_every;
	u32 skip_wakings_every;
	u32 untraced_every;
	u16 call_poll; /* numbers that the interrupted calls had */
	u16 call_futex;
	u16 call_sleep;
	u8 drop_exits;
	u8 untraced_resent;
	u8 untraced_acks;
	u8 untraced_drops;
	u8 drops_unsaid;    /* what this host drops is not told by a hook */
	u8 order_is_second; /* 7.2 swapped the arguments of direct reclaim */
	u8 net;             /* connections are followed */
};

/* Changed while running; read racily, which costs at most one switch's delay. */
struct probe_control {
	u32 watch_generation; /* moves with each of the fields below */
	u32 watch_all;
	u32 merge_short;
	u32 sent_generation; /* moves to have objects and stacks sent again */
	u32 ports[PORTS_MAX];
};

/* In `asked` of a thread, with FLAG_ENDED: what it waits on is a ring of io_uring. */
#define ASKED_RING (1 << 14)

enum watch_bits {
	WATCH_PROCESS = 1 << 0,     /* value in watched_processes */
	WATCH_DESCENDANTS = 1 << 1, /* the same, and inherited by what it starts */
};

enum thread_flags {
	THREAD_WATCHED = 1 << 0,
	THREAD_INHERITS = 1 << 1,  /* watched because an ancestor is, and passes it on */
	THREAD_ANNOUNCED = 1 << 2, /* its thread record was sent */
	THREAD_RUNNABLE = 1 << 3,  /* left the CPU runnable */
	THREAD_IOWAIT = 1 << 4,
	THREAD_FROZEN = 1 << 5,
	THREAD_THROTTLED = 1 << 6, /* a limit was (or, before 6.18, may be) denying the CPU */
	THREAD_SINCE = 1 << 7,     /* `since` was sent */
};

struct open_detour {
	u64 begin;
	u64 detail;
	u64 kind;
};

struct throttle_state {
	u64 leaf;       /* address of the leaf queue; 0: no limit */
	u64 clock;      /* its run queue's clock when the wait for a CPU began */
	u64 began;      /* C0 */
	u64 sum;        /* S0 */
	u64 closed_ns;  /* on queues that it left by migration */
	u64 periods;    /* throttled periods of all limits above, at switch-out */
	u64 cgroup;
};

/*
 * The limits above a queue. They are looked at in the CPU's memory, because the verifier follows each
 * value on the stack through the loop over them.
 */
struct limits {
	u64 throttled_periods; /* summed */
	u64 shortest_period_ns;
	u64 innermost; /* cgroups whose limits they are */
	u64 outermost;
};

struct merged_state {
	u64 start;
	u64 end;
	u64 running_ns;
	u64 runnable_ns;
	u64 idle_wake_ns;
	u64 blocked_ns;
	u32 count;
	u32 flags;
	struct record_wait wait;
};

/* The last file that was resolved for the thread: the same file is not resolved again. */
struct resolved_file {
	u64 file;
	u64 inode;
	u64 ino;
	u64 private_data;
	u64 object;
	u64 tcp; /* the sock, if it is one of TCP */
};

/* The two ends of a connection, by address. */
struct end_address {
	u64 high;
	u64 low;
	u32 port; /* as on the wire */
	u32 unused;
};

struct ends {
	struct end_address local;
	struct end_address remote;
	u64 netns; /* 0 where the addresses tell connections of this host apart */
};

/* What holds of a socket at an instant. */
struct tcp_view {
	u32 una;
	u32 nxt;
	u32 write;
	u32 received; /* rcv_nxt */
	u32 window_end;
	u32 mss;
	u32 small; /* end of the latest small segment */
	u32 nonagle;
	u32 out; /* packets */
	u32 in_flight;
	u32 allowed; /* in flight: the congestion window */
	u32 retransmitted;
	u32 holes;
	u32 pending; /* timer */
	u32 resent; /* segments, ever */
	u32 tried; /* bytes that were tried and not sent, ever, up to a constant */
	u64 flight; /* when the first of what is in flight left, if nothing of it is acknowledged */
	u64 delivered; /* when an acknowledgement of something new last came, or a flight began */
};

/* The connection that a thread waits on since it left the CPU. */
struct awaited {
	u64 sock; /* 0: none, or one that is not followed */
	u64 key;
	u64 other_key;
	struct net_phase sample; /* `at` 0: it was learned at the end of the wait */
};

/* A stretch of sequence numbers that is in trouble until it is acknowledged, or has arrived. */
struct trouble {
	u64 since; /* 0: not known */
	u64 at;    /* when it was last sent again (losses only) */
	u32 end;
	u32 set;     /* 0: there was none yet */
	u32 srtt_us; /* its sender's smoothed round trip at `at` */
	u32 unused;
};

/*
 * What we keep of one end of a TCP connection. Who may write what: `own` and what has no other remark,
 * programs that run under this socket's lock; what is marked (mirror), programs under the lock of the
 * other end; (drop), kfree_skb, wherever that runs; (wait), switches of threads that wait on it. So each
 * ring has one writer; counts of drops may miss one where two CPUs drop at once, and of threads that take
 * turns at the very same instant either may be the last.
 */
struct connection {
	u64 sock; /* whose it is: another sock at this key is another connection */
	u64 other; /* the sock at the other end, once it was shown to be that */
	u64 reader; /* (wait) the thread whose wait it ended last */
	u64 taker;  /* the thread that read from it last */
	u64 resent_at;
	u64 oldest_sent; /* when the segment at `oldest` was first sent, as last seen */
	u64 gap_since;
	u64 arrived_at; /* (mirror) when the other end had all up to `arrived`, at the latest */
	struct trouble lost;
	struct trouble peer_lost;    /* (mirror) */
	struct trouble dropped;      /* (drop) */
	struct trouble peer_dropped; /* (drop) */
	u32 watched;   /* (wait) a watched thread waited on it, or is expected to */
	u32 heard;     /* bytes have arrived */
	u32 heard_at;  /* write_seq as bytes last arrived */
	u32 turn_unknown; /* who spoke last up to there */
	u32 asked_from;   /* write_seq as what was answered last began to be written */
	u32 taken;        /* copied_seq as bytes were read last */
	u32 spoken;       /* write_seq then */
	u32 waited;       /* (wait) since then a wait for it ended, that of `reader` */
	u32 passed_on;    /* more than one thread has read from it, or waited for it (wait too) */
	u32 idle_una;  /* snd_una as nothing was in flight */
	u32 idle_tried; /* of the view, then */
	u32 oldest;
	u32 arrived;   /* (mirror) up to where the other end has everything, if there is one */
	u32 closed;
	u32 resent_seen;  /* of all segments ever sent again, those that were noticed */
	u32 peer_resent;  /* how many the other end had sent again as that was last looked at */
	u32 peer_tried;   /* the same of what it had tried */
	u32 resent[RESENT_KINDS];
	u32 resent_told[RESENT_KINDS]; /* (wait) */
	u32 drops_told;      /* (wait) */
	u32 peer_drops_told; /* (wait) */
	struct net_drops drops;      /* (drop) those ever */
	struct net_drops peer_drops; /* (drop) */
	u32 own_count;
	u32 mirror_count; /* (mirror) */
	struct net_phase own[NET_OWN];
	struct net_phase mirror[NET_MIRROR]; /* (mirror) */
};

/* What we keep of a thread, from its first sight to its end. */
struct thread_state {
	u64 task; /* whose it is; 0 or another: it was given back meanwhile (thread_table only) */
	u64 id;
	u32 flags; /* with what is before it, all that a switch of an unwatched thread reads */
	u32 watch_generation;
	u64 seq;
	u64 since;
	u64 last_in; /* 0: not seen */
	u64 out;     /* 0: on a CPU, or not seen */
	u64 waking;
	u64 waker;
	u32 asked; /* FLAG_SOLE or FLAG_ENDED: what the waking is to look for; 0: it does not poll */
	u32 told;  /* flags of what the waking told of that; 0: nothing, or not woken yet */
	u64 epoll; /* the instance or ring that it waits on, where `asked` has FLAG_ENDED */
	u64 ended; /* the object that was ready, where `told` has it */
	u64 run_delay; /* at switch-out */
	u64 runs;      /* how often it had come on a CPU, at switch-out or as `asleep_since` was set */
	u64 asleep_since; /* off the CPU from then on, where it was never seen to switch; 0: not known */
	u64 migrated_ns;
	u64 migrated_at;
	u64 minor;
	u64 major;
	u64 fs_base;
	u32 detour_seq;
	u32 detour_depth;
	u32 short_ns[SHORT_DETOURS];
	u32 unused;
	struct record_wait wait;
	struct resolved_file resolved;
	struct resolved_file ready; /* the same of what ends its epoll waits; only wakings write it */
	struct awaited awaited;
	struct throttle_state throttle; /* since it left the CPU runnable */
	struct throttle_state woken;    /* since it was woken; only before 6.18 */
	struct open_detour detours[OPEN_DETOURS];
	struct merged_state merged;
};

struct occupant {
	u64 thread;
	u64 since; /* run-queue clock */
};

/* What we keep of a CPU. Its programs never interrupt each other where it is written, but in reserve(). */
struct cpu_state {
	u64 task;    /* the task_struct that we know to be on this CPU */
	u64 thread;  /* its id */
	u64 watched; /* whether its next switch-out is recorded */
	u64 ahead;   /* how far the time is ahead of the run queue's clock, at least, since `ahead_at` */
	u64 ahead_before; /* the same of the stretch before that */
	u64 ahead_at;
	u64 variables;    /* add a per-CPU variable's offset in its section: its address; 0: not known yet */
	u64 registers_at; /* offset of the saved registers in a kernel stack; 0: not known yet */
	u64 ids;          /* how many ids this CPU has given out */
	u64 attempts;
	u64 wakings;
	u64 ring_drops;
	u64 storage_failures;
	u64 wakings_skipped;
	u64 changes; /* from unwatched to watched threads, counted where some are to be skipped */
	u64 detours_lost;
	u64 connections_lost; /* no place could be made for one, or it lost that in a wait */
	u64 occupied; /* entries ever written to the ring below */
	struct occupant occupants[OCCUPANCY_ENTRIES];
	struct record_slice slices[OCCUPANCY_WALK];
	u64 frames[STACK_FRAMES];
	struct limits limits;
	struct thread_state fresh; /* a new thread's state is prepared here */
	struct awaited awaited; /* of the switch that is under way, as the next two */
	struct ends ends;
	struct tcp_view view;
	u64 number; /* what as_number passes an address through */
};

const volatile struct probe_config config = {};
const volatile u8 call_class[CALLS_MAX] = {};
const volatile u8 drop_class[DROP_REASONS_MAX] = {}; /* enum drop_kind of each of the kernel's reasons */
struct probe_control control = {};
u64 snapshot_ids; /* ids given by the iterator; it runs once at a time */
struct thread_state snapshot_fresh;

/* One ring, so that reservation order is the order of reading (rule 10). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES_DEFAULT);
} ring SEC(".maps");

/* No limit of its own: one a thread, freed by the kernel with the thread. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread_state);
} threads SEC(".maps");

/*
 * The same before 5.12, by the address of the task; store.bpf.h says who may touch it when. At its
 * limit a thread has no state: that is counted as a storage failure at each of its switches, and its
 * time is unknown. It takes 21 MB of locked memory, and is not made where it is not needed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, THREAD_TABLE_MAX);
	__type(key, u64);
	__type(value, struct thread_state);
} thread_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEEN_ENTRIES);
	__type(key, u32);
	__type(value, u64);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCHED_PROCESSES_MAX);
	__type(key, u32);
	__type(value, u32);
} watched_processes SEC(".maps");

/*
 * By a hash of the two addresses and ports, so that the other end is found under the swapped one. All of it
 * is allocated at load (17 MB), because entries are made in softirqs and under the run queue's lock.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, u64);
	__type(value, struct connection);
} connections SEC(".maps");

static __always_inline struct cpu_state *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

#endif
