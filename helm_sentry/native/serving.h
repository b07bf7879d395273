/* What the compiled receiver does about one call. */
#ifndef HELM_SENTRY_SERVING_H
#define HELM_SENTRY_SERVING_H

#include "receiver.h"

#include "connects.h"
#include "decisions.h"
#include "steering.h"

#include <semaphore.h>
#include <sys/stat.h>

#define LINKS 256 /* descriptors below it have their link in /proc kept */

struct receiver {
	int listener, held, proc;
	struct tracer *tracer; /* takes the listener's place, if there is one */
	uint32_t audit_arch;
	struct numbers numbers;
	struct log_state *log;
	struct steering steering;
	pthread_rwlock_t table_lock; /* read while an open is served, written while the table changes */
	_Atomic uint64_t recorded, unjudged, continued, received; /* see struct receiver_counts */
	sem_t call; /* wakes a helper */
	_Atomic int asleep; /* helpers that wait for it */
	uint64_t epoch; /* of the rules its decisions were made under */
	_Atomic int links[LINKS]; /* descriptors; 0 where there is none yet */
	struct decisions decisions;
	struct decisions beneath; /* for each syscall and file type, which `nr` holds both */
	struct begun_connections begun;
};

enum outcome { SERVED, FOR_BROKER, REFUSED };

/* What a call names, a path for the most part, and what was decided about it. */
struct known {
	const char *path;
	size_t size;
	const struct decided *decided;
};

/* Serve a call that repeats what was decided. REFUSED: the record that `refusal` names is written, and its error is what
 * the caller is to get. */
enum outcome serve(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal);
enum outcome serve_connect(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal);
/* Write the record of a decision that is made again; `object` is NULL where the record names none. Returns its sequence
 * number or a negative errno. */
int64_t write_record(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *known,
		     const struct stat *object);

#endif
