/* Entries of directories that are made, removed or moved, as effects.c says.
 *
 * To move an entry is judged by whether it is a directory, which takes along what is beneath it. Those are the broker's; the
 * others must still be none when they are moved. So while an entry is looked at and changed, here or in the broker
 * (broker/tree.py), nobody else makes a directory, moves or removes an entry: that is what `entries` is for, and between runs, which one agent
 * may have several of, a lock on a file. Both are taken before
 * the caller's directory is asked for its name: one that is moved in between, perhaps to where nothing may be moved or removed,
 * would take the effect along under the name that it no longer has. What creates files needs no turn.
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
#include <sys/file.h>
#include <unistd.h>

void receiver_share_entries(struct receiver *receiver, int descriptor)
{
	receiver->shared_entries = descriptor;
}

static void lock_shared(const struct receiver *receiver, int operation)
{
	while (receiver->shared_entries >= 0 && flock(receiver->shared_entries, operation))
		if (errno != EINTR)
			abort(); /* the kernel has no memory for a lock: the run ends */
}

void receiver_lock_entries(struct receiver *receiver)
{
	pthread_mutex_lock(&receiver->entries);
	lock_shared(receiver, LOCK_EX);
}

void receiver_unlock_entries(struct receiver *receiver)
{
	lock_shared(receiver, LOCK_UN);
	pthread_mutex_unlock(&receiver->entries);
}

static enum outcome make_directory(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *known,
				   const struct name *name, mode_t mode, struct refusal *refusal)
{
	if ((!name->type && !take_umask(receiver, asked)) || !record_first(receiver, asked, known, NULL, refusal))
		return FOR_BROKER;
	/* The mask was not read for a name that was taken. Should it be free by now, that comes after this call. */
	int error = name->type ? EEXIST : mkdirat(name->directory, name->leaf, mode) ? errno : 0;
	return answer_recorded(receiver, asked, error, refusal);
}

/* Whatever the entry has become meanwhile: to remove it is judged as if it were a directory, by broker/tree.py as well. */
static enum outcome remove_entry(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *known,
				 const struct name *name, int flags, struct refusal *refusal)
{
	if (!name->type || (name->type == S_IFDIR) != (flags == AT_REMOVEDIR) ||
	    !record_first(receiver, asked, known, NULL, refusal))
		return FOR_BROKER;
	int error = unlinkat(name->directory, name->leaf, flags) ? errno : 0;
	return answer_recorded(receiver, asked, error, refusal);
}

static enum outcome change_one(struct receiver *receiver, const struct seccomp_notif *asked, const struct name *name,
			       int at, struct refusal *refusal)
{
	const struct numbers *numbers = &receiver->numbers;
	int nr = asked->data.nr, flags = nr == numbers->rmdir ? AT_REMOVEDIR : 0;
	const struct known known = {name->path, name->size, decided_alike(receiver, asked, 0, CHANGES, name)};
	if (!known.decided || known.decided->device != name->device)
		return FOR_BROKER;
	if (nr == numbers->mkdir || nr == numbers->mkdirat)
		return make_directory(receiver, asked, &known, name, (mode_t)asked->data.args[at + 1] & MODE_BITS,
				      refusal);
	if (nr == numbers->unlinkat)
		flags = (int)asked->data.args[2];
	return flags & ~AT_REMOVEDIR ? FOR_BROKER : remove_entry(receiver, asked, &known, name, flags, refusal);
}

static enum outcome serve_one(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	const struct numbers *numbers = &receiver->numbers;
	int at = asked->data.nr == numbers->mkdirat || asked->data.nr == numbers->unlinkat;
	struct name name;
	enum outcome outcome = FOR_BROKER;
	if (name_read(receiver, asked, at ? (int)asked->data.args[0] : AT_FDCWD, at, &name) && name_hold(receiver, &name))
		outcome = change_one(receiver, asked, &name, at, refusal);
	name_drop(&name);
	return outcome;
}

/* Both names are in the record, the other one only where it is another. */
static int record_move(struct receiver *receiver, const struct seccomp_notif *asked, const struct decided *decided,
		       const struct name *from, const struct name *to, struct refusal *refusal)
{
	char end[LONGEST_PATH + 512];
	struct decided both = *decided;
	const struct known moved = {from->path, from->size, &both};
	if (strcmp(from->path, to->path)) {
		int size = snprintf(end, sizeof end, ",\"to\":\"%s\"%s", to->path, decided->end.bytes);
		if (size >= (int)sizeof end)
			return 0;
		both.end = (struct text){end, (size_t)size};
	}
	return record_first(receiver, asked, &moved, NULL, refusal);
}

static int is_beneath(const struct text *directory, const struct name *name)
{
	return name->size > directory->size + 1 && name->path[directory->size] == '/' &&
	       !memcmp(name->path, directory->bytes, directory->size);
}

static enum outcome move_entry(struct receiver *receiver, const struct seccomp_notif *asked, struct name *from,
			       struct name *to, struct refusal *refusal)
{
	const struct decided *decided = decided_alike(receiver, asked, 0, CHANGES, from);
	if (!decided || !is_beneath(&decided->name, to) || !name_hold(receiver, from) || !name_hold(receiver, to))
		return FOR_BROKER;
	if (!from->type || from->type == S_IFDIR || to->type == S_IFDIR || from->device != decided->device ||
	    to->device != decided->device || !record_move(receiver, asked, decided, from, to, refusal))
		return FOR_BROKER;
	int error = renameat(from->directory, from->leaf, to->directory, to->leaf) ? errno : 0;
	return answer_recorded(receiver, asked, error, refusal);
}

static enum outcome serve_move(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	const struct numbers *numbers = &receiver->numbers;
	const uint64_t *arguments = (const uint64_t *)asked->data.args;
	int at = asked->data.nr != numbers->rename; /* each path is preceded by its directory */
	struct name from, to;
	if (asked->data.nr == numbers->renameat2 && (uint32_t)arguments[4])
		return FOR_BROKER;
	enum outcome outcome = FOR_BROKER;
	int read = name_read(receiver, asked, at ? (int)arguments[0] : AT_FDCWD, at, &from);
	read &= name_read(receiver, asked, at ? (int)arguments[2] : AT_FDCWD, at ? 3 : 1, &to);
	if (read)
		outcome = move_entry(receiver, asked, &from, &to, refusal);
	name_drop(&from);
	name_drop(&to);
	return outcome;
}

static int moves(const struct numbers *numbers, int nr)
{
	return nr == numbers->rename || nr == numbers->renameat || nr == numbers->renameat2;
}

int changes_entries(const struct numbers *numbers, int nr)
{
	return nr == numbers->mkdir || nr == numbers->mkdirat || nr == numbers->unlink || nr == numbers->rmdir ||
	       nr == numbers->unlinkat || moves(numbers, nr);
}

enum outcome serve_entry(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	if (receiver->tracer || !receiver->beneath.used)
		return FOR_BROKER;
	receiver_lock_entries(receiver); /* before the first look at what the caller's descriptors are called */
	enum outcome outcome = moves(&receiver->numbers, asked->data.nr) ? serve_move(receiver, asked, refusal)
									 : serve_one(receiver, asked, refusal);
	receiver_unlock_entries(receiver);
	return outcome;
}
