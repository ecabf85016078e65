/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread holds a lock that another waits for. `locks KIND` prints the tids of owner and waiter;
 * each line on standard input is one step: take and let the other wait, then let go.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t inherits;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static const char *kind;
static int ready;

static void lock(void)
{
	if (!strcmp(kind, "rwlock"))
		pthread_rwlock_wrlock(&rwlock);
	else
		pthread_mutex_lock(!strcmp(kind, "pi") ? &inherits : &mutex);
}

static void unlock(void)
{
	if (!strcmp(kind, "rwlock"))
		pthread_rwlock_unlock(&rwlock);
	else
		pthread_mutex_unlock(!strcmp(kind, "pi") ? &inherits : &mutex);
}

static void *wait_for_it(void *unused)
{
	(void)unused;
	printf("%ld %ld\n", (long)getpid(), (long)syscall(SYS_gettid));
	fflush(stdout);
	if (!strcmp(kind, "condition")) {
		pthread_mutex_lock(&mutex);
		while (!ready)
			pthread_cond_wait(&condition, &mutex);
		pthread_mutex_unlock(&mutex);
		return NULL;
	}
	lock();
	unlock();
	return NULL;
}

int main(int count, char **words)
{
	pthread_mutexattr_t attributes;
	pthread_t waiter;
	char line[16];

	kind = count > 1 ? words[1] : "mutex";
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&inherits, &attributes);
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	if (strcmp(kind, "condition"))
		lock();
	pthread_create(&waiter, NULL, wait_for_it, NULL);
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	if (!strcmp(kind, "condition")) {
		pthread_mutex_lock(&mutex);
		ready = 1;
		pthread_cond_signal(&condition);
		pthread_mutex_unlock(&mutex);
	} else {
		unlock();
	}
	pthread_join(waiter, NULL);
	return 0;
}
