/* The decisions that the compiled receiver repeats. Whoever calls holds the receiver's lock. */
#include "decisions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TEXTS 6

struct entry {
	uint64_t hash;
	struct decided decided; /* its texts lie in `store` */
	char store[];
};

static uint64_t hash_name(int nr, const char *name, size_t size)
{
	uint64_t hash = 14695981039346656037ULL ^ (uint64_t)nr; /* FNV-1a */
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (unsigned char)name[i]) * 1099511628211ULL;
	return hash;
}

static size_t place_of(const struct decisions *decisions, int nr, const char *name, size_t size)
{
	uint64_t hash = hash_name(nr, name, size);
	for (size_t place = hash % PLACES;; place = (place + 1) % PLACES) {
		const struct entry *entry = decisions->places[place];
		if (!entry || (entry->hash == hash && entry->decided.nr == nr && entry->decided.name.size == size &&
			       !memcmp(entry->decided.name.bytes, name, size)))
			return place;
	}
}

const struct decided *decisions_find(const struct decisions *decisions, int nr, const char *name, size_t size)
{
	const struct entry *entry = decisions->places[place_of(decisions, nr, name, size)];
	return entry ? &entry->decided : NULL;
}

int32_t key_beneath(int32_t nr, uint32_t type, uint32_t manner)
{
	return (int32_t)((uint32_t)nr | (type & S_IFMT) | manner << 16);
}

const struct decided *decisions_above(const struct decisions *decisions, int32_t key, const char *path, size_t size)
{
	const struct decided *found = NULL;
	while (!found && size > 1) /* the root is nobody's */
		if (path[--size] == '/')
			found = decisions_find(decisions, key, path, size);
	return found;
}

void decisions_clear(struct decisions *decisions)
{
	for (size_t i = 0; i < PLACES; i++) {
		free(decisions->places[i]);
		decisions->places[i] = NULL;
	}
	decisions->used = 0;
}

static char *store(char *place, struct text *text)
{
	memcpy(place, text->bytes, text->size);
	place[text->size] = 0;
	text->bytes = place;
	return place + text->size + 1;
}

static struct entry *entry_of(const struct decided *decided)
{
	struct decided copy = *decided;
	struct text *texts[TEXTS] = {&copy.name, &copy.action, &copy.ops, &copy.reason, &copy.target, &copy.end};
	size_t room = 0;
	for (size_t i = 0; i < TEXTS; i++)
		room += texts[i]->size + 1;
	struct entry *entry = malloc(sizeof *entry + room);
	if (!entry)
		return NULL;
	char *place = entry->store;
	for (size_t i = 0; i < TEXTS; i++)
		place = store(place, texts[i]);
	entry->decided = copy;
	entry->hash = hash_name(copy.nr, copy.name.bytes, copy.name.size);
	return entry;
}

int decisions_keep(struct decisions *decisions, const struct decided *decided)
{
	struct entry *entry = entry_of(decided);
	if (!entry)
		return -ENOMEM;
	if (decisions->used >= PLACES / 2)
		decisions_clear(decisions);
	size_t place = place_of(decisions, decided->nr, decided->name.bytes, decided->name.size);
	decisions->used += decisions->places[place] == NULL;
	free(decisions->places[place]);
	decisions->places[place] = entry;
	return 0;
}
