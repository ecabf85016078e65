/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Who ran on this CPU (rule 21): a ring per CPU with one writer, the switch program of that CPU, and
 * no lock; user space never reads it. Its instants are the run queue's clock.
 */
#ifndef LACUNA_OCCUPANCY_H
#define LACUNA_OCCUPANCY_H

static __always_inline void occupy(struct cpu_state *cpu, u64 thread, u64 clock)
{
	struct occupant *entry = &cpu->occupants[cpu->occupied % OCCUPANCY_ENTRIES];

	entry->thread = thread;
	entry->since = clock;
	cpu->occupied++;
}

/*
 * Gives a slice to its thread. The first four threads met get a place; a fifth takes the smallest
 * place if its slice is larger. So the sums stay exact, and a culprit's own part is at worst too small.
 */
static __always_inline void add_culprit(struct long_record *record, u64 thread, u64 ns)
{
	struct record_culprit *smallest = &record->culprits[0];

	for (int i = 0; i < CULPRITS; i++) {
		struct record_culprit *culprit = &record->culprits[i];

		if (culprit->thread == thread) {
			culprit->ns += ns;
			return;
		}
		if (culprit->ns < smallest->ns)
			smallest = culprit;
	}
	if (smallest->ns >= ns) {
		record->rest_ns += ns;
		return;
	}
	record->rest_ns += smallest->ns;
	smallest->thread = thread;
	smallest->ns = ns;
}

/* Who ran from `from` to `to`. The idle task is nobody: its part is not covered by any thread. */
static __noinline int blame(struct cpu_state *cpu, struct long_record *record, u64 from, u64 to)
{
	for (int i = 1; i <= OCCUPANCY_WALK; i++) {
		struct occupant *entry = &cpu->occupants[(cpu->occupied - i) % OCCUPANCY_ENTRIES];
		u64 since = entry->since > from ? entry->since : from;

		if (to <= from || !entry->since)
			break;
		if (since >= to)
			continue;
		if (entry->thread == ID_IDLE || entry->thread == ID_UNKNOWN)
			record->uncovered_ns += to - since;
		else
			add_culprit(record, entry->thread, to - since);
		to = since;
	}
	if (to > from)
		record->uncovered_ns += to - from;
	return 0;
}

#endif
