/* What all calls have in common that change something. */
#ifndef HELM_SENTRY_EFFECTS_H
#define HELM_SENTRY_EFFECTS_H

#include "names.h"

#define MODE_BITS 07777

/* What was decided about all beneath a directory above a name, or NULL. `type`: of the file that is opened, else 0. */
const struct decided *decided_alike(const struct receiver *receiver, const struct seccomp_notif *asked, uint32_t type,
				    uint32_t manner, const struct name *name);
/* Let this thread, whose file system context is its own, create files as the caller would. A mode that we masked would not
 * do: a directory's default ACL takes the place of the mask. Returns 0 where the broker must look. */
int take_umask(const struct receiver *receiver, const struct seccomp_notif *asked);
/* Write the record of what is about to be done; 0 where it is the broker's. */
int record_first(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *known,
		 const struct stat *object, struct refusal *refusal);

#endif
