/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits for its standard input, alone, until there is something: `polls poll` or `polls epoll`. SIGUSR1
 * has a handler and ends a wait. Prints what each wait ended with: 0, or the number of the error.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

static void ignore(int signal)
{
	(void)signal;
}

int main(int count, char **words)
{
	struct sigaction action = {.sa_handler = ignore};
	struct epoll_event event = {.events = EPOLLIN};
	struct pollfd input = {.fd = 0, .events = POLLIN};
	int set = epoll_create1(EPOLL_CLOEXEC);
	int got;

	if (count < 2 || set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, 0, &event))
		return 1;
	sigaction(SIGUSR1, &action, NULL);
	do {
		errno = 0;
		got = strcmp(words[1], "poll") ? epoll_wait(set, &event, 1, -1)
					       : poll(&input, 1, -1);
		printf("%d\n", errno);
		fflush(stdout);
	} while (got <= 0);
	return 0;
}
