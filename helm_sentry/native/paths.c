/* Paths: as the caller writes them, as they are canonical, and as the kernel calls what is open. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "serving.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096

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

size_t read_path(const struct receiver *receiver, const struct seccomp_notif *asked, int at, char *path)
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

int is_plain(const char *path, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (path[i] < ' ' || path[i] > '~' || path[i] == '"' || path[i] == '\\' || path[i] == '%')
			return 0;
	return 1;
}
