/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What a futex word says at switch-out, while its address space is still active (rule 19).
 *
 * The layouts are glibc's (2.25 on): pthread_mutex_t {lock, count, owner, nusers, kind}, and
 * pthread_rwlock_t {readers, writers, wrphase_futex, writers_futex, 2 words, cur_writer}. What does
 * not look exactly like one of these is unowned; user space asks besides that the owner is a living
 * thread of the same process.
 */
#ifndef LACUNA_FUTEX_H
#define LACUNA_FUTEX_H

/* Waiters of a contended mutex wait for 2; waiters of a rwlock for 1 | PTHREAD_RWLOCK_FUTEX_USED. */
#define MUTEX_CONTENDED 2
#define RWLOCK_WAITED 3
/* Beyond any pid_max. */
#define OWNER_MAX (1 << 22)
/* Mutex kinds are small numbers and flags below this. */
#define MUTEX_KIND_MAX 0x400

/* Words of memory around the futex; it is words[3]. */
#define FUTEX_WORDS 8
#define FUTEX_AT 3

static __always_inline bool plausible_owner(u32 tid)
{
	return tid > 0 && tid < OWNER_MAX;
}

static __always_inline void judge_mutex(struct record_wait *wait, u32 *futex)
{
	if (futex[0] != MUTEX_CONTENDED || !plausible_owner(futex[2]) ||
	    futex[4] >= MUTEX_KIND_MAX)
		return;
	wait->futex = FUTEX_MUTEX;
	wait->owner = futex[2];
}

/* words[6] is cur_writer if the futex is writers_futex, words[7] if it is wrphase_futex. */
static __always_inline void judge_rwlock(struct record_wait *wait, u32 *words)
{
	if (words[FUTEX_AT] != RWLOCK_WAITED)
		return;
	if (plausible_owner(words[6]))
		wait->owner = words[6];
	else if (plausible_owner(words[7]))
		wait->owner = words[7];
	else
		return;
	wait->futex = FUTEX_RWLOCK;
}

static __always_inline void read_futex(struct record_wait *wait, u64 address, u32 operation,
				       u32 value)
{
	u32 words[FUTEX_WORDS] = {};

	operation &= FUTEX_OP_MASK;
	wait->futex = FUTEX_UNOWNED;
	if (operation == FUTEX_OP_LOCK_PI || operation == FUTEX_OP_LOCK_PI2) {
		if (bpf_probe_read_user(words, sizeof(u32), (void *)address))
			return;
		wait->futex = FUTEX_PI;
		wait->owner = words[0] & FUTEX_TID_MASK;
		return;
	}
	if (operation == FUTEX_OP_WAIT && value == MUTEX_CONTENDED) {
		if (!bpf_probe_read_user(words, 5 * sizeof(u32), (void *)address))
			judge_mutex(wait, words);
	} else if (operation == FUTEX_OP_WAIT_BITSET && value == RWLOCK_WAITED) {
		address -= FUTEX_AT * sizeof(u32);
		if (!bpf_probe_read_user(words, sizeof(words), (void *)address))
			judge_rwlock(wait, words);
	}
}

#endif
