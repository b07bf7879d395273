/* The compiled receiver: repeats opens for reading that the broker has decided, without the interpreter.
 *
 * It knows no policy. Python teaches it one canonical path at a time, with the record's parts; it opens that path
 * again without following any link, sees that what it got bears that very name, writes the record, and hands the
 * descriptor over. Whatever is not exactly so goes to the broker, which starts from the beginning.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "receiver.h"
#include "steering.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PLACES 8192 /* of the table of decisions; half of them are used before it starts anew */
#define PAGE 4096
#define LOOK_EVERY 4 /* calls between two looks whether more are waiting than one receiver serves */
#define REPEATABLE_FLAGS (O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_DIRECTORY)

struct entry {
	uint64_t hash;
	struct opening opening; /* its texts lie in `store` */
	char store[];
};

struct receiver {
	int listener, held, proc;
	struct tracer *tracer; /* takes the listener's place, if there is one */
	uint32_t audit_arch;
	int nr_open, nr_openat;
	struct log_state *log;
	struct steering steering;
	pthread_rwlock_t table_lock; /* read while an open is served, written while the table changes */
	_Atomic uint64_t recorded, received;
	sem_t call; /* wakes a helper */
	_Atomic int asleep; /* helpers that wait for it */
	uint64_t epoch; /* of the rules its decisions were made under */
	size_t used;
	struct entry *table[PLACES];
};

static int start_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t kind;
	pthread_rwlockattr_init(&kind);
	/* Opens without end must not keep a new policy waiting. */
	pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	return pthread_rwlock_init(lock, &kind);
}

struct receiver *receiver_new(int listener, struct log_state *log, uint32_t audit_arch, int nr_open, int nr_openat,
			      int steer)
{
	struct receiver *receiver = calloc(1, sizeof *receiver);
	if (!receiver)
		return NULL;
	receiver->listener = listener;
	receiver->log = log;
	receiver->audit_arch = audit_arch;
	receiver->nr_open = nr_open;
	receiver->nr_openat = nr_openat;
	receiver->steering.possible = receiver->steering.on = steer;
	receiver->held = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	receiver->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (receiver->held < 0 || receiver->proc < 0 || start_lock(&receiver->table_lock) ||
	    sem_init(&receiver->call, 0, 0)) {
		free(receiver);
		return NULL;
	}
	return receiver;
}

void receiver_counts(struct receiver *receiver, struct receiver_counts *counts)
{
	counts->recorded = receiver->recorded;
	counts->received = receiver->received;
}

void receiver_settle(struct receiver *receiver)
{
	pthread_rwlock_wrlock(&receiver->table_lock);
	pthread_rwlock_unlock(&receiver->table_lock);
}

/* The table of decisions. */

static uint64_t hash_path(int nr, const char *path, size_t size)
{
	uint64_t hash = 14695981039346656037ULL ^ (uint64_t)nr; /* FNV-1a */
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (unsigned char)path[i]) * 1099511628211ULL;
	return hash;
}

static struct entry **find(struct receiver *receiver, int nr, const char *path, size_t size)
{
	uint64_t hash = hash_path(nr, path, size);
	for (size_t place = hash % PLACES;; place = (place + 1) % PLACES) {
		struct entry *entry = receiver->table[place];
		if (!entry || (entry->hash == hash && entry->opening.nr == nr && entry->opening.path.size == size &&
			       !memcmp(entry->opening.path.bytes, path, size)))
			return &receiver->table[place];
	}
}

static void start_anew(struct receiver *receiver)
{
	for (size_t i = 0; i < PLACES; i++) {
		free(receiver->table[i]);
		receiver->table[i] = NULL;
	}
	receiver->used = 0;
}

static char *keep(char *place, struct text *text)
{
	memcpy(place, text->bytes, text->size);
	place[text->size] = 0;
	text->bytes = place;
	return place + text->size + 1;
}

static struct entry *entry_of(const struct opening *opening)
{
	struct opening copy = *opening;
	struct text *texts[] = {&copy.path, &copy.action, &copy.ops, &copy.reason, &copy.target, &copy.end};
	size_t room = 0;
	for (size_t i = 0; i < 6; i++)
		room += texts[i]->size + 1;
	struct entry *entry = malloc(sizeof *entry + room);
	if (!entry)
		return NULL;
	char *place = entry->store;
	for (size_t i = 0; i < 6; i++)
		place = keep(place, texts[i]);
	entry->opening = copy;
	entry->hash = hash_path(copy.nr, copy.path.bytes, copy.path.size);
	return entry;
}

