/* The compiled part of the tracer: what libreceiver.so offers to library.py and receiver.c. Belongs to the thread that
 * traces. Errors are negative errno values. */
#ifndef HELM_SENTRY_TRACER_H
#define HELM_SENTRY_TRACER_H

#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE_MARK "helm-sentry page" /* 16 bytes; _MARK in injection.py */

/* A tracee's id and wait status. */
struct stop {
	int32_t pid, status;
};

struct tracer;
/* Both ends of the channel, its key, and where the page lies in the agent's processes. */
struct tracer *tracer_new(int ours, int theirs, uint64_t key, uint64_t place);
/* Wait for any tracee. Returns 0, or -ECHILD when there is none. */
int tracer_next(struct tracer *tracer, struct stop *stop);
/* Wait for one tracee that runs, keep what the others report, and return its wait status. */
int tracer_until(struct tracer *tracer, pid_t tid);
/* Whether a stop is at a call; `asked` is filled in then, all but the id. */
int tracer_asked(struct tracer *tracer, const struct stop *stop, struct seccomp_notif *asked);
/* Read two pieces of a thread's memory, of as many bytes as there is room for, and return how much could be read, by whole
 * pieces; 0 where nothing could or it has not the page ready for a message. */
ssize_t tracer_read(const struct tracer *tracer, pid_t tid, struct iovec room, const struct iovec pieces[2]);
/* Put a copy of a descriptor, which is closed then, into a thread that stands at a call, have it return its number there,
 * and return it. -ESRCH
 * says that the thread is gone; after another error it still stands, and is to be answered. */
int tracer_hand_over(struct tracer *tracer, pid_t tid, int descriptor, int flags, int steer);
/* How to know which way is the quicker one; called once, first. */
struct steering;
void tracer_steer(struct tracer *tracer, const struct steering *steering);
/* Hold this thread to one processor while it waits for a lone caller, and let it go; its threads inherit what it has. */
void tracer_hold(struct tracer *tracer);
void tracer_let_go(struct tracer *tracer);

#endif
