/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Detours: stretches that a thread spends in a memory slow path (rule 8). They begin and end in the
 * thread's own context, outside interrupts, so its stack of open detours has one writer.
 */
#ifndef LACUNA_MEMORY_H
#define LACUNA_MEMORY_H

/* Ancestors of a memory cgroup that are looked at for the limit that it met. */
#define MEMORY_DEPTH 16
/* A charge that meets a limit is of this many pages at most: the largest folio and a batch. */
#define CHARGE_PAGES 1024

/* Shorter detours are sums, where neither a switch nor another detour is in the way. */
#define DETOUR_NS 10000

static __always_inline struct thread_state *watched_current(void)
{
	struct thread_state *state = thread_known(current_task());

	return state && state->flags & THREAD_WATCHED ? state : NULL;
}

/* Pages that it may still use. */
static __always_inline s64 headroom(struct mem_cgroup *group)
{
	u64 max = BPF_CORE_READ(group, memory.max), high = BPF_CORE_READ(group, memory.high);

	return (max < high ? max : high) - BPF_CORE_READ(group, memory.usage.counter);
}

/*
 * Whose limit is reclaimed for: only 7.2 says it. The charge did not fit into that ancestor and did
 * into those below it, so it is the one with the least headroom. 0: none is near its limit, as where
 * somebody from outside asks for reclaim.
 */
static __noinline u64 limited_cgroup(void)
{
	struct css_set *set = BPF_CORE_READ(current_task(), cgroups);
	struct cgroup_subsys_state *css = NULL;
	s64 least = CHARGE_PAGES;
	u64 limited = 0;
	u32 id;

	if (!bpf_core_type_exists(struct mem_cgroup))
		return 0;
	id = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	bpf_core_read(&css, sizeof(css), &set->subsys[id]);
	for (u32 i = 0; i < MEMORY_DEPTH && css; i++) {
		s64 room = headroom((struct mem_cgroup *)css);

		if (room < least) {
			least = room;
			limited = BPF_CORE_READ(css, cgroup, kn, id);
		}
		css = BPF_CORE_READ(css, parent);
	}
	return limited;
}

/* Where an open detour of a kind is; OPEN_DETOURS: there is none. */
static __always_inline u32 open_place(struct thread_state *state, u32 kind)
{
	for (u32 i = 0; i < OPEN_DETOURS; i++)
		if (i < state->detour_depth && state->detours[i].kind == kind)
			return i;
	return OPEN_DETOURS;
}

/*
 * Those from a place on have ended unseen. They are numbered without a record, and thereby known to
 * be missing.
 */
static __always_inline void forget_from(struct cpu_state *cpu, struct thread_state *state, u32 place)
{
	if (place >= state->detour_depth)
		return;
	cpu->detours_lost += state->detour_depth - place;
	state->detour_seq += state->detour_depth - place;
	state->detour_depth = place;
}

static __always_inline void detour_begin(u32 kind, u64 detail)
{
	struct thread_state *state = watched_current();
	struct cpu_state *cpu = this_cpu();
	u32 depth;

	if (!state || !cpu)
		return;
	/* None of these paths lies in another of its kind: PF_MEMALLOC forbids it. */
	forget_from(cpu, state, open_place(state, kind));
	depth = state->detour_depth;
	if (depth >= OPEN_DETOURS) {
		cpu->detours_lost++;
		return;
	}
	state->detours[depth].begin = bpf_ktime_get_ns();
	state->detours[depth].kind = kind;
	state->detours[depth].detail = detail;
	state->detour_depth = depth + 1;
}

static __always_inline void emit_detour(struct cpu_state *cpu, struct thread_state *state,
					struct open_detour *detour, u64 now)
{
	struct detour_record *record;

	state->detour_seq++;
	record = reserve(cpu, sizeof(*record));
	if (!record)
		return;
	fill_header(&record->header, RECORD_DETOUR, state->id);
	record->begin = detour->begin;
	record->end = now;
	record->detail = detour->detail;
	record->detour_seq = state->detour_seq;
	record->detour = detour->kind;
	submit(cpu, record);
}

/*
 * An end without a beginning began before the thread was watched: it is numbered, so that its time, as
 * far as that is recorded, is known to be in a missing detour.
 */
static __always_inline void detour_end(u32 kind)
{
	struct thread_state *state = watched_current();
	struct cpu_state *cpu = this_cpu();
	struct open_detour *detour;
	u32 place;
	u64 now;

	if (!state || !cpu)
		return;
	place = open_place(state, kind);
	if (place >= OPEN_DETOURS) {
		cpu->detours_lost++;
		state->detour_seq++;
		return;
	}
	forget_from(cpu, state, place + 1);
	detour = &state->detours[place];
	state->detour_depth = place;
	now = bpf_ktime_get_ns();
	/* A sum is of running time outside of others: whatever else is told as it is. */
	if (now - detour->begin >= DETOUR_NS || place || detour->begin < state->last_in)
		emit_detour(cpu, state, detour, now);
	else if (kind - 1 < SHORT_DETOURS)
		state->short_ns[kind - 1] += now - detour->begin;
}

#endif
