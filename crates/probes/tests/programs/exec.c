/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that is not the leader runs another program, and takes the leader's tid by that. Prints
 * its own tid before; starts at a line on standard input. The program it runs waits for one more.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *run(void *unused)
{
	(void)unused;
	usleep(2000);
	printf("%ld\n", (long)syscall(SYS_gettid));
	fflush(stdout);
	usleep(2000);
	execlp("cat", "cat", (char *)NULL);
	return NULL;
}

int main(void)
{
	pthread_t thread;
	char c;

	if (read(0, &c, 1) != 1)
		return 1;
	pthread_create(&thread, NULL, run, NULL);
	pthread_join(thread, NULL);
	return 1;
}
