/* The compiled receiver: takes calls as they arrive, serves those that only repeat what the broker has decided, and gives
 * the others to whoever asked it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "serving.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define LOOK_EVERY 4 /* calls between two looks whether more are waiting than one receiver serves */

static int start_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t kind;
	pthread_rwlockattr_init(&kind);
	/* Opens without end must not keep a new policy waiting. */
	pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	return pthread_rwlock_init(lock, &kind);
}

struct receiver *receiver_new(int listener, struct log_state *log, uint32_t audit_arch, const struct numbers *numbers,
			      int steer)
{
	struct receiver *receiver = calloc(1, sizeof *receiver);
	if (!receiver)
		return NULL;
	receiver->listener = listener;
	receiver->shared_entries = -1;
	receiver->log = log;
	receiver->audit_arch = audit_arch;
	receiver->numbers = *numbers;
	receiver->steering.possible = receiver->steering.on = steer;
	receiver->held = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	receiver->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (receiver->held < 0 || receiver->proc < 0 || start_lock(&receiver->table_lock) ||
	    sem_init(&receiver->call, 0, 0) || pthread_mutex_init(&receiver->begun.lock, NULL) ||
	    pthread_mutex_init(&receiver->entries, NULL)) {
		free(receiver);
		return NULL;
	}
	return receiver;
}

void receiver_counts(struct receiver *receiver, struct receiver_counts *counts)
{
	counts->recorded = receiver->recorded;
	counts->unjudged = receiver->unjudged;
	counts->continued = receiver->continued;
	counts->received = receiver->received;
}

void receiver_settle(struct receiver *receiver)
{
	pthread_rwlock_wrlock(&receiver->table_lock);
	pthread_rwlock_unlock(&receiver->table_lock);
}

/* Decisions. */

static int keep(struct receiver *receiver, const struct decided *decided)
{
	struct decided of_type = *decided;
	if (!decided->beneath)
		return decisions_keep(&receiver->decisions, decided);
	of_type.nr = key_beneath(decided->nr, decided->type, decided->manner);
	return decisions_keep(&receiver->beneath, &of_type);
}

int receiver_learn(struct receiver *receiver, const struct decided *decided, uint64_t epoch)
{
	if (decided->name.size >= LONGEST_PATH)
		return 0;
	pthread_rwlock_wrlock(&receiver->table_lock);
	int result = 0;
	if (epoch == receiver->epoch) /* else decided under rules that no longer hold */
		result = keep(receiver, decided);
	pthread_rwlock_unlock(&receiver->table_lock);
	return result;
}

void receiver_forget(struct receiver *receiver, uint64_t epoch)
{
	pthread_rwlock_wrlock(&receiver->table_lock);
	decisions_clear(&receiver->decisions);
	decisions_clear(&receiver->beneath);
	receiver->epoch = epoch;
	pthread_rwlock_unlock(&receiver->table_lock);
}

/* Receivers and helpers. Two that wait for a call would take turns, each on the other's processor, where one is all
 * that a single thread needs. So helpers sleep until calls wait while one is in hand. */

static int more_wait(const struct receiver *receiver)
{
	struct pollfd listener = {.fd = receiver->listener, .events = POLLIN};
	return poll(&listener, 1, 0) == 1 && listener.revents & POLLIN;
}

static void call_helper(struct receiver *receiver)
{
	if (receiver->asleep <= 0 || !more_wait(receiver))
		return;
	if (receiver->asleep-- > 0)
		sem_post(&receiver->call);
	else
		receiver->asleep++;
}

static int take(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal,
		int look)
{
	memset(notification, 0, sizeof *notification);
	if (ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_RECV, notification))
		return -errno;
	receiver->received++;
	if (look)
		call_helper(receiver);
	pthread_rwlock_rdlock(&receiver->table_lock);
	enum outcome outcome = serve(receiver, notification, refusal);
	pthread_rwlock_unlock(&receiver->table_lock);
	return (int)outcome;
}

int receiver_next(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal)
{
	for (unsigned int turn = 0;; turn++) {
		int outcome = take(receiver, notification, refusal, turn % LOOK_EVERY == LOOK_EVERY - 1);
		if (outcome == SERVED)
			continue;
		call_helper(receiver); /* the broker takes its time */
		return outcome < 0 ? outcome : outcome == REFUSED;
	}
}

int receiver_help(struct receiver *receiver, int processor, struct seccomp_notif *notification, struct refusal *refusal)
{
	cpu_set_t before, here;
	CPU_ZERO(&here);
	CPU_SET(processor, &here);
	sched_getaffinity(0, sizeof before, &before);
	sched_setaffinity(0, sizeof here, &here);
	int outcome = SERVED;
	while (outcome == SERVED) {
		if (!more_wait(receiver)) {
			receiver->asleep++;
			while (sem_wait(&receiver->call))
				;
		}
		outcome = take(receiver, notification, refusal, 0);
	}
	sched_setaffinity(0, sizeof before, &before); /* threads that the broker starts from here are to have it */
	return outcome < 0 ? outcome : outcome == REFUSED;
}

void receiver_trace(struct receiver *receiver, struct tracer *tracer)
{
	receiver->tracer = tracer;
	tracer_steer(tracer, &receiver->steering);
}

static int serve_traced(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal)
{
	receiver->received++;
	pthread_rwlock_rdlock(&receiver->table_lock);
	enum outcome outcome = serve(receiver, notification, refusal);
	receiver->received -= outcome == FOR_BROKER; /* it is counted where it is dealt with */
	pthread_rwlock_unlock(&receiver->table_lock);
	return (int)outcome;
}

int receiver_next_traced(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal,
			 struct stop *stop)
{
	for (;;) {
		tracer_hold(receiver->tracer);
		int result = tracer_next(receiver->tracer, stop);
		memset(notification, 0, sizeof *notification);
		int asked = !result && tracer_asked(receiver->tracer, stop, notification);
		int outcome = asked ? serve_traced(receiver, notification, refusal) : FOR_BROKER;
		if (outcome == SERVED)
			continue;
		tracer_let_go(receiver->tracer); /* threads that the broker starts from here are to have every processor */
		return result ? result : asked ? outcome == REFUSED : 2;
	}
}