int receiver_learn(struct receiver *receiver, const struct opening *opening, uint64_t epoch)
{
	if (opening->path.size >= LONGEST_PATH)
		return 0;
	struct entry *entry = entry_of(opening);
	if (!entry)
		return -ENOMEM;
	pthread_rwlock_wrlock(&receiver->table_lock);
	if (epoch != receiver->epoch) { /* decided under rules that no longer hold */
		pthread_rwlock_unlock(&receiver->table_lock);
		free(entry);
		return 0;
	}
	if (receiver->used >= PLACES / 2)
		start_anew(receiver);
	struct entry **place = find(receiver, opening->nr, opening->path.bytes, opening->path.size);
	receiver->used += *place == NULL;
	free(*place);
	*place = entry;
	pthread_rwlock_unlock(&receiver->table_lock);
	return 0;
}

void receiver_forget(struct receiver *receiver, uint64_t epoch)
{
	pthread_rwlock_wrlock(&receiver->table_lock);
	start_anew(receiver);
	receiver->epoch = epoch;
	pthread_rwlock_unlock(&receiver->table_lock);
}

/* The caller's path, made absolute, in `path` of LONGEST_PATH bytes; its length, or 0 where the broker must look. */

static size_t read_string(const struct receiver *receiver, pid_t tid, uint64_t address, char *text, size_t room)
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

static size_t read_path(const struct receiver *receiver, const struct seccomp_notif *asked, char *path)
{
	int at = asked->data.nr == receiver->nr_openat;
	char written[256];
	size_t size = read_string(receiver, (pid_t)asked->pid, asked->data.args[at], written, sizeof written);
	if (!size)
		return 0;
	if (written[0] == '/') {
		memcpy(path, written, size + 1);
		return size;
	}
	int directory = at ? (int)asked->data.args[0] : AT_FDCWD;
	size_t base = directory_of(receiver, (pid_t)asked->pid, directory, path, LONGEST_PATH - sizeof written - 1);
	if (!base)
		return 0;
	if (base > 1)
		path[base++] = '/';
	memcpy(path + base, written, size + 1);
	return base + size;
}

/* Opening. */

/* A name without links, opened so that nothing can make us wait, is the object only if the kernel calls it so. */
static int open_again(const struct receiver *receiver, const struct opening *opening, int flags, struct stat *status)
{
	struct open_how how = {
		.flags = (uint64_t)(O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (flags & O_DIRECTORY)),
		.resolve = RESOLVE_NO_SYMLINKS,
	};
	int opened = (int)syscall(SYS_openat2, AT_FDCWD, opening->path.bytes, &how, sizeof how);
	if (opened < 0)
		return -1;
	char number[16], name[LONGEST_PATH];
	snprintf(number, sizeof number, "%d", opened);
	ssize_t size = readlinkat(receiver->held, number, name, sizeof name);
	if (size == (ssize_t)opening->path.size && !memcmp(name, opening->path.bytes, (size_t)size) &&
	    !fstat(opened, status) && (status->st_mode & S_IFMT) == opening->type &&
	    (flags & O_NONBLOCK || !fcntl(opened, F_SETFL, 0)))
		return opened;
	close(opened);
	return -1;
}

/* Handing the descriptor over: it is added, then its number is the answer. One step (SECCOMP_ADDFD_FLAG_SEND) would do,
 * but if this thread is stopped or frozen at that moment the kernel takes the descriptor back and answers 0 all the
 * same; adding alone is taken up again. */

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
	if (number < 0)
		return number;
	struct seccomp_notif_resp response = {.id = asked->id, .val = number};
	ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* fails only if the caller is gone */
	return number;
}

static uint64_t nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Return the descriptor's number in the caller, or a negative errno. */
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

/* Records. */

static int64_t write_record(struct receiver *receiver, const struct seccomp_notif *asked, const struct opening *opening,
			    const struct stat *status)
{
	char ops[512], tid[512 + 6 * LONGEST_PATH];
	int ops_size = snprintf(ops, sizeof ops, "\",\"object\":\"%llx:%llx\"%s", (unsigned long long)status->st_dev,
				(unsigned long long)status->st_ino, opening->ops.bytes);
	int tid_size = snprintf(tid, sizeof tid, "%s%u,\"time\":", opening->target.bytes, asked->pid);
	if (ops_size >= (int)sizeof ops || tid_size >= (int)sizeof tid)
		return -EMSGSIZE;
	struct line line = {
		.before_hash = opening->action,
		.before_prev = {ops, (size_t)ops_size},
		.before_seq = opening->reason,
		.before_time = {tid, (size_t)tid_size},
		.end = opening->end,
	};
	return log_append(receiver->log, &line, 1);
}

enum outcome { SERVED, FOR_BROKER, REFUSED };

