/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the kernel reclaim memory, in one thread, and keeps its own account of it.
 *
 * `pages KIND FILE` prints its tid; each line on standard input is one step: do it, then end. After
 * the first it prints when it began and ended (CLOCK_MONOTONIC nanoseconds) and its page faults so
 * far, minor and major. It allocates nothing itself while it works.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PIECE (64 << 10)
#define PAGE 4096

static char piece[PIECE];

static unsigned long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

/* Reads the file from its beginning to its end, through the page cache. */
static int read_all(int file)
{
	ssize_t got;

	do
		got = read(file, piece, PIECE);
	while (got > 0);
	return got < 0;
}

/* Writes the file over, so that each of its pages is dirty at some time. */
static int write_all(int file, off_t bytes)
{
	for (off_t done = 0; done < bytes; done += PIECE)
		if (write(file, piece, PIECE) != PIECE)
			return 1;
	return 0;
}

/* Writes the file over and over, until the next step. */
static int write_on(int file, off_t bytes)
{
	struct pollfd input = {.events = POLLIN};
	char line[16];
	int failed = 0;

	while (!failed && !poll(&input, 1, 0))
		failed = lseek(file, 0, SEEK_SET) || write_all(file, bytes);
	return failed || !fgets(line, sizeof(line), stdin);
}

/* Looks at each page of the file through a mapping: each is a page fault. */
static int touch_all(int file, off_t bytes)
{
	volatile char *pages = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, 0);
	char sum = 0;

	if (pages == MAP_FAILED)
		return 1;
	madvise((void *)pages, bytes, MADV_RANDOM);
	for (off_t at = 0; at < bytes; at += PAGE)
		sum += pages[at];
	piece[0] = sum;
	return 0;
}

/* Tells a control file of the cgroup to give everything back: the writer does it itself. */
static int give_back(int file, const char *amount)
{
	/* Version 2 says EAGAIN where it got less than it was asked for. */
	(void)!write(file, amount, strlen(amount));
	return 0;
}

static int work(const char *kind, int file, off_t bytes, const char *amount)
{
	if (!strcmp(kind, "read"))
		return read_all(file);
	if (!strcmp(kind, "write"))
		return write_all(file, bytes);
	if (!strcmp(kind, "churn"))
		return write_on(file, bytes);
	if (!strcmp(kind, "touch"))
		return touch_all(file, bytes);
	return give_back(file, amount);
}

int main(int count, char **words)
{
	const char *amount = count > 3 ? words[3] : "0";
	unsigned long long begun, ended;
	struct rusage usage;
	struct stat stat;
	char line[16];
	int file, failed, reads;

	if (count < 3)
		return 2;
	reads = !strcmp(words[1], "read") || !strcmp(words[1], "touch");
	file = open(words[2], reads ? O_RDONLY : O_WRONLY);
	if (file < 0 || fstat(file, &stat))
		return 2;
	printf("%ld\n", (long)syscall(SYS_gettid));
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	begun = now();
	failed = work(words[1], file, stat.st_size, amount);
	ended = now();
	getrusage(RUSAGE_THREAD, &usage);
	printf("%llu %llu %ld %ld\n", begun, ended, usage.ru_minflt, usage.ru_majflt);
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return failed;
	return failed;
}
