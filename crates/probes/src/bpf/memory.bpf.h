/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Detours: stretches that a thread spends in a memory slow path (rule 8). They begin and end in the
 * thread's own context, outside interrupts, so its stack of open detours has one writer.
 */
#ifndef LACUNA_MEMORY_H
#define LACUNA_MEMORY_H

/* Shorter detours are sums. */
#define DETOUR_NS 10000

static __always_inline struct thread_state *watched_current(void)
{
	struct thread_state *state = thread_known(bpf_get_current_task_btf());

	return state && state->flags & THREAD_WATCHED ? state : NULL;
}

static __always_inline void detour_begin(u32 kind, u32 detail)
{
	struct thread_state *state = watched_current();
	struct cpu_state *cpu = this_cpu();
	u32 depth;

	if (!state || !cpu)
		return;
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

/* An end closes the innermost open detour; one of another kind has no beginning and is ignored. */
static __always_inline void detour_end(u32 kind)
{
	struct thread_state *state = watched_current();
	struct cpu_state *cpu = this_cpu();
	struct open_detour *detour;
	u32 depth;
	u64 now;

	if (!state || !cpu)
		return;
	depth = state->detour_depth - 1;
	if (depth >= OPEN_DETOURS || state->detours[depth].kind != kind) {
		cpu->detours_lost++;
		return;
	}
	detour = &state->detours[depth];
	state->detour_depth = depth;
	now = bpf_ktime_get_ns();
	if (now - detour->begin >= DETOUR_NS)
		emit_detour(cpu, state, detour, now);
	else if (kind - 1 < SHORT_DETOURS)
		state->short_ns[kind - 1] += now - detour->begin;
}

#endif
