/* What the compiled receiver does about one call: opens for reading and calls without pointers that the broker has decided
 * before, and what is common to all. Looks are in looks.c, what changes something is in effects.c.
 *
 * It knows no policy. Python teaches it one canonical path at a time, with the record's parts, or a directory beneath
 * which all paths are decided alike. It opens the path again without following any link, sees that what it got is the
 * object that was decided about, or bears that very name, writes the record, and hands the descriptor over, or tells what
 * it is, or that it is not there. A call that may go on it knows by its arguments, which lie in registers. Whatever is not
 * exactly so goes to the broker, which starts from the beginning.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "serving.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REPEATABLE_FLAGS (O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_DIRECTORY)

/* Of the object that was decided about by itself the kernel has said before that it bears the name; it is asked about any
 * other. */
int is_meant(struct receiver *receiver, const struct known *known, int opened, const struct stat *status)
{
	const struct decided *decided = known->decided;
	int here = status->st_dev == decided->device;
	if ((status->st_mode & S_IFMT) != decided->type || (decided->beneath && !here))
		return 0;
	if (!decided->beneath && here && status->st_ino == decided->inode)
		return 1;
	return is_named(receiver, opened, known->path, known->size);
}

int open_plainly(const struct known *known, int flags, struct stat *status)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_NO_SYMLINKS};
	int opened = (int)syscall(SYS_openat2, AT_FDCWD, known->path, &how, sizeof how);
	if (opened >= 0 && fstat(opened, status)) {
		close(opened);
		opened = -1;
	}
	return opened;
}

static const struct decided *decided_beneath(const struct receiver *receiver, int nr, const struct known *known,
					     mode_t type)
{
	if (!receiver->beneath.used || !is_plain(known->path, known->size))
		return NULL;
	return decisions_above(&receiver->beneath, key_beneath(nr, type, 0), known->path, known->size);
}

const struct decided *decided_of_type(const struct receiver *receiver, int nr, const struct known *known, mode_t type)
{
	const struct decided *found = decisions_find(&receiver->decisions, nr, known->path, known->size);
	return found ? found : decided_beneath(receiver, nr, known, type);
}

const struct decided *decided_about(const struct receiver *receiver, int nr, const struct known *known)
{
	struct stat status = {.st_mode = 0};
	const struct decided *found = known->size ? decisions_find(&receiver->decisions, nr, known->path, known->size) : NULL;
	if (found || !known->size || !receiver->beneath.used)
		return found;
	if (fstatat(AT_FDCWD, known->path, &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) && errno != ENOENT)
		return NULL;
	return decided_beneath(receiver, nr, known, status.st_mode & S_IFMT);
}

/* Handing the descriptor over: it is added, then its number is the answer. One step (SECCOMP_ADDFD_FLAG_SEND) would do,
 * but if this thread is stopped or frozen at that moment the kernel takes the descriptor back and answers 0 all the
 * same; adding alone is taken up again. */

void respond(struct receiver *receiver, const struct seccomp_notif *asked, int value, uint32_t flags)
{
	struct seccomp_notif_resp response = {.id = asked->id, .flags = flags};
	if (value < 0)
		response.error = value;
	else
		response.val = value;
	ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* fails only if the caller is gone */
}

static int add(struct receiver *receiver, const struct seccomp_notif *asked, int descriptor, int flags)
{
	struct seccomp_notif_addfd request = {
		.id = asked->id,
		.srcfd = (uint32_t)descriptor,
		.newfd_flags = (uint32_t)(flags & O_CLOEXEC),
	};
	int number = ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &request);
	return number < 0 ? -errno : number;
}

static int notify(struct receiver *receiver, const struct seccomp_notif *asked, int descriptor, int flags, int steer)
{
	cpu_set_t before;
	enum place place = steer ? narrow((pid_t)asked->pid, &before) : ELSEWHERE;
	int number = add(receiver, asked, descriptor, flags);
	if (place == NARROWED)
		widen((pid_t)asked->pid, &before);
	close(descriptor);
	if (number < 0)
		return number;
	respond(receiver, asked, number, 0);
	return number;
}

static uint64_t nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Return the descriptor's number in the caller, or a negative errno. Ours is closed before the caller runs on: when it
 * closes a FIFO it has the last of it. */
static int hand_over(struct receiver *receiver, const struct seccomp_notif *asked, int descriptor, int flags)
{
	int steer = steering_choose(&receiver->steering);
	uint64_t begin = nanoseconds();
	int number = receiver->tracer
			     ? tracer_hand_over(receiver->tracer, (pid_t)asked->pid, descriptor, flags, steer)
			     : notify(receiver, asked, descriptor, flags, steer);
	steering_learn(&receiver->steering, steer, nanoseconds() - begin);
	return number;
}

enum outcome give(struct receiver *receiver, const struct seccomp_notif *asked, int descriptor, int flags,
		  struct refusal *refusal)
{
	int number = hand_over(receiver, asked, descriptor, flags);
	refusal->error = -number;
	/* -ENOENT, -EINPROGRESS and -ESRCH say that the caller is gone. */
	return number < 0 && number != -ENOENT && number != -EINPROGRESS && number != -ESRCH ? REFUSED : SERVED;
}

/* Records. */

