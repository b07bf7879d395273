/* The decisions that the compiled receiver repeats, by what they are about. */
#ifndef HELM_SENTRY_DECISIONS_H
#define HELM_SENTRY_DECISIONS_H

#include "receiver.h"

#define PLACES 8192 /* of the table; half of them are used before it starts anew */

/* How a call changes something, in the place of `manner`: the access mode of an open with the first two, or the last one.
 * broker/beneath.py has the same. */
#define TRUNCATES 4U
#define CREATES 8U
#define CHANGES 16U

/* A call that was decided, and the record's parts that stay the same. An open or a look is named by its object, a
 * call that the kernel may carry out by its arguments, none of which is a pointer, a connect by its address. Or the same was
 * decided for all that lies beneath a directory, on one file system; then `target` ends where the path begins. */
struct decided {
	int32_t nr;         /* syscall number it was asked through */
	uint32_t type;      /* S_IFREG, S_IFDIR or, for a look, S_IFLNK; 0 of a call that goes on, and of what is missing; of a
			     * connect the socket's family */
	uint32_t manner;    /* what it changes, see above; 0 of reading and looking */
	uint32_t beneath;   /* all beneath `name`, but not that itself */
	uint64_t device;    /* `st_dev` of all that, or of the object */
	uint64_t inode;     /* `st_ino` of the object, which bore that name when it was decided about */
	struct text name;   /* canonical absolute path; or three arguments as text, as "%d %d %d" gives it; or a sockaddr */
	struct text action; /* record from its start to the opening quote of the hash */
	struct text ops;    /* from after the object, or the hash, to the opening quote of `prev` */
	struct text reason; /* from the end of `prev` to the value of `seq` */
	struct text target; /* from after `seq` to the value of `tid` */
	struct text end;    /* from after `time` to the end */
};

/* A hash table with open addressing. */
struct entry;
struct decisions {
	size_t used;
	struct entry *places[PLACES];
};

/* Keep a copy, in the place of an earlier decision about the same. Returns 0 or -ENOMEM. */
int decisions_keep(struct decisions *decisions, const struct decided *decided);
/* Return the decision about a name that was asked through a syscall, or NULL. */
const struct decided *decisions_find(const struct decisions *decisions, int nr, const char *name, size_t size);
/* The number under which decisions are kept about what has a type and lies beneath a directory: no syscall has so high a
 * number as to reach the bits of S_IFMT, and the manner lies above those. */
int32_t key_beneath(int32_t nr, uint32_t type, uint32_t manner);
/* Return the decision about all beneath the nearest directory above a path that has one, or NULL. */
const struct decided *decisions_above(const struct decisions *decisions, int32_t key, const char *path, size_t size);
void decisions_clear(struct decisions *decisions);

#endif
