/* Keeping a caller on the processor of the thread that serves it, where that is the quicker way. */
#include "steering.h"

#define TRIAL_EVERY 1024
#define TRIALS 4

int steering_choose(struct steering *steering)
{
	/* Which way is quicker depends on what else the processors do, so the other one is tried now and then. */
	int trial = steering->possible && steering->turn++ % TRIAL_EVERY < TRIALS;
	return trial ? !steering->on : steering->on;
}

void steering_learn(struct steering *steering, int steer, uint64_t nanoseconds)
{
	int64_t average = (int64_t)steering->cost[steer];
	steering->cost[steer] = (uint64_t)(average + ((int64_t)nanoseconds - average) / 4);
	if (steering->possible && steering->turn % TRIAL_EVERY == TRIALS)
		steering->on = steering->cost[1] <= steering->cost[0];
}

enum place narrow(pid_t tid, cpu_set_t *before)
{
	cpu_set_t here;
	int processor = sched_getcpu();
	if (processor < 0 || processor >= CPU_SETSIZE || sched_getaffinity(tid, sizeof *before, before) ||
	    !CPU_ISSET(processor, before))
		return ELSEWHERE;
	if (CPU_COUNT(before) < 2)
		return AT_HOME;
	CPU_ZERO(&here);
	CPU_SET(processor, &here);
	return sched_setaffinity(tid, sizeof here, &here) ? ELSEWHERE : NARROWED;
}

void widen(pid_t tid, const cpu_set_t *before)
{
	sched_setaffinity(tid, sizeof *before, before); /* fails only if it is gone, or somebody changed more than that */
}
