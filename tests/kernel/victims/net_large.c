/* Long messages over streams with a reader that takes little at a time. */
#include "net_report.h"

enum { LENGTH = 8 << 20, PARTS = 1024 };

static unsigned char *text;

static uint64_t digest(uint64_t state, const unsigned char *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		state = (state ^ bytes[i]) * 0x100000001b3;
	return state;
}

static void ends_of(int tcp, int ends[2])
{
	int small = 4096;

	if (tcp) {
		int port, one = bound4(SOCK_STREAM, &port);
		struct sockaddr_in to = inet4("127.0.0.1", port);

		ends[0] = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
		setsockopt(one, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
		need(listen(one, 1) == 0 && connect(ends[0], any(&to), sizeof to) == 0, "connect");
		ends[1] = accept(one, NULL, NULL);
		close(one);
	} else {
		need(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
		setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	}
}

/* Read to the end in a child, in pieces; its status says whether the first `expected` bytes of the text arrived. */
static pid_t reader(int ends[2], size_t expected, size_t piece)
{
	unsigned char *buffer = malloc(piece);
	uint64_t state = 0;
	size_t total = 0;
	pid_t child = fork();

	if (child)
		return child;
	close(ends[0]);
	for (ssize_t got; (got = read(ends[1], buffer, piece)) > 0; total += got)
		state = digest(state, buffer, got);
	_exit(total == expected && state == digest(0, text, expected) ? 0 : total == expected ? 1 : 2);
}

static void finish(int ends[2], pid_t child)
{
	int status;

	close(ends[0]);
	waitpid(child, &status, 0);
	say("arrived", status);
	close(ends[1]);
}

static void whole(int tcp)
{
	struct sockaddr_in nobody = inet4("127.0.0.1", 9);
	struct iovec one = { text, LENGTH }, many[PARTS];
	struct msghdr header = { .msg_iov = &one, .msg_iovlen = 1 };
	struct mmsghdr batch[2] = { { header, 0 }, { header, 0 } };
	int ends[2];
	pid_t child;

	for (int i = 0; i < PARTS; i++)
		many[i] = (struct iovec){ text + (size_t)i * (LENGTH / PARTS), LENGTH / PARTS };
	ends_of(tcp, ends);
	child = reader(ends, LENGTH, 4093);
	say("sendmsg", sendmsg(ends[0], &header, 0));
	finish(ends, child);
	header.msg_iov = many;
	header.msg_iovlen = PARTS;
	ends_of(tcp, ends);
	child = reader(ends, LENGTH, 65521);
	say("sendmsg of parts", sendmsg(ends[0], &header, 0));
	finish(ends, child);
	ends_of(tcp, ends);
	child = reader(ends, LENGTH, 65521);
	batch[0].msg_hdr.msg_iov->iov_len = LENGTH / 2;
	one.iov_len = LENGTH / 2;
	batch[1].msg_hdr.msg_iov = &many[PARTS / 2];
	batch[1].msg_hdr.msg_iovlen = PARTS / 2;
	say("sendmmsg", sendmmsg(ends[0], batch, 2, 0));
	say("lengths", batch[0].msg_len + batch[1].msg_len);
	finish(ends, child);
	ends_of(tcp, ends);
	child = reader(ends, LENGTH, 65521);
	say("sendto", sendto(ends[0], text, LENGTH, 0, tcp ? any(&nobody) : NULL, tcp ? sizeof nobody : 0));
	finish(ends, child);
}

static void tcp(void)
{
	whole(1);
}

static void local(void)
{
	whole(0);
}

static void on_signal(int number)
{
	(void)number;
}

static void partly(void)
{
	struct iovec one = { text, LENGTH };
	struct msghdr header = { .msg_iov = &one, .msg_iovlen = 1 };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec when = { .it_value = { .tv_nsec = 300000000 } };
	timer_t timer;
	int ends[2];
	pid_t child;
	long sent;

	for (int kind = 0; kind < 2; kind++) {
		ends_of(kind, ends);
		fcntl(ends[0], F_SETFL, O_NONBLOCK);
		sent = sendmsg(ends[0], &header, 0);
		say("nonblocking, some", sent > 0 && sent < LENGTH);
		child = reader(ends, sent, 4096);
		finish(ends, child);
		ends_of(kind, ends);
		sent = sendmsg(ends[0], &header, MSG_DONTWAIT);
		say("DONTWAIT, some", sent > 0 && sent < LENGTH);
		child = reader(ends, sent, 4096);
		finish(ends, child);
		ends_of(kind, ends);
		sigaction(SIGUSR1, &action, NULL);
		need(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer");
		timer_settime(timer, 0, &when, NULL);
		sent = sendmsg(ends[0], &header, 0);
		say("interrupted, some", sent > 0 && sent < LENGTH);
		child = reader(ends, sent, 4096);
		finish(ends, child);
	}
}

static void cut_off(void)
{
	struct iovec one = { text, LENGTH };
	struct msghdr header = { .msg_iov = &one, .msg_iovlen = 1 };
	int ends[2];
	long sent;

	signal(SIGPIPE, SIG_IGN);
	ends_of(0, ends);
	if (!fork()) {
		char buffer[4096];
		close(ends[0]);
		for (int left = LENGTH / 2; left > 0;)
			left -= read(ends[1], buffer, sizeof buffer);
		_exit(0);
	}
	close(ends[1]);
	sent = sendmsg(ends[0], &header, 0);
	say("reader leaves, some", sent > 0 && sent < LENGTH);
	say("then", sendmsg(ends[0], &header, 0));
	wait(NULL);
}

int main(void)
{
	text = malloc(LENGTH);
	for (size_t i = 0; i < LENGTH; i++)
		text[i] = (i * 2654435761u) >> 13;
	run_group("tcp", tcp);
	run_group("unix", local);
	run_group("partly", partly);
	run_group("cut off", cut_off);
	return 0;
}
