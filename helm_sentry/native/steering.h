/* Keeping a caller on the processor of the thread that serves it, where that is the quicker way; docs/adr/0003, 0006
 * and 0019. */
#ifndef HELM_SENTRY_STEERING_H
#define HELM_SENTRY_STEERING_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdint.h>
#include <sys/types.h>

/* Which of two ways to hand a descriptor over is quicker at present. */
struct steering {
	int possible;
	_Atomic int on;
	_Atomic unsigned int turn;
	_Atomic uint64_t cost[2]; /* nanoseconds, a moving average for each way; an update lost to another thread is no loss */
};

/* Whether to steer now: the quicker way, or now and then the other one. */
int steering_choose(struct steering *steering);
/* Take what it cost. */
void steering_learn(struct steering *steering, int steer, uint64_t nanoseconds);

/* Whether a thread is held to this processor: it may not run here, this is its only one, or it was narrowed and is to be
 * widened. */
enum place { ELSEWHERE, AT_HOME, NARROWED };
/* Hold a thread, 0 for this one, to the processor that this thread is on. */
enum place narrow(pid_t tid, cpu_set_t *before);
void widen(pid_t tid, const cpu_set_t *before);

#endif
