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
 * Who ran from `from` to `to`, newest first, into the CPU's slices from `first` on; slices that are not
 * needed have no length. Returns up to where it is told: `from` if all of it is.
 *
 * Not static, so that the verifier looks at it once and not on each way that leads here (it was four
 * fifths of 720,000 instructions). Such a function takes plain numbers only.
 */
__noinline u64 who_ran(u32 first, u32 end, u64 from, u64 to)
{
	struct cpu_state *cpu = this_cpu();

	if (!cpu)
		return to;
	for (u32 i = 0; i < OCCUPANCY_WALK && i < end; i++) {
		struct occupant *entry =
			&cpu->occupants[(cpu->occupied - 1 - i) % OCCUPANCY_ENTRIES];
		u64 since = entry->since;

		if (i < first)
			continue;
		if (since < from)
			since = from;
		if (since > to)
			since = to;
		cpu->slices[i].thread = entry->thread;
		cpu->slices[i].ns = to - since;
		to = since;
	}
	return to;
}

#endif
