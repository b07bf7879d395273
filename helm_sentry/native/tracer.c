/* The compiled part of the tracer: waits for stops, and hands descriptors over to threads that stand at a call.
 * intercept/tracer.py and intercept/injection.py do the same in Python and say why. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tracer.h"
#include "steering.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#define MINE (__WALL | __WNOTHREAD)
#define SECCOMP_INFO 3 /* PTRACE_SYSCALL_INFO_SECCOMP */
#define DRAIN_EVERY 8  /* stops between two looks at who else has stopped */
#define ALONE 4        /* calls of one thread in a row, all served here, after which it is taken to be the only caller */

/* As the kernel takes it: the library's wrapper and <linux/ptrace.h> do not go together. */
static long trace(long request, pid_t tid, unsigned long address, const void *data)
{
	return syscall(SYS_ptrace, request, (long)tid, address, data);
}

struct tracer {
	int ours, theirs;
	uint64_t key;
	struct page *place; /* in the agent's processes */
	struct stop *kept;  /* a ring of stops that were heard of and not dealt with */
	size_t first, count, room;
	unsigned int turn;
	/* Where the two run; docs/adr/0019. */
	pid_t caller;	      /* who called last, */
	unsigned int in_a_row; /* how many times in a row, the first not counted, */
	int held;	      /* and whether this thread is held to one processor */
	const struct steering *steering; /* whether that is the quicker way at present */
	cpu_set_t before;
};

struct tracer *tracer_new(int ours, int theirs, uint64_t key, uint64_t place)
{
	struct tracer *tracer = calloc(1, sizeof *tracer);
	if (!tracer)
		return NULL;
	tracer->ours = ours;
	tracer->theirs = theirs;
	tracer->key = key;
	tracer->place = (struct page *)(uintptr_t)place;
	return tracer;
}

static int returned(int status)
{
	return WIFSTOPPED(status) && status >> 8 == (SIGTRAP | 0x80);
}

/* Stops, in rounds: whoever makes many calls does not come before those who make few. */

static void keep_stop(struct tracer *tracer, struct stop stop)
{
	if (tracer->count == tracer->room) {
		size_t room = tracer->room ? 2 * tracer->room : 64;
		struct stop *kept = malloc(room * sizeof *kept);
		if (!kept)
			abort(); /* a thread whose stop is lost waits for ever; without us it dies */
		for (size_t i = 0; i < tracer->count; i++)
			kept[i] = tracer->kept[(tracer->first + i) % tracer->room];
		free(tracer->kept);
		tracer->kept = kept;
		tracer->first = 0;
		tracer->room = room;
	}
	tracer->kept[(tracer->first + tracer->count++) % tracer->room] = stop;
}

static int wait_for_any(struct stop *stop, int options)
{
	pid_t pid;
	do
		pid = wait4(-1, &stop->status, MINE | options, NULL);
	while (pid < 0 && errno == EINTR);
	stop->pid = pid;
	return pid < 0 ? -errno : pid;
}

int tracer_next(struct tracer *tracer, struct stop *stop)
{
	struct stop more;
	if (tracer->count) {
		*stop = tracer->kept[tracer->first];
		tracer->first = (tracer->first + 1) % tracer->room;
		tracer->count--;
		return 0;
	}
	int result = wait_for_any(stop, 0);
	if (result < 0)
		return result;
	while (tracer->turn % DRAIN_EVERY == 0 && wait_for_any(&more, WNOHANG) > 0)
		keep_stop(tracer, more);
	tracer->turn++;
	return 0;
}

int tracer_until(struct tracer *tracer, pid_t tid)
{
	for (;;) {
		struct stop stop;
		int result = wait_for_any(&stop, 0);
		if (result < 0)
			return result;
		if (stop.pid != tid || !returned(stop.status))
			keep_stop(tracer, stop);
		if (stop.pid == tid)
			return stop.status;
	}
}

/* Where caller and tracer run. */

static int is_alone(const struct tracer *tracer, pid_t tid)
{
	return tracer->steering->on && tid == tracer->caller && tracer->in_a_row >= ALONE;
}

