/* What changes something; here, files that are created or opened for writing, in entries.c what is made, removed or moved.
 *
 * Only where everything beneath a directory is decided alike; no decision about one path alone is repeated here. What is
 * judged is a name in a directory that is held (names.c), and what is done is done to that name in that directory, never
 * following a link. The record is written first. An effect that then fails has its error recorded, as the broker does it.
 * Should another call move the directory between the look and the effect, both come out as they would have one after the
 * other.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "effects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WRITING_FLAGS (O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK)
#define STATUS_ROOM 512 /* the mask is in the second line of /proc/TID/status */

const struct decided *decided_alike(const struct receiver *receiver, const struct seccomp_notif *asked, uint32_t type,
				    uint32_t manner, const struct name *name)
{
	return decisions_above(&receiver->beneath, key_beneath(asked->data.nr, type, manner), name->path, name->size);
}

int take_umask(const struct receiver *receiver, const struct seccomp_notif *asked)
{
	static const char label[] = "\nUmask:\t";
	char link[32], text[STATUS_ROOM], *end;
	snprintf(link, sizeof link, "%u/status", asked->pid);
	int status = openat(receiver->proc, link, O_RDONLY | O_CLOEXEC);
	ssize_t size = status < 0 ? -1 : read(status, text, sizeof text - 1);
	if (status >= 0)
		close(status);
	if (size <= 0)
		return 0;
	text[size] = 0;
	const char *found = strstr(text, label);
	if (!found)
		return 0;
	unsigned long mask = strtoul(found + sizeof label - 1, &end, 8);
	if (*end != '\n')
		return 0;
	umask((mode_t)mask);
	return 1;
}

int record_first(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *known,
		 const struct stat *object, struct refusal *refusal)
{
	/* What was read under the thread's id was its own if it still waits. */
	int waits = !ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked->id);
	refusal->sequence = waits ? write_record(receiver, asked, known, object) : -1;
	return refusal->sequence >= 0;
}

/* Opens. */

static enum outcome create_file(struct receiver *receiver, const struct seccomp_notif *asked, const struct name *name,
				int flags, mode_t mode, struct refusal *refusal)
{
	const struct known creating = {
		name->path, name->size,
		decided_alike(receiver, asked, 0, CREATES | (uint32_t)(flags & O_ACCMODE), name)};
	if (!creating.decided || creating.decided->device != name->device || !take_umask(receiver, asked) ||
	    !record_first(receiver, asked, &creating, NULL, refusal))
		return FOR_BROKER;
	/* O_EXCL follows no link either. */
	int created = openat(name->directory, name->leaf, (flags & ~O_TRUNC) | O_EXCL | O_NOCTTY | O_CLOEXEC, mode);
	if (created >= 0)
		return give(receiver, asked, created, flags, refusal);
	refusal->error = errno;
	if (errno != EEXIST || flags & O_EXCL)
		return REFUSED;
	receiver->recorded--; /* somebody was quicker; what he made is for the broker to judge, who counts this call */
	return FOR_BROKER;
}

/* Hold the very file that bears a name, and open that, whatever the name leads to by then, without waiting for anybody to
 * give back a lease. Nothing is truncated yet. */
static int open_file(struct receiver *receiver, const struct known *known, const struct name *name, int flags,
		     struct stat *status)
{
	char number[16];
	int opened = -1, held = openat(name->directory, name->leaf, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (held < 0)
		return -1;
	if (is_named(receiver, held, known->path, known->size) && !fstat(held, status) && S_ISREG(status->st_mode) &&
	    status->st_dev == known->decided->device) {
		snprintf(number, sizeof number, "%d", held);
		opened = openat(receiver->held, number,
				(flags & (O_ACCMODE | O_APPEND)) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	close(held);
	if (opened < 0 || flags & O_NONBLOCK || !fcntl(opened, F_SETFL, flags & O_APPEND))
		return opened;
	close(opened);
	return -1;
}

static enum outcome write_file(struct receiver *receiver, const struct seccomp_notif *asked, const struct name *name,
			       int flags, struct refusal *refusal)
{
	struct stat status;
	uint32_t manner = (uint32_t)(flags & O_ACCMODE) | (flags & O_TRUNC ? TRUNCATES : 0);
	const struct known known = {name->path, name->size, decided_alike(receiver, asked, S_IFREG, manner, name)};
	int opened = known.decided ? open_file(receiver, &known, name, flags, &status) : -1;
	if (opened < 0)
		return FOR_BROKER;
	if (!record_first(receiver, asked, &known, &status, refusal)) {
		close(opened);
		return FOR_BROKER;
	}
	if (!(flags & O_TRUNC) || !ftruncate(opened, 0))
		return give(receiver, asked, opened, flags, refusal);
	refusal->error = errno;
	close(opened);
	return REFUSED;
}

static enum outcome open_held(struct receiver *receiver, const struct seccomp_notif *asked, const struct name *name,
			      int flags, mode_t mode, struct refusal *refusal)
{
	if (!name->type && flags & O_CREAT)
		return create_file(receiver, asked, name, flags, mode, refusal);
	if (name->type != S_IFREG || flags & O_EXCL || (flags & O_ACCMODE) == O_RDONLY)
		return FOR_BROKER;
	return write_file(receiver, asked, name, flags, refusal);
}

enum outcome serve_writing(struct receiver *receiver, const struct seccomp_notif *asked, int at, struct refusal *refusal)
{
	int flags = (int)asked->data.args[at + 1], directory = at ? (int)asked->data.args[0] : AT_FDCWD;
	struct name name;
	if (receiver->tracer || !receiver->beneath.used || flags & ~WRITING_FLAGS || (flags & O_ACCMODE) == O_ACCMODE)
		return FOR_BROKER;
	enum outcome outcome = FOR_BROKER;
	if (name_read(receiver, asked, directory, at, &name) && name_hold(receiver, &name))
		outcome = open_held(receiver, asked, &name, flags, (mode_t)asked->data.args[at + 2] & MODE_BITS, refusal);
	name_drop(&name);
	return outcome;
}
