/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Writing into the ring: the only place that reserves and submits, so that every attempt is counted
 * and every drop, real or injected, moves the same counter.
 */
#ifndef LACUNA_RING_H
#define LACUNA_RING_H

/* How often the fill is looked at: a query at every record would cost as much as a small record. */
#define WATERMARK_EVERY 32

static __always_inline bool injected_drop(struct cpu_state *cpu)
{
	return config.drop_every && cpu->attempts % config.drop_every == 0;
}

/*
 * A waking may interrupt a program that runs with interrupts on (detours, names) within this. A lost attempt
 * costs nothing, they are counted to look at the fill now and then; a lost drop would, so those are
 * added in one go.
 *
 * Callers return on NULL before anything else, so that the two questions become one in the compiled
 * program: some verifiers (5.10) do not remember the first answer, and miss the record in the second.
 */
static __always_inline void *reserve(struct cpu_state *cpu, u64 bytes)
{
	void *record = NULL;

	cpu->attempts++;
	if (!injected_drop(cpu))
		record = bpf_ringbuf_reserve(&ring, bytes, 0);
	if (!record)
		__sync_fetch_and_add(&cpu->ring_drops, 1);
	return record;
}

/* The reader is woken by watermark; below it, it comes by itself. */
static __always_inline void submit(struct cpu_state *cpu, void *record)
{
	u64 how = BPF_RB_NO_WAKEUP;

	if (cpu->attempts % WATERMARK_EVERY == 0 &&
	    bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= config.watermark_bytes)
		how = BPF_RB_FORCE_WAKEUP;
	bpf_ringbuf_submit(record, how);
}

static __always_inline void fill_header(struct record_header *header, u16 kind, u64 id)
{
	header->kind = kind;
	header->cpu = bpf_get_smp_processor_id();
	header->flags = 0;
	header->id = id;
}

/* A hash that hides what went in: the key is random and differs with every load. */
static __always_inline u64 hash(u64 a, u64 b)
{
	u64 mixed = (a ^ config.key) * 0x9e3779b97f4a7c15ULL;

	mixed = (mixed ^ (mixed >> 29) ^ b) * 0xbf58476d1ce4e5b9ULL;
	mixed ^= mixed >> 32;
	return mixed ? mixed : 1;
}

/* Whether what this id stands for was sent already; the slot, to be set once it is. */
static __always_inline u64 *unseen(u64 id)
{
	u32 slot = id % SEEN_ENTRIES;
	u64 *entry = bpf_map_lookup_elem(&seen, &slot);

	if (!entry || *entry == id + control.sent_generation)
		return NULL;
	return entry;
}

static __always_inline void mark_seen(u64 *entry, u64 id)
{
	*entry = id + control.sent_generation;
}

#endif