static void called(struct tracer *tracer, pid_t tid)
{
	if (tid == tracer->caller) {
		tracer->in_a_row++;
		return;
	}
	tracer->caller = tid;
	tracer_let_go(tracer);
}

void tracer_steer(struct tracer *tracer, const struct steering *steering)
{
	tracer->steering = steering;
}

void tracer_hold(struct tracer *tracer)
{
	if (!tracer->held && is_alone(tracer, tracer->caller))
		tracer->held = narrow(0, &tracer->before) == NARROWED;
}

void tracer_let_go(struct tracer *tracer)
{
	if (tracer->held)
		widen(0, &tracer->before);
	tracer->held = 0;
	tracer->in_a_row = 0;
}

/* It runs on this processor when we wait; if we have other stops to deal with it is to run elsewhere at once. */
static int runs_here(const struct tracer *tracer, pid_t tid)
{
	return !tracer->count && is_alone(tracer, tid);
}

static enum place bring_here(struct tracer *tracer, pid_t tid, cpu_set_t *before)
{
	enum place place = narrow(tid, before);
	if (place == ELSEWHERE) /* it may not run here: we are to be free to run where it does */
		tracer_let_go(tracer);
	return place;
}

int tracer_asked(struct tracer *tracer, const struct stop *stop, struct seccomp_notif *asked)
{
	struct ptrace_syscall_info info;
	if (!WIFSTOPPED(stop->status) || stop->status >> 8 != (SIGTRAP | PTRACE_EVENT_SECCOMP << 8) ||
	    trace(PTRACE_GET_SYSCALL_INFO, stop->pid, sizeof info, &info) <= 0 || info.op != SECCOMP_INFO)
		return 0;
	called(tracer, stop->pid);
	asked->pid = (uint32_t)stop->pid;
	asked->data.nr = (int)info.seccomp.nr;
	asked->data.arch = info.arch;
	memcpy(asked->data.args, info.seccomp.args, sizeof asked->data.args);
	return 1;
}

#ifdef __x86_64__

/* One page in each of the agent's processes; _BLANK in injection.py. */
struct page {
	char mark[16];
	struct msghdr header;
	struct iovec vector;
	union {
		struct cmsghdr control;
		char room[CMSG_SPACE(sizeof(int))];
	};
	char data[8];
};

static ssize_t copy(pid_t tid, struct page *page, struct page *place, size_t size, int in)
{
	struct iovec ours = {page, size}, theirs = {place, size};
	return in ? process_vm_writev(tid, &ours, 1, &theirs, 1, 0) : process_vm_readv(tid, &ours, 1, &theirs, 1, 0);
}

static struct page blank_page(struct page *place)
{
	struct page page = {
		.header = {.msg_iov = &place->vector, .msg_iovlen = 1, .msg_control = place->room,
			   .msg_controllen = sizeof place->room},
		.vector = {place->data, 1},
	};
	memcpy(page.mark, PAGE_MARK, sizeof page.mark);
	return page;
}

/* A message changes the flags and what was received; the rest must be as it was written, or is written anew. */
ssize_t tracer_read(const struct tracer *tracer, pid_t tid, struct iovec room, const struct iovec pieces[2])
{
	struct page found, blank = blank_page(tracer->place);
	struct iovec ours[] = {{&found, sizeof found}, room};
	struct iovec theirs[] = {{tracer->place, sizeof found}, pieces[0], pieces[1]};
	ssize_t got = process_vm_readv(tid, ours, 2, theirs, 3, 0) - (ssize_t)sizeof found;
	if (got <= 0 || memcmp(found.mark, blank.mark, sizeof found.mark))
		return 0;
	found.header.msg_flags = 0;
	if (memcmp(&found, &blank, offsetof(struct page, room)) &&
	    copy(tid, &blank, tracer->place, sizeof blank, 1) != sizeof blank)
		return 0;
	return got;
}

/* The number that the thread was told, or a negative errno. */
static int read_page(const struct tracer *tracer, pid_t tid)
{
	struct page page;
	int number;
	if (copy(tid, &page, tracer->place, sizeof page, 0) != sizeof page)
		return -ESRCH;
	memcpy(&number, CMSG_DATA(&page.control), sizeof number);
	return page.header.msg_flags & MSG_CTRUNC || number < 0 ? -EMFILE : number;
}

