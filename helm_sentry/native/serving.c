/* What the compiled receiver does about one call: opens for reading, looks, and calls without pointers that the broker has
 * decided before. What changes something is in effects.c.
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
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define REPEATABLE_FLAGS (O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_DIRECTORY)

/* The caller's path, made absolute, in `path` of LONGEST_PATH bytes; its length, or 0 where the broker must look. */

size_t read_string(const struct receiver *receiver, pid_t tid, uint64_t address, char *text, size_t room)
{
	size_t in_page = PAGE - address % PAGE; /* in two pieces: the page after the one it ends in may be unmapped */
	struct iovec ours = {text, room}, theirs[] = {{(void *)(uintptr_t)address, room < in_page ? room : in_page},
						     {(void *)(uintptr_t)(address + in_page), 0}};
	theirs[1].iov_len = room - theirs[0].iov_len;
	ssize_t got = receiver->tracer ? tracer_read(receiver->tracer, tid, ours, theirs)
				       : process_vm_readv(tid, &ours, 1, theirs, 2, 0);
	const char *end = got > 0 ? memchr(text, 0, (size_t)got) : NULL;
	return end ? (size_t)(end - text) : 0;
}

static size_t directory_of(const struct receiver *receiver, pid_t tid, int number, char *path, size_t room)
{
	static const char deleted[] = " (deleted)";
	char link[48];
	if (number == AT_FDCWD)
		snprintf(link, sizeof link, "%d/cwd", tid);
	else
		snprintf(link, sizeof link, "%d/fd/%d", tid, number);
	ssize_t got = readlinkat(receiver->proc, link, path, room);
	if (got <= 0 || (size_t)got >= room || path[0] != '/')
		return 0;
	size_t size = (size_t)got, mark = sizeof deleted - 1;
	return size >= mark && !memcmp(path + size - mark, deleted, mark) ? 0 : size;
}

size_t tidy(char *path, size_t size)
{
	size_t kept = 0;
	for (size_t i = 0; i < size; i++) {
		int twice = path[i] == '/' && path[i + 1] == '/', here = path[i] == '/' && !strncmp(path + i, "/./", 3);
		i += (size_t)here;
		if (!twice && !here)
			path[kept++] = path[i];
	}
	path[kept] = 0;
	return kept;
}

/* `at`: the path is the second argument, beneath the directory that is the first. */
static size_t read_path(const struct receiver *receiver, const struct seccomp_notif *asked, int at, char *path)
{
	char written[256];
	size_t size = read_string(receiver, (pid_t)asked->pid, asked->data.args[at], written, sizeof written);
	if (!size)
		return 0;
	if (written[0] == '/') {
		memcpy(path, written, size + 1);
		return tidy(path, size);
	}
	int directory = at ? (int)asked->data.args[0] : AT_FDCWD;
	size_t base = directory_of(receiver, (pid_t)asked->pid, directory, path, LONGEST_PATH - sizeof written - 1);
	if (!base)
		return 0;
	if (base > 1)
		path[base++] = '/';
	memcpy(path + base, written, size + 1);
	return tidy(path, base + size);
}

/* What the kernel calls an open file. To find the link /proc/self/fd/N takes as long as to read it, so the links are kept,
 * opened themselves; each says what lies at its number at present. */
ssize_t name_of(struct receiver *receiver, int descriptor, char *name, size_t room)
{
	char number[16];
	int link = descriptor < LINKS ? receiver->links[descriptor] : 0;
	if (link)
		return readlinkat(link, "", name, room);
	snprintf(number, sizeof number, "%d", descriptor);
	link = descriptor < LINKS ? openat(receiver->held, number, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
	int none = 0;
	if (link > 0 && !atomic_compare_exchange_strong(&receiver->links[descriptor], &none, link))
		close(link);
	return readlinkat(receiver->held, number, name, room);
}

int is_named(struct receiver *receiver, int opened, const char *path, size_t size)
{
	char name[LONGEST_PATH];
	return name_of(receiver, opened, name, sizeof name) == (ssize_t)size && !memcmp(name, path, size);
}

/* Whether an object, reached by a name just now, bears it. Of the one that was decided about by itself the kernel has said so
 * before; it is asked about any other. */
static int is_meant(struct receiver *receiver, const struct known *known, int opened, const struct stat *status)
{
	const struct decided *decided = known->decided;
	int here = status->st_dev == decided->device;
	if ((status->st_mode & S_IFMT) != decided->type || (decided->beneath && !here))
		return 0;
	if (!decided->beneath && here && status->st_ino == decided->inode)
		return 1;
	return is_named(receiver, opened, known->path, known->size);
}

/* A name without links, opened so that nothing can make us wait. */
static int open_again(struct receiver *receiver, const struct known *known, int flags, struct stat *status)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_NO_SYMLINKS};
	int opened = (int)syscall(SYS_openat2, AT_FDCWD, known->path, &how, sizeof how);
	if (opened < 0)
		return -1;
	if (!fstat(opened, status) && is_meant(receiver, known, opened, status))
		return opened;
	close(opened);
	return -1;
}

