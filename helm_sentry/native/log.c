/* Appending a decision to the audit log: fill the line, hash it, one write(2). The Python twin is audit/log.py. */
#include "receiver.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_LINE 8192

/* SHA-256 comes from OpenSSL's libcrypto, which Python's hashlib uses too: its three functions and 128 bytes of room
 * for a SHA256_CTX of 112, so that building needs no OpenSSL headers. */
struct sha256 {
	_Alignas(16) unsigned char room[128];
};
static int (*sha256_init)(struct sha256 *);
static int (*sha256_update)(struct sha256 *, const void *, size_t);
static int (*sha256_final)(unsigned char *, struct sha256 *);

static int load_sha256(void)
{
	static const char *const names[] = {"libcrypto.so.3", "libcrypto.so.1.1"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
		if (!library)
			continue;
		*(void **)&sha256_init = dlsym(library, "SHA256_Init");
		*(void **)&sha256_update = dlsym(library, "SHA256_Update");
		*(void **)&sha256_final = dlsym(library, "SHA256_Final");
		if (sha256_init && sha256_update && sha256_final)
			return 0;
	}
	return -ENOSYS;
}

int log_init(struct log_state *log, int file, const char *first_prev)
{
	if (load_sha256() < 0)
		return -ENOSYS;
	memset(log, 0, sizeof *log);
	log->file = file;
	memcpy(log->head, first_prev, HEX_HASH);
	return -pthread_mutex_init(&log->lock, NULL);
}

void log_lock(struct log_state *log)
{
	pthread_mutex_lock(&log->lock);
}

void log_unlock(struct log_state *log)
{
	pthread_mutex_unlock(&log->lock);
}

/* Bytes under construction; a text that does not fit sets `full`. */
struct buffer {
	char bytes[LONGEST_LINE];
	size_t size;
	int full;
};

static void put(struct buffer *buffer, const char *bytes, size_t size)
{
	if (size > sizeof buffer->bytes - buffer->size) {
		buffer->full = 1;
		return;
	}
	memcpy(buffer->bytes + buffer->size, bytes, size);
	buffer->size += size;
}

static void put_number(struct buffer *buffer, uint64_t number)
{
	char digits[20];
	size_t first = sizeof digits;
	do
		digits[--first] = (char)('0' + number % 10);
	while (number /= 10);
	put(buffer, digits + first, sizeof digits - first);
}

static uint64_t microseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* The record is hashed without its hash, for which there is room at `place`. */
static void put_hash(struct buffer *line, size_t place)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char digest[HEX_HASH / 2];
	struct sha256 state;
	const char *rest = line->bytes + place + HEX_HASH;
	sha256_init(&state);
	sha256_update(&state, line->bytes, place);
	sha256_update(&state, rest, (size_t)(line->bytes + line->size - rest) - 1); /* without the newline */
	sha256_final(digest, &state);
	for (size_t i = 0; i < sizeof digest; i++) {
		line->bytes[place + 2 * i] = digits[digest[i] >> 4];
		line->bytes[place + 2 * i + 1] = digits[digest[i] & 15];
	}
}

static int64_t append(struct log_state *log, const struct line *line, int allowed)
{
	struct buffer whole = {.size = 0, .full = 0};
	put(&whole, line->before_hash.bytes, line->before_hash.size);
	size_t hash = whole.size;
	put(&whole, log->head, HEX_HASH); /* holds the hash's place */
	put(&whole, line->before_prev.bytes, line->before_prev.size);
	put(&whole, log->head, HEX_HASH);
	put(&whole, line->before_seq.bytes, line->before_seq.size);
	put_number(&whole, log->count);
	put(&whole, line->before_time.bytes, line->before_time.size);
	put_number(&whole, microseconds());
	put(&whole, line->end.bytes, line->end.size);
	put(&whole, "\n", 1);
	if (whole.full)
		return -EMSGSIZE;
	if (log->closed)
		return -ESHUTDOWN;
	put_hash(&whole, hash);
	ssize_t written = write(log->file, whole.bytes, whole.size);
	if (written != (ssize_t)whole.size) {
		log->closed = written < 0 ? errno : ENOSPC; /* nobody can know what the file holds now */
		return -log->closed;
	}
	memcpy(log->head, whole.bytes + hash, HEX_HASH);
	log->size += whole.size;
	log->allowed += allowed != 0;
	return (int64_t)log->count++;
}

int64_t log_append(struct log_state *log, const struct line *line, int allowed)
{
	log_lock(log);
	int64_t result = append(log, line, allowed);
	log_unlock(log);
	return result;
}