static enum outcome answer(struct receiver *receiver, const struct seccomp_notif *asked, const struct opening *opening,
			   int flags, struct refusal *refusal)
{
	struct stat status;
	int opened = open_again(receiver, opening, flags, &status);
	if (opened < 0)
		return FOR_BROKER;
	int number = 0;
	refusal->sequence = write_record(receiver, asked, opening, &status);
	if (refusal->sequence >= 0)
		number = hand_over(receiver, asked, opened, flags);
	close(opened);
	if (refusal->sequence < 0)
		return FOR_BROKER;
	receiver->recorded++;
	refusal->error = -number;
	/* -ENOENT, -EINPROGRESS and -ESRCH say that the caller is gone. */
	return number < 0 && number != -ENOENT && number != -EINPROGRESS && number != -ESRCH ? REFUSED : SERVED;
}

static enum outcome serve(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	int at = asked->data.nr == receiver->nr_openat;
	if (asked->data.arch != receiver->audit_arch || (!at && asked->data.nr != receiver->nr_open))
		return FOR_BROKER;
	int flags = (int)asked->data.args[at + 1];
	if (flags & ~REPEATABLE_FLAGS)
		return FOR_BROKER;
	char path[LONGEST_PATH];
	size_t size = read_path(receiver, asked, path);
	const struct entry *entry = size ? *find(receiver, asked->data.nr, path, size) : NULL;
	if (!entry || (flags & O_DIRECTORY && entry->opening.type != S_IFDIR))
		return FOR_BROKER;
	return answer(receiver, asked, &entry->opening, flags, refusal);
}

static int take(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal)
{
	memset(notification, 0, sizeof *notification);
	if (ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_RECV, notification))
		return -errno;
	receiver->received++;
	pthread_rwlock_rdlock(&receiver->table_lock);
	enum outcome outcome = serve(receiver, notification, refusal);
	pthread_rwlock_unlock(&receiver->table_lock);
	return (int)outcome;
}

/* Receivers and helpers. Two that wait for a call would take turns, each on the other's processor, where one is all
 * that a single thread needs. So helpers sleep until more calls are waiting than are being served. */

static int more_wait(const struct receiver *receiver)
{
	struct pollfd listener = {.fd = receiver->listener, .events = POLLIN};
	return poll(&listener, 1, 0) == 1 && listener.revents & POLLIN;
}

static void call_helper(struct receiver *receiver)
{
	if (receiver->asleep <= 0 || !more_wait(receiver))
		return;
	if (receiver->asleep-- > 0)
		sem_post(&receiver->call);
	else
		receiver->asleep++;
}

int receiver_next(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal)
{
	for (unsigned int turn = 0;; turn++) {
		if (turn % LOOK_EVERY == LOOK_EVERY - 1)
			call_helper(receiver);
		int outcome = take(receiver, notification, refusal);
		if (outcome == SERVED)
			continue;
		call_helper(receiver); /* the broker takes its time */
		return outcome < 0 ? outcome : outcome == REFUSED;
	}
}

int receiver_help(struct receiver *receiver, int processor, struct seccomp_notif *notification, struct refusal *refusal)
{
	cpu_set_t before, here;
	CPU_ZERO(&here);
	CPU_SET(processor, &here);
	sched_getaffinity(0, sizeof before, &before);
	sched_setaffinity(0, sizeof here, &here);
	int outcome = SERVED;
	while (outcome == SERVED) {
		if (!more_wait(receiver)) {
			receiver->asleep++;
			while (sem_wait(&receiver->call))
				;
		}
		outcome = take(receiver, notification, refusal);
	}
	sched_setaffinity(0, sizeof before, &before); /* threads that the broker starts from here are to have it */
	return outcome < 0 ? outcome : outcome == REFUSED;
}

void receiver_trace(struct receiver *receiver, struct tracer *tracer)
{
	receiver->tracer = tracer;
	tracer_steer(tracer, &receiver->steering);
}

static int serve_traced(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal)
{
	receiver->received++;
	pthread_rwlock_rdlock(&receiver->table_lock);
	enum outcome outcome = serve(receiver, notification, refusal);
	receiver->received -= outcome == FOR_BROKER; /* it is counted where it is dealt with */
	pthread_rwlock_unlock(&receiver->table_lock);
	return (int)outcome;
}

int receiver_next_traced(struct receiver *receiver, struct seccomp_notif *notification, struct refusal *refusal,
			 struct stop *stop)
{
	for (;;) {
		tracer_hold(receiver->tracer);
		int result = tracer_next(receiver->tracer, stop);
		memset(notification, 0, sizeof *notification);
		int asked = !result && tracer_asked(receiver->tracer, stop, notification);
		int outcome = asked ? serve_traced(receiver, notification, refusal) : FOR_BROKER;
		if (outcome == SERVED)
			continue;
		tracer_let_go(receiver->tracer); /* threads that the broker starts from here are to have every processor */
		return result ? result : asked ? outcome == REFUSED : 2;
	}
}
