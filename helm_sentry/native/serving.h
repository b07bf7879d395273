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
	pthread_mutex_t entries; /* see entries.c */
	int shared_entries;	 /* a descriptor of the same lock between runs, or -1 */
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
/* See looks.c: stat(2) and its like; and of other calls that look, only that there is nothing. */
enum outcome serve_look(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal);
enum outcome serve_missing(struct receiver *receiver, const struct seccomp_notif *asked);
enum outcome serve_connect(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal);
/* Answer a call whose record `refusal` names; of one that failed the errors that programs count on are recorded here. */
enum outcome answer_recorded(struct receiver *receiver, const struct seccomp_notif *asked, int error,
			     struct refusal *refusal);
/* Calls that change something, see effects.c: an open for writing or one that creates, whose path is argument `at`, and
 * those that make, remove or move an entry of a directory. */
enum outcome serve_writing(struct receiver *receiver, const struct seccomp_notif *asked, int at, struct refusal *refusal);
int changes_entries(const struct numbers *numbers, int nr);
enum outcome serve_entry(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal);
/* Hand a descriptor over, which is closed then, after the record that `refusal` names. */
enum outcome give(struct receiver *receiver, const struct seccomp_notif *asked, int descriptor, int flags,
		  struct refusal *refusal);
/* End a call with a value or a negative errno, or let it go on. */
void respond(struct receiver *receiver, const struct seccomp_notif *asked, int value, uint32_t flags);
enum outcome tell_missing(struct receiver *receiver, const struct seccomp_notif *asked, struct known *known);
/* What was decided about a path or, by the type of what is there at present (0 where nothing is), about all beneath a
 * directory above it. */
const struct decided *decided_about(const struct receiver *receiver, int nr, const struct known *known);
const struct decided *decided_of_type(const struct receiver *receiver, int nr, const struct known *known, mode_t type);
/* Open a path in which there is no link, so that nothing can make us wait; whether what was found is what was decided about. */
int open_plainly(const struct known *known, int flags, struct stat *status);
int is_meant(struct receiver *receiver, const struct known *known, int opened, const struct stat *status);
/* Write the record of a decision that is made again; `object` is NULL where the record names none. Returns its sequence
 * number or a negative errno. */
int64_t write_record(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *known,
		     const struct stat *object);
/* The caller's path, made absolute, in `path` of LONGEST_PATH bytes; its length, or 0 where the broker must look. `at`: the
 * path is the second argument, beneath the directory that is the first. */
size_t read_path(const struct receiver *receiver, const struct seccomp_notif *asked, int at, char *path);
/* A text of the caller's, without its end, in `text`; its length, or 0. It is read once. */
size_t read_string(const struct receiver *receiver, pid_t tid, uint64_t address, char *text, size_t room);
/* Leave out of a path what means nothing in it, `//` and `/./`; at its end it asks for a directory. Returns its length. */
size_t tidy(char *path, size_t size);
/* What the kernel calls an open file, as readlink(2) gives it; and whether that is a path. */
ssize_t name_of(struct receiver *receiver, int descriptor, char *name, size_t room);
int is_named(struct receiver *receiver, int opened, const char *path, size_t size);
/* Whether a path stands in a record as it is: nothing to escape in JSON, no `%`, no byte beyond ASCII. */
int is_plain(const char *path, size_t size);

#endif
