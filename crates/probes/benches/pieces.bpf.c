/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The operations that a watched switch is made of, and those that it was made of once: one in each
 * program, all at the hook where the real ones run, so that each is measured by itself. Nothing here is
 * part of Lacuna.
 */
#include "kernel.h"
#include "record.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#pragma clang diagnostic ignored "-Wunused-parameter"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What an operation gives goes here, so that none is optimised away. */
volatile u64 result;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} records SEC(".maps");

#define PIECE(name)                                                                                \
	SEC("tp_btf/sched_switch")                                                                 \
	int BPF_PROG(piece_##name, bool preempt, struct task_struct *prev, struct task_struct *next)

PIECE(nothing)
{
	return 0;
}

PIECE(time)
{
	result = bpf_ktime_get_ns();
	return 0;
}

PIECE(state)
{
	u64 *state = bpf_task_storage_get(&states, next, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (state)
		result = *state;
	return 0;
}

PIECE(record)
{
	struct wait_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

PIECE(read)
{
	u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), next);
	result = word;
	return 0;
}

static __noinline u64 called(u64 word)
{
	return word ^ result;
}

PIECE(call)
{
	result = called(preempt);
	return 0;
}

PIECE(registers)
{
	result = bpf_task_pt_regs(prev);
	return 0;
}