/* Whether a path stands in a record as it is: nothing to escape in JSON, no `%`, no byte beyond ASCII. */
int is_plain(const char *path, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (path[i] < ' ' || path[i] > '~' || path[i] == '"' || path[i] == '\\' || path[i] == '%')
			return 0;
	return 1;
}

/* What was decided about a path or, by the type of what is there at present, about all beneath a directory above it. The
 * type is looked at first, because opening a FIFO would tell its other side. */
static const struct decided *decided_about(const struct receiver *receiver, int nr, const char *path, size_t size)
{
	struct stat status = {.st_mode = 0};
	if (!size)
		return NULL;
	const struct decided *found = decisions_find(&receiver->decisions, nr, path, size);
	if (found || !receiver->beneath.used || !is_plain(path, size))
		return found;
	if (fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) && errno != ENOENT)
		return NULL;
	return decisions_above(&receiver->beneath, key_beneath(nr, status.st_mode & S_IFMT, 0), path, size);
}

/* Handing the descriptor over: it is added, then its number is the answer. One step (SECCOMP_ADDFD_FLAG_SEND) would do,
 * but if this thread is stopped or frozen at that moment the kernel takes the descriptor back and answers 0 all the
 * same; adding alone is taken up again. */

static void respond(struct receiver *receiver, const struct seccomp_notif *asked, int value, uint32_t flags)
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

static enum outcome tell_missing(struct receiver *receiver, const struct seccomp_notif *asked, struct known *known)
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
	int opened = open_again(receiver, opening, O_NONBLOCK | O_NOCTTY | (flags & O_DIRECTORY), &status);
	if (opened < 0)
		return FOR_BROKER;
	refusal->sequence = -1;
	if (flags & O_NONBLOCK || !fcntl(opened, F_SETFL, 0))
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
	struct known known = {path, size, decided_about(receiver, asked->data.nr, path, size)};
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

/* Looking. The caller's memory is written only while the call is known to be the caller's. */

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

static enum outcome answer_look(struct receiver *receiver, const struct seccomp_notif *asked, const struct look *look,
				const struct known *known, struct refusal *refusal)
{
	struct stat status;
	struct statx extended;
	int opened = open_again(receiver, known, O_PATH | O_NOFOLLOW, &status);
	if (opened < 0)
		return FOR_BROKER;
	int failed = look->extended && statx(opened, "", (look->flags & AT_STATX_SYNC_TYPE) | AT_EMPTY_PATH,
					     (unsigned int)asked->data.args[3], &extended);
	close(opened);
	refusal->sequence = failed ? -1 : write_record(receiver, asked, known, NULL);
	if (refusal->sequence < 0)
		return FOR_BROKER;
	refusal->error = -(look->extended ? tell(receiver, asked, look->address, &extended, sizeof extended)
					  : tell(receiver, asked, look->address, &status, sizeof status));
	return refusal->error ? REFUSED : SERVED;
}

static enum outcome serve_look(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	const struct look look = look_of(receiver, asked);
	if (receiver->tracer || !is_look(asked, &look))
		return FOR_BROKER;
	if (look.flags & AT_EMPTY_PATH && is_empty(asked, asked->data.args[1]))
		return look.extended ? FOR_BROKER : look_at_descriptor(receiver, asked);
	char path[LONGEST_PATH];
	size_t size = read_path(receiver, asked, look.at, path);
	struct known known = {path, size, decided_about(receiver, asked->data.nr, path, size)};
	if (!known.decided || (known.decided->type == S_IFLNK && !(look.flags & AT_SYMLINK_NOFOLLOW)))
		return FOR_BROKER;
	return known.decided->type ? answer_look(receiver, asked, &look, &known, refusal)
				   : tell_missing(receiver, asked, &known);
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

static enum outcome serve_missing(struct receiver *receiver, const struct seccomp_notif *asked)
{
	char path[LONGEST_PATH];
	int at = where_path_is(&receiver->numbers, asked);
	size_t size = at < 0 || receiver->tracer ? 0 : read_path(receiver, asked, at, path);
	struct known known = {path, size, decided_about(receiver, asked->data.nr, path, size)};
	return known.decided && !known.decided->type ? tell_missing(receiver, asked, &known) : FOR_BROKER;
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