static int send_descriptor(const struct tracer *tracer, int descriptor)
{
	char data = '!', room[CMSG_SPACE(sizeof descriptor)] = {0};
	struct iovec vector = {&data, 1};
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *control = CMSG_FIRSTHDR(&message);
	control->cmsg_level = SOL_SOCKET;
	control->cmsg_type = SCM_RIGHTS;
	control->cmsg_len = CMSG_LEN(sizeof descriptor);
	memcpy(CMSG_DATA(control), &descriptor, sizeof descriptor);
	return sendmsg(tracer->ours, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static void take_back(const struct tracer *tracer)
{
	for (;;) {
		char data, room[CMSG_SPACE(sizeof(int))];
		struct iovec vector = {&data, 1};
		struct msghdr message = {
			.msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
		if (recvmsg(tracer->theirs, &message, MSG_DONTWAIT) < 0)
			return;
		struct cmsghdr *control = CMSG_FIRSTHDR(&message);
		int descriptor;
		if (control && control->cmsg_type == SCM_RIGHTS) {
			memcpy(&descriptor, CMSG_DATA(control), sizeof descriptor);
			close(descriptor);
		}
	}
}

/* Run recvmsg in place of the thread's call; its result, or -ESRCH. */
static long receive(struct tracer *tracer, pid_t tid, const struct user_regs_struct *saved, int flags)
{
	struct user_regs_struct changed = *saved;
	changed.orig_rax = SYS_recvmsg;
	changed.rdi = tracer->key;
	changed.rsi = (uintptr_t)&tracer->place->header;
	changed.rdx = MSG_DONTWAIT | (flags & O_CLOEXEC ? MSG_CMSG_CLOEXEC : 0);
	if (trace(PTRACE_SETREGS, tid, 0, &changed) || trace(PTRACE_SYSCALL, tid, 0, NULL))
		return -ESRCH;
	long result;
	if (!returned(tracer_until(tracer, tid)) ||
	    trace(PTRACE_PEEKUSR, tid, offsetof(struct user_regs_struct, rax), &result))
		return -ESRCH;
	return result;
}

static int install(struct tracer *tracer, pid_t tid, int descriptor, int flags)
{
	struct user_regs_struct saved;
	if (trace(PTRACE_GETREGS, tid, 0, &saved))
		return -ESRCH;
	int result = send_descriptor(tracer, descriptor);
	if (result)
		return result;
	long received = receive(tracer, tid, &saved, flags);
	if (received != 1)
		take_back(tracer);
	result = received == 1 ? read_page(tracer, tid) : (int)received;
	if (result == -ESRCH)
		return result;
	saved.orig_rax = (unsigned long)-1;
	saved.rax = (unsigned long)(long)result;
	return trace(PTRACE_SETREGS, tid, 0, &saved) ? -ESRCH : result;
}

int tracer_hand_over(struct tracer *tracer, pid_t tid, int descriptor, int flags, int steer)
{
	cpu_set_t before;
	enum place place = steer ? bring_here(tracer, tid, &before) : ELSEWHERE;
	if (!steer)
		tracer_let_go(tracer);
	int number = install(tracer, tid, descriptor, flags);
	close(descriptor);
	if (place == NARROWED && !runs_here(tracer, tid)) {
		widen(tid, &before);
		place = ELSEWHERE;
	}
	if (number >= 0)
		trace(PTRACE_CONT, tid, 0, NULL); /* fails only if the thread is gone */
	if (place == NARROWED)
		widen(tid, &before);
	return number;
}

#else

ssize_t tracer_read(const struct tracer *tracer, pid_t tid, struct iovec room, const struct iovec pieces[2])
{
	(void)tracer, (void)tid, (void)room, (void)pieces;
	return 0; /* the broker looks, and knows that this machine cannot do it */
}

int tracer_hand_over(struct tracer *tracer, pid_t tid, int descriptor, int flags, int steer)
{
	(void)tracer, (void)tid, (void)flags, (void)steer;
	close(descriptor);
	return -ENOSYS;
}

#endif
