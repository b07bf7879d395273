/* Names that a call is to change something about, each in its directory. */
#ifndef HELM_SENTRY_NAMES_H
#define HELM_SENTRY_NAMES_H

#include "serving.h"

/* Members after `path` are set by `name_hold`. */
struct name {
	int base;    /* the directory that the path is relative to, held; AT_FDCWD of an absolute path */
	size_t from; /* where in `path` begins what the caller wrote */
	size_t size;
	char path[LONGEST_PATH];
	int directory;	 /* holds the name; its own path is what stands before the name in `path` */
	uint64_t device; /* the directory's */
	uint32_t type;	 /* of what bears the name, which is not followed; 0: nothing does */
	const char *leaf;
};

/* Read the path in argument `at`, relative to a descriptor of the caller's or AT_FDCWD, and make it absolute. Returns 0
 * where the broker must look. */
int name_read(struct receiver *receiver, const struct seccomp_notif *asked, int directory, int at, struct name *name);
/* Hold the directory of a name that was read. Returns 0 where the broker must look. */
int name_hold(struct receiver *receiver, struct name *name);
/* Close what is held, after either. */
void name_drop(struct name *name);

#endif
