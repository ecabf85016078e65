/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request that waits for a glibc mutex which another thread holds: the one wait of the test whose
 * owner the kernel side can read. There is no OpenTelemetry SDK here; the program writes its span as
 * an OTLP/JSON document, with its own process and thread id, as `lacuna explain --spans` takes it.
 *
 * Usage: mutex SPANS_FILE. Prints `wait NANOSECONDS HOLDER_TID` (its own clock around the lock) and
 * stays until its standard input closes.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define HOLD_NS 300000000

static pthread_mutex_t ledger = PTHREAD_MUTEX_INITIALIZER;
static sem_t ledger_is_held;
static pid_t holder_tid;

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Holds the ledger while it sleeps. */
static void *hold(void *unused)
{
	const struct timespec length = { .tv_nsec = HOLD_NS };

	(void)unused;
	holder_tid = gettid();
	pthread_mutex_lock(&ledger);
	sem_post(&ledger_is_held);
	nanosleep(&length, NULL);
	pthread_mutex_unlock(&ledger);
	return NULL;
}

static int write_span(const char *path, uint64_t start_ns, uint64_t end_ns)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return -1;
	fprintf(file,
		"{\"resourceSpans\":[{\"resource\":{\"attributes\":["
		"{\"key\":\"service.name\",\"value\":{\"stringValue\":\"mutex\"}},"
		"{\"key\":\"process.pid\",\"value\":{\"intValue\":\"%d\"}}]},"
		"\"scopeSpans\":[{\"scope\":{\"name\":\"mutex\"},\"spans\":[{"
		"\"traceId\":\"%032x\",\"spanId\":\"%016x\",\"name\":\"book\",\"kind\":1,"
		"\"startTimeUnixNano\":\"%llu\",\"endTimeUnixNano\":\"%llu\","
		"\"attributes\":[{\"key\":\"thread.native_id\",\"value\":{\"intValue\":\"%d\"}}]"
		"}]}]}]}\n",
		getpid(), getpid(), getpid(), (unsigned long long)start_ns,
		(unsigned long long)end_ns, gettid());
	return fclose(file);
}

int main(int argc, char **argv)
{
	uint64_t start, waited;
	pthread_t holder;

	if (argc != 2) {
		fputs("usage: mutex SPANS_FILE\n", stderr);
		return EXIT_FAILURE;
	}
	sem_init(&ledger_is_held, 0, 0);
	if (pthread_create(&holder, NULL, hold, NULL))
		return EXIT_FAILURE;
	sem_wait(&ledger_is_held);

	start = now_ns(CLOCK_REALTIME);
	waited = now_ns(CLOCK_MONOTONIC);
	pthread_mutex_lock(&ledger);
	waited = now_ns(CLOCK_MONOTONIC) - waited;
	if (write_span(argv[1], start, now_ns(CLOCK_REALTIME)))
		return EXIT_FAILURE;
	pthread_mutex_unlock(&ledger);

	pthread_join(holder, NULL);
	printf("wait %llu %d\n", (unsigned long long)waited, holder_tid);
	fflush(stdout);
	while (getchar() != EOF)
		;
	return EXIT_SUCCESS;
}
