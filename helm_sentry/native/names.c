/* Names that a call is to change something about. The directory of a name is held as broker/paths.py does it: what a
 * descriptor of the caller's refers to, and what is found beneath it without following any link; and the kernel must call it
 * what the path calls it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LONGEST_WRITTEN 256

static int hold_base(const struct receiver *receiver, pid_t tid, int number)
{
	char link[48];
	if (number == AT_FDCWD)
		snprintf(link, sizeof link, "%d/cwd", tid);
	else
		snprintf(link, sizeof link, "%d/fd/%d", tid, number);
	return openat(receiver->proc, link, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* The base's path with a slash at its end, as the beginning of `path`; its length, or 0. */
static size_t name_base(struct receiver *receiver, struct name *name)
{
	static const char deleted[] = " (deleted)";
	size_t room = sizeof name->path - LONGEST_WRITTEN - 1, mark = sizeof deleted - 1;
	ssize_t got = name_of(receiver, name->base, name->path, room);
	if (got <= 0 || (size_t)got >= room || name->path[0] != '/')
		return 0;
	size_t size = (size_t)got;
	if (size >= mark && !memcmp(name->path + size - mark, deleted, mark))
		return 0;
	if (size > 1)
		name->path[size++] = '/';
	return size;
}

int name_read(struct receiver *receiver, const struct seccomp_notif *asked, int directory, int at, struct name *name)
{
	char written[LONGEST_WRITTEN];
	pid_t tid = (pid_t)asked->pid;
	size_t size = read_string(receiver, tid, asked->data.args[at], written, sizeof written);
	name->base = AT_FDCWD;
	name->directory = -1;
	name->from = 0;
	if (!size)
		return 0;
	if (written[0] != '/') {
		int base = hold_base(receiver, tid, directory);
		if (base < 0)
			return 0;
		name->base = base;
		name->from = name_base(receiver, name);
		if (!name->from)
			return 0;
	}
	memcpy(name->path + name->from, written, size + 1);
	name->size = tidy(name->path, name->from + size);
	return is_plain(name->path, name->size);
}

/* The directory is the base itself, or lies `above` bytes into the path. */
static int open_above(struct receiver *receiver, const struct name *name, size_t above)
{
	char written[LONGEST_WRITTEN];
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	if (name->base != AT_FDCWD && above < name->from)
		return name->base; /* it has just been asked for its name */
	memcpy(written, name->path + name->from, above - name->from);
	written[above - name->from] = 0;
	int opened = (int)syscall(SYS_openat2, name->base, written, &how, sizeof how);
	if (opened < 0 || is_named(receiver, opened, name->path, above))
		return opened;
	close(opened);
	return -1;
}

int name_hold(struct receiver *receiver, struct name *name)
{
	struct stat status;
	name->leaf = (const char *)memrchr(name->path, '/', name->size) + 1;
	if (!*name->leaf || !strcmp(name->leaf, ".") || !strcmp(name->leaf, ".."))
		return 0;
	name->directory = open_above(receiver, name, (size_t)(name->leaf - name->path) - 1);
	if (name->directory < 0 || fstat(name->directory, &status))
		return 0;
	name->device = status.st_dev;
	int missing = fstatat(name->directory, name->leaf, &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
	name->type = missing ? 0 : status.st_mode & S_IFMT;
	return !missing || errno == ENOENT;
}

void name_drop(struct name *name)
{
	if (name->directory >= 0 && name->directory != name->base)
		close(name->directory);
	if (name->base != AT_FDCWD)
		close(name->base);
}
