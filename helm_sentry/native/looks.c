/* Looking, which changes nothing: stat(2) and its like, and what is missing for access(2) and readlink(2). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "serving.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* The caller's memory is written only while the call is known to be the caller's. */

static int tell(struct receiver *receiver, const struct seccomp_notif *asked, uint64_t address, const void *found,
		size_t size)
{
	struct iovec ours = {(void *)found, size};
	struct iovec theirs = {(void *)(uintptr_t)address, size};
	if (ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked->id))
		return 0; /* there is nobody to tell */
	if (process_vm_writev((pid_t)asked->pid, &ours, 1, &theirs, 1, 0) != (ssize_t)size)
		return -EFAULT;
	respond(receiver, asked, 0, 0);
	return 0;
}

/* fstat(2) as newer C libraries make it: an empty path, which asks for nothing that a policy decides. */
static enum outcome look_at_descriptor(struct receiver *receiver, const struct seccomp_notif *asked)
{
	int number = (int)asked->data.args[0];
	char link[48];
	struct stat status;
	snprintf(link, sizeof link, "%u/fd/%d", asked->pid, number);
	if (number < 0 || fstatat(receiver->proc, link, &status, AT_NO_AUTOMOUNT))
		return FOR_BROKER;
	if (tell(receiver, asked, asked->data.args[2], &status, sizeof status))
		return FOR_BROKER;
	receiver->unjudged++;
	return SERVED;
}

static int is_empty(const struct seccomp_notif *asked, uint64_t address)
{
	char first = 'x';
	struct iovec ours = {&first, 1}, theirs = {(void *)(uintptr_t)address, 1};
	return !address || (process_vm_readv((pid_t)asked->pid, &ours, 1, &theirs, 1, 0) == 1 && !first);
}

/* What a look at a path asks for: where the path stands among the arguments, and how the answer is given. */
struct look {
	int at, flags;
	uint64_t address;
	int extended; /* statx(2) */
};

static struct look look_of(const struct receiver *receiver, const struct seccomp_notif *asked)
{
	const struct numbers *numbers = &receiver->numbers;
	const uint64_t *arguments = (const uint64_t *)asked->data.args;
	if (asked->data.nr == numbers->newfstatat)
		return (struct look){1, (int)arguments[3], arguments[2], 0};
	if (asked->data.nr == numbers->statx)
		return (struct look){1, (int)arguments[2], arguments[4], 1};
	return (struct look){0, asked->data.nr == numbers->lstat ? AT_SYMLINK_NOFOLLOW : 0, arguments[1], 0};
}

/* Whether the kernel takes these arguments; it looks at them before it looks at the path. */
static int is_look(const struct seccomp_notif *asked, const struct look *look)
{
	const int known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH;
	if (!look->extended)
		return !(look->flags & ~known);
	return !(look->flags & ~(known | AT_STATX_SYNC_TYPE)) &&
	       (look->flags & AT_STATX_SYNC_TYPE) != AT_STATX_SYNC_TYPE &&
	       !((uint32_t)asked->data.args[3] & STATX__RESERVED);
}

struct found {
	struct stat status;
	struct statx extended;
};

static enum outcome answer_look(struct receiver *receiver, const struct seccomp_notif *asked, const struct look *look,
				const struct known *known, const struct found *found, struct refusal *refusal)
{
	refusal->sequence = write_record(receiver, asked, known, NULL);
	if (refusal->sequence < 0)
		return FOR_BROKER;
	refusal->error = -(look->extended ? tell(receiver, asked, look->address, &found->extended, sizeof found->extended)
					  : tell(receiver, asked, look->address, &found->status, sizeof found->status));
	return refusal->error ? REFUSED : SERVED;
}

static int look_again(const struct seccomp_notif *asked, const struct look *look, int opened, struct found *found)
{
	return statx(opened, "", (look->flags & AT_STATX_SYNC_TYPE) | AT_EMPTY_PATH, (unsigned int)asked->data.args[3],
		     &found->extended);
}

static enum outcome look_at_path(struct receiver *receiver, const struct seccomp_notif *asked, const struct look *look,
				 struct known *known, struct refusal *refusal)
{
	struct found found;
	int opened = open_plainly(known, O_PATH | O_NOFOLLOW, &found.status);
	if (opened < 0 && errno != ENOENT)
		return FOR_BROKER;
	mode_t type = opened < 0 ? 0 : found.status.st_mode & S_IFMT;
	known->decided = decided_of_type(receiver, asked->data.nr, known, type);
	if (opened < 0)
		return known->decided && !known->decided->type ? tell_missing(receiver, asked, known) : FOR_BROKER;
	int meant = known->decided && (type != S_IFLNK || look->flags & AT_SYMLINK_NOFOLLOW) &&
		    is_meant(receiver, known, opened, &found.status) &&
		    !(look->extended && look_again(asked, look, opened, &found));
	close(opened);
	return meant ? answer_look(receiver, asked, look, known, &found, refusal) : FOR_BROKER;
}

enum outcome serve_look(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	const struct look look = look_of(receiver, asked);
	if (receiver->tracer || !is_look(asked, &look))
		return FOR_BROKER;
	if (look.flags & AT_EMPTY_PATH && is_empty(asked, asked->data.args[1]))
		return look.extended ? FOR_BROKER : look_at_descriptor(receiver, asked);
	char path[LONGEST_PATH];
	struct known known = {path, read_path(receiver, asked, look.at, path), NULL};
	return known.size ? look_at_path(receiver, asked, &look, &known, refusal) : FOR_BROKER;
}

/* Of access(2) and readlink(2) only this is answered: that there is nothing. */

static int where_path_is(const struct numbers *numbers, const struct seccomp_notif *asked)
{
	const uint64_t *arguments = (const uint64_t *)asked->data.args;
	int nr = asked->data.nr;
	if (nr == numbers->access)
		return arguments[1] & ~7U ? -1 : 0;
	if (nr == numbers->faccessat || nr == numbers->faccessat2)
		return arguments[2] & ~7U || (nr == numbers->faccessat2 && arguments[3] & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW))
			       ? -1
			       : 1;
	if (nr == numbers->readlink)
		return (int)arguments[2] > 0 ? 0 : -1;
	return nr == numbers->readlinkat && (int)arguments[3] > 0 ? 1 : -1;
}

enum outcome serve_missing(struct receiver *receiver, const struct seccomp_notif *asked)
{
	char path[LONGEST_PATH];
	int at = where_path_is(&receiver->numbers, asked);
	size_t size = at < 0 || receiver->tracer ? 0 : read_path(receiver, asked, at, path);
	struct known known = {path, size, NULL};
	known.decided = decided_about(receiver, asked->data.nr, &known);
	return known.decided && !known.decided->type ? tell_missing(receiver, asked, &known) : FOR_BROKER;
}
