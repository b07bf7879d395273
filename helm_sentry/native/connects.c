/* Connects to this host that repeat what was decided: TCP, from a socket that was judged by its family, to an address that
 * was judged byte by byte.
 *
 * The address is copied once, the socket is duplicated once, and what was compared is what is used. The broker counts what
 * leaves over each connection, so it is told of every one, before it can end.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "serving.h"

#include "brief.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define TEXT(literal) {literal, sizeof literal - 1}
#define THREAD O_EXCL /* PIDFD_THREAD of <linux/pidfd.h>, Linux 6.9 */

/* The count of connections. */

static int promise(struct begun_connections *begun)
{
	if (begun->promised++ < MOST_BEGUN)
		return 1;
	begun->promised--;
	return 0;
}

static void keep_begun(struct begun_connections *begun, const struct begun *connection)
{
	pthread_mutex_lock(&begun->lock);
	begun->all[begun->count++] = *connection;
	pthread_mutex_unlock(&begun->lock);
}

uint32_t receiver_begun(struct receiver *receiver, struct begun *room)
{
	struct begun_connections *begun = &receiver->begun;
	pthread_mutex_lock(&begun->lock);
	uint32_t count = begun->count;
	memcpy(room, begun->all, count * sizeof *room);
	begun->count = 0;
	begun->promised -= count;
	pthread_mutex_unlock(&begun->lock);
	return count;
}

/* What was asked for. */

static int read_address(const struct seccomp_notif *asked, struct address *address)
{
	int size = (int)asked->data.args[2];
	if (size < (int)sizeof(struct sockaddr_in) || size > (int)sizeof address->bytes)
		return 0;
	address->size = (uint32_t)size;
	struct iovec ours = {address->bytes, (size_t)size};
	struct iovec theirs = {(void *)(uintptr_t)asked->data.args[1], (size_t)size};
	return process_vm_readv((pid_t)asked->pid, &ours, 1, &theirs, 1, 0) == size;
}

/* A thread may have descriptors of its own, so it is the thread's that is duplicated. Where the kernel cannot name one it
 * must be its process's first. */
static int duplicate(const struct seccomp_notif *asked)
{
	int process = (int)syscall(SYS_pidfd_open, asked->pid, THREAD);
	if (process < 0 && errno == EINVAL)
		process = (int)syscall(SYS_pidfd_open, asked->pid, 0);
	if (process < 0)
		return -1;
	int ours = (int)syscall(SYS_pidfd_getfd, process, (int)asked->data.args[0], 0);
	close(process);
	return ours;
}

static int is(int descriptor, int option, int value)
{
	int found;
	socklen_t size = sizeof found;
	return !getsockopt(descriptor, SOL_SOCKET, option, &found, &size) && found == value;
}

static int is_tcp(int descriptor, int domain)
{
	return is(descriptor, SO_DOMAIN, domain) && is(descriptor, SO_TYPE, SOCK_STREAM) &&
	       is(descriptor, SO_PROTOCOL, IPPROTO_TCP);
}

/* What is done. */

/* As audit/record.py writes it. */
static int64_t write_outcome(struct receiver *receiver, int64_t sequence, const char *error)
{
	char start[64], of[64];
	int start_size = snprintf(start, sizeof start, "{\"errno\":\"%s\",\"hash\":\"", error);
	int of_size = snprintf(of, sizeof of, "\",\"of\":%lld,\"prev\":\"", (long long)sequence);
	struct line line = {
		.before_hash = {start, (size_t)start_size},
		.before_prev = {of, (size_t)of_size},
		.before_seq = TEXT("\",\"seq\":"),
		.before_time = TEXT(",\"time\":"),
		.end = TEXT(",\"type\":\"outcome\"}"),
	};
	return log_append(receiver->log, &line, 0);
}

/* The errors that programs count on: a socket that does not wait, a server that is not there yet, a directory that is. */
static const char *usual(int error)
{
	if (error == EEXIST)
		return "EEXIST";
	return error == EINPROGRESS ? "EINPROGRESS" : error == ECONNREFUSED ? "ECONNREFUSED" : NULL;
}

enum outcome answer_recorded(struct receiver *receiver, const struct seccomp_notif *asked, int error,
			     struct refusal *refusal)
{
	struct seccomp_notif_resp response = {.id = asked->id, .error = -error};
	refusal->error = error;
	if (error && (!usual(error) || write_outcome(receiver, refusal->sequence, usual(error)) < 0))
		return REFUSED;
	ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* fails only if the caller is gone */
	return SERVED;
}

/* Write the record, and have the connection counted; 0 where it is the broker's. */
static int begin(struct receiver *receiver, const struct seccomp_notif *asked, const struct known *connecting, int ours,
		 struct refusal *refusal)
{
	struct begun connection = {.address = refusal->address};
	socklen_t size = sizeof connection.cookie;
	if (getsockopt(ours, SOL_SOCKET, SO_COOKIE, &connection.cookie, &size) || !promise(&receiver->begun))
		return 0;
	/* What was read and duplicated under the thread's id was its own if it still waits. */
	int waits = !ioctl(receiver->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked->id);
	connection.sequence = waits ? write_record(receiver, asked, connecting, NULL) : -1;
	if (connection.sequence < 0) {
		receiver->begun.promised--;
		return 0;
	}
	keep_begun(&receiver->begun, &connection);
	refusal->sequence = connection.sequence;
	return 1;
}

enum outcome serve_connect(struct receiver *receiver, const struct seccomp_notif *asked, struct refusal *refusal)
{
	struct brief *brief = brief_here();
	struct address *address = &refusal->address;
	if (receiver->tracer || !brief || !read_address(asked, address))
		return FOR_BROKER;
	const struct known connecting = {
		address->bytes, address->size,
		decisions_find(&receiver->decisions, asked->data.nr, address->bytes, address->size)};
	int ours = connecting.decided ? duplicate(asked) : -1;
	if (ours < 0)
		return FOR_BROKER;
	if (!is_tcp(ours, (int)connecting.decided->type) || brief_is_connecting(ours) ||
	    !begin(receiver, asked, &connecting, ours, refusal)) {
		close(ours);
		return FOR_BROKER;
	}
	int result = brief_connect(brief, ours, address->bytes, address->size);
	if (result == -EINTR) {
		refusal->error = 0;
		refusal->descriptor = ours;
		return REFUSED;
	}
	close(ours);
	return answer_recorded(receiver, asked, -result, refusal);
}
