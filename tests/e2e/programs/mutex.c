/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that need a glibc mutex, the last of which waits for another thread that holds it: the one
 * wait of the test whose owner the kernel side can read. There is no OpenTelemetry SDK here; the
 * program writes its spans as OTLP/JSON documents, with its own process and thread ids.
 *
 * Usage: mutex QUICK_FILE SLOW_FILE. Writes the quick requests' spans to the one file and the slow
 * one's to the other, prints `wait NANOSECONDS HOLDER_TID` (its own clock around the lock), and stays
 * until its standard input closes.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define QUICK_REQUESTS 300
#define QUICK_NS 200000
#define HOLD_NS 300000000

static pthread_mutex_t ledger = PTHREAD_MUTEX_INITIALIZER;
static sem_t ledger_is_held;
static pid_t holder_tid;
static unsigned int requests;

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sleep_ns(long length)
{
	const struct timespec time = { .tv_nsec = length };

	nanosleep(&time, NULL);
}

/* Holds the ledger while it sleeps. */
static void *hold(void *unused)
{
	(void)unused;
	holder_tid = gettid();
	pthread_mutex_lock(&ledger);
	sem_post(&ledger_is_held);
	sleep_ns(HOLD_NS);
	pthread_mutex_unlock(&ledger);
	return NULL;
}

static void write_head(FILE *file)
{
	fprintf(file,
		"{\"resourceSpans\":[{\"resource\":{\"attributes\":["
		"{\"key\":\"service.name\",\"value\":{\"stringValue\":\"mutex\"}},"
		"{\"key\":\"process.pid\",\"value\":{\"intValue\":\"%d\"}}]},"
		"\"scopeSpans\":[{\"scope\":{\"name\":\"mutex\"},\"spans\":[",
		getpid());
}

static void write_tail(FILE *file)
{
	fputs("]}]}]}\n", file);
}

/* Runs one request and writes its span; how long it waited for the ledger. */
static uint64_t request(FILE *file)
{
	uint64_t start = now_ns(CLOCK_REALTIME);
	uint64_t waited = now_ns(CLOCK_MONOTONIC);
	uint64_t end;

	pthread_mutex_lock(&ledger);
	waited = now_ns(CLOCK_MONOTONIC) - waited;
	end = now_ns(CLOCK_REALTIME);
	pthread_mutex_unlock(&ledger);

	requests++;
	fprintf(file,
		"{\"traceId\":\"%024x%08x\",\"spanId\":\"%016x\",\"name\":\"book\",\"kind\":1,"
		"\"startTimeUnixNano\":\"%llu\",\"endTimeUnixNano\":\"%llu\","
		"\"attributes\":[{\"key\":\"thread.native_id\",\"value\":{\"intValue\":\"%d\"}}]}",
		getpid(), requests, requests, (unsigned long long)start,
		(unsigned long long)end, gettid());
	return waited;
}

int main(int argc, char **argv)
{
	FILE *quick, *slow;
	pthread_t holder;
	uint64_t waited;

	if (argc != 3) {
		fputs("usage: mutex QUICK_FILE SLOW_FILE\n", stderr);
		return EXIT_FAILURE;
	}
	quick = fopen(argv[1], "w");
	slow = fopen(argv[2], "w");
	if (!quick || !slow)
		return EXIT_FAILURE;

	write_head(quick);
	for (int i = 0; i < QUICK_REQUESTS; i++) {
		if (i)
			fputc(',', quick);
		request(quick);
		sleep_ns(QUICK_NS);
	}
	write_tail(quick);

	sem_init(&ledger_is_held, 0, 0);
	if (pthread_create(&holder, NULL, hold, NULL))
		return EXIT_FAILURE;
	sem_wait(&ledger_is_held);
	write_head(slow);
	waited = request(slow);
	write_tail(slow);
	pthread_join(holder, NULL);

	if (fclose(quick) || fclose(slow))
		return EXIT_FAILURE;
	printf("wait %llu %d\n", (unsigned long long)waited, holder_tid);
	fflush(stdout);
	while (getchar() != EOF)
		;
	return EXIT_SUCCESS;
}