int64_t write_record(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *known,
		     const struct stat *object)
{
	const struct decided *decided = known->decided;
	char ops[512], tid[512 + 6 * LONGEST_PATH];
	int ops_size = object ? snprintf(ops, sizeof ops, "\",\"object\":\"%llx:%llx\"%s",
					 (unsigned long long)object->st_dev, (unsigned long long)object->st_ino,
					 decided->ops.bytes)
			      : snprintf(ops, sizeof ops, "\"%s", decided->ops.bytes);
	int tid_size = decided->beneath
			       ? snprintf(tid, sizeof tid, "%s%.*s\",\"tid\":%u,\"time\":", decided->target.bytes,
					  (int)known->size, known->path, asked->pid)
			       : snprintf(tid, sizeof tid, "%s%u,\"time\":", decided->target.bytes, asked->pid);
	if (ops_size >= (int)sizeof ops || tid_size >= (int)sizeof tid)
		return -EMSGSIZE;
	struct line line = {
		.before_hash = decided->action,
		.before_prev = {ops, (size_t)ops_size},
		.before_seq = decided->reason,
		.before_time = {tid, (size_t)tid_size},
		.end = decided->end,
	};
	int64_t sequence = log_append(receiver->log, &line, 1);
	receiver->recorded += sequence >= 0;
	return sequence;
}

/* What is not there: a name that is missing in a directory which bears the name that the path gives it. Of a path on which
 * more is missing that is the first one, which `known` is shortened to: where the rest would lead is no matter. */
static int is_missing(struct receiver *receiver, struct known *known)
{
	char path[LONGEST_PATH];
	struct stat status;
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	memcpy(path, known->path, known->size + 1);
	char *leaf = (char *)memrchr(path, '/', known->size) + 1;
	int opened = -1;
	while (*leaf && strcmp(leaf, ".") && strcmp(leaf, "..")) {
		leaf[-1] = 0;
		opened = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
		size_t above = (size_t)(leaf - path) - 1;
		if (opened >= 0 || errno != ENOENT || above <= known->decided->name.size + 1)
			break;
		known->size = above;
		leaf = (char *)memrchr(path, '/', above) + 1;
	}
	if (opened < 0)
		return 0;
	int missing = is_named(receiver, opened, path, (size_t)(leaf - path) - 1) && !fstat(opened, &status) &&
		      status.st_dev == known->decided->device &&
		      fstatat(opened, leaf, &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) && errno == ENOENT;
	close(opened);
	return missing;
}

enum outcome tell_missing(struct receiver *receiver, const struct seccomp_notif *asked, struct known *known)
{
	if (receiver->tracer || !is_missing(receiver, known) || write_record(receiver, asked, known, NULL) < 0)
		return FOR_BROKER;
	respond(receiver, asked, -ENOENT, 0);
	return SERVED;
}

static enum outcome open_for(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *opening,
			   int flags, struct refusal *refusal)
{
	struct stat status;
	int opened = open_plainly(opening, O_NONBLOCK | O_NOCTTY | (flags & O_DIRECTORY), &status);
	if (opened < 0)
		return FOR_BROKER;
	refusal->sequence = -1;
	if (is_meant(receiver, opening, opened, &status) && (flags & O_NONBLOCK || !fcntl(opened, F_SETFL, 0)))
		refusal->sequence = write_record(receiver, asked, opening, &status);
	if (refusal->sequence >= 0)
		return give(receiver, asked, opened, flags, refusal);
	close(opened);
	return FOR_BROKER;
}

static enum outcome serve_open(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	int at = asked->data.nr == receiver->numbers.openat;
	int flags = (int)asked->data.args[at + 1];
	if (flags & ~REPEATABLE_FLAGS)
		return serve_writing(receiver, asked, at, refusal);
	char path[LONGEST_PATH];
	size_t size = read_path(receiver, asked, at, path);
	if (flags & O_DIRECTORY && size > 1 && path[size - 1] == '/') /* says the same */
		path[--size] = 0;
	struct known known = {path, size, NULL};
	known.decided = decided_about(receiver, asked->data.nr, &known);
	if (!known.decided || known.decided->type == S_IFLNK)
		return FOR_BROKER;
	if (!known.decided->type)
		return tell_missing(receiver, asked, &known);
	if (flags & O_DIRECTORY && known.decided->type != S_IFDIR)
		return FOR_BROKER;
	return open_for(receiver, asked, &known, flags, refusal);
}

/* The kernel carries out what it found in the caller's registers, and so did we: there is no race. */
static enum outcome let_go_on(struct receiver *receiver, const struct seccomp_notif *asked)
{
	char name[48];
	const uint64_t *arguments = (const uint64_t *)asked->data.args;
	int size = snprintf(name, sizeof name, "%d %d %d", (int)arguments[0], (int)arguments[1], (int)arguments[2]);
	struct known going = {name, (size_t)size,
			      decisions_find(&receiver->decisions, asked->data.nr, name, (size_t)size)};
	if (!going.decided || receiver->tracer || write_record(receiver, asked, &going, NULL) < 0)
		return FOR_BROKER;
	receiver->continued++;
	respond(receiver, asked, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
	return SERVED;
}

enum outcome serve(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	const struct numbers *numbers = &receiver->numbers;
	int nr = asked->data.nr;
	if (asked->data.arch != receiver->audit_arch)
		return FOR_BROKER;
	if (nr == numbers->openat || nr == numbers->open)
		return serve_open(receiver, asked, refusal);
	if (nr == numbers->newfstatat || nr == numbers->stat || nr == numbers->lstat || nr == numbers->statx)
		return serve_look(receiver, asked, refusal);
	if (nr == numbers->connect)
		return serve_connect(receiver, asked, refusal);
	if (nr == numbers->socket)
		return let_go_on(receiver, asked);
	return changes_entries(numbers, nr) ? serve_entry(receiver, asked, refusal) : serve_missing(receiver, asked);
}
