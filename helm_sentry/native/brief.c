/* A timer for each call would cost as much as the call (in a virtual machine each start and stop of one leaves it). So one
 * thread looks twice a millisecond, as long as such calls are made, whether one goes on that went on at its last look. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "brief.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_EVERY 500000 /* nanoseconds */
#define QUIET 100         /* looks without any call, after which the watch sleeps until there is one */

struct brief {
	struct brief *next;
	pid_t tid;
	int signal;
	_Atomic uint32_t turn; /* odd while a call goes on */
	uint32_t seen;         /* at the last look */
};

static struct brief *_Atomic all;
static _Thread_local struct brief *here;
static atomic_int asleep;
static sem_t wake;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Returns whether any call was made since the last look. */
static int look(void)
{
	int made = 0;
	for (struct brief *brief = all; brief; brief = brief->next) {
		uint32_t turn = brief->turn;
		made |= turn != brief->seen || turn & 1;
		if (turn & 1 && turn == brief->seen)
			syscall(SYS_tgkill, getpid(), brief->tid, brief->signal);
		brief->seen = turn;
	}
	return made;
}

static void *watch(void *nothing)
{
	const struct timespec pause = {.tv_nsec = LOOK_EVERY};
	for (int quiet = 0;;) {
		nanosleep(&pause, NULL);
		quiet = look() ? 0 : quiet + 1;
		if (quiet < QUIET)
			continue;
		asleep = 1;
		/* A call that began before it could see that is seen here, one that begins later wakes us. */
		if (look())
			asleep = 0;
		else
			while (sem_wait(&wake))
				;
		quiet = 0;
	}
	return nothing;
}

static void start_watch(void)
{
	sigset_t every, before;
	pthread_t thread;
	sem_init(&wake, 0, 0);
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	if (!pthread_create(&thread, NULL, watch, NULL))
		pthread_detach(thread);
	else
		asleep = -1;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void mask(const struct brief *brief, int how)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, brief->signal);
	pthread_sigmask(how, &set, NULL);
}

struct brief *brief_new(int signal)
{
	pthread_once(&once, start_watch);
	struct brief *brief = calloc(1, sizeof *brief);
	if (!brief || asleep < 0) {
		free(brief);
		return NULL;
	}
	brief->tid = (pid_t)syscall(SYS_gettid);
	brief->signal = signal;
	mask(brief, SIG_BLOCK);
	brief->next = all;
	while (!atomic_compare_exchange_weak(&all, &brief->next, brief))
		;
	return here = brief;
}

struct brief *brief_here(void)
{
	return here;
}

int brief_is_connecting(int descriptor)
{
	uint8_t state = 0; /* the first member of struct tcp_info */
	socklen_t size = sizeof state;
	return !getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &state, &size) && state == TCP_SYN_SENT;
}

int brief_connect(struct brief *brief, int descriptor, const void *address, unsigned int size)
{
	brief->turn++;
	if (atomic_exchange(&asleep, 0))
		sem_post(&wake);
	/* Unblocked for this alone: a signal that comes too late interrupts the next connect, and nothing else. */
	mask(brief, SIG_UNBLOCK);
	int result = connect(descriptor, address, size) ? -errno : 0;
	mask(brief, SIG_BLOCK);
	brief->turn++;
	return result;
}
