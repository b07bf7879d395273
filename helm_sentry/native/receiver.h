/* The compiled receiver: what libreceiver.so offers to library.py. Errors are negative errno values. */
#ifndef HELM_SENTRY_RECEIVER_H
#define HELM_SENTRY_RECEIVER_H

#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "tracer.h"

#define HEX_HASH 64
#define LONGEST_PATH 1024 /* a longer path is served by the broker */

/* A piece of a record in canonical bytes. */
struct text {
	const char *bytes;
	size_t size;
};

/* The state of an audit log, shared with Python (audit/log.py); held under `lock` by whoever appends. */
struct log_state {
	uint64_t count;      /* records written */
	uint64_t size;       /* bytes written */
	uint64_t allowed;    /* decisions with the verdict ALLOW among the records */
	int32_t file;        /* descriptor, O_APPEND */
	int32_t closed;      /* nothing may be appended any more; the error, where the receiver could not write */
	char head[HEX_HASH]; /* hash of the last record, in hex */
	pthread_mutex_t lock;
};

/* A record cut where the log or the receiver fills something in; see audit/record.py, Line. */
struct line {
	struct text before_hash, before_prev, before_seq, before_time, end;
};

int log_init(struct log_state *log, int file, const char *first_prev);
void log_lock(struct log_state *log);
void log_unlock(struct log_state *log);
/* Append one decision and return its sequence number; -ESHUTDOWN when the log takes none, or write(2)'s error. */
int64_t log_append(struct log_state *log, const struct line *line, int allowed);

struct decided;
struct receiver;
struct numbers {
	int32_t open, openat, stat, lstat, newfstatat, socket, connect; /* -1 where the architecture has none */
	int32_t statx, access, faccessat, faccessat2, readlink, readlinkat;
	int32_t mkdir, mkdirat, unlink, rmdir, unlinkat, rename, renameat, renameat2;
};
struct receiver *receiver_new(int listener, struct log_state *log, uint32_t audit_arch, const struct numbers *numbers,
			      int steer);
/* Serve decided calls until one needs the broker: return 0 when it must serve `notification`, 1 when the record
 * `refusal` names was written and then no descriptor could be handed over, or a negative errno. */
struct address {
	uint32_t size;
	char bytes[28]; /* struct sockaddr_in6 */
};
struct refusal {
	int64_t sequence;
	int64_t error; /* errno that the caller is to get; 0: a connect that may wait and is to be gone on with */
	int32_t descriptor; /* then, a duplicate of the caller's socket */
	struct address address;
};
int receiver_next(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal);
/* The same for a thread besides the one that does that: it serves, on one processor, while more calls are waiting. */
int receiver_help(struct receiver *receiver, int processor, struct seccomp_notif *notification,
		  struct refusal *refusal);
/* Take calls from a tracer instead of the listener. */
void receiver_trace(struct receiver *receiver, struct tracer *tracer);
/* The same for a tracer; 2 when `stop` is none of a call and somebody must deal with it. */
int receiver_next_traced(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal,
			 struct stop *stop);
/* Let the receiver repeat a decision. Returns 0, or -ENOMEM, and then the broker goes on serving this call. */
int receiver_learn(struct receiver *receiver, const struct decided *decided, uint64_t epoch);
/* Forget every decision, and take none of another epoch from now on. No decision that was forgotten is being repeated
 * when this returns. */
void receiver_forget(struct receiver *receiver, uint64_t epoch);
/* What became of the calls that arrived here. Read in this order: nothing is counted before its call. */
struct receiver_counts {
	uint64_t recorded; /* the record was written here */
	uint64_t unjudged; /* answered here without one: it asked for nothing that a policy decides */
	uint64_t continued; /* left to the kernel, or about to be */
	uint64_t received;
};
void receiver_counts(struct receiver *receiver, struct receiver_counts *counts);
/* A TCP connection that was begun here. */
struct begun {
	uint64_t cookie; /* SO_COOKIE */
	int64_t sequence;
	struct address address;
};
/* Copy those that were begun since the last time, in order, to room for MOST_BEGUN, and return how many. */
uint32_t receiver_begun(struct receiver *receiver, struct begun *room);
/* Return when no call is being served. */
void receiver_settle(struct receiver *receiver);
/* A descriptor to lock entries by between runs: of a file that each supervisor has opened for itself. */
void receiver_share_entries(struct receiver *receiver, int descriptor);
/* Keep the receiver from making directories and from moving entries meanwhile; see entries.c. Whoever has the lock must not
 * call what waits for calls that are being served: `receiver_learn`, `receiver_forget`, `receiver_settle`. */
void receiver_lock_entries(struct receiver *receiver);
void receiver_unlock_entries(struct receiver *receiver);

#endif
