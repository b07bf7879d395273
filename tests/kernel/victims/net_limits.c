/* What a brokered socket cannot hide: who made the system call, and by which name a socket was bound. */
#include "net_report.h"

static void credentials(void)
{
	struct sockaddr_un name;
	struct ucred peer;
	socklen_t size = sizeof peer;
	int one = socket(AF_UNIX, SOCK_STREAM, 0), two = socket(AF_UNIX, SOCK_STREAM, 0), three;

	unlink("known");
	say("bind", bind(one, any(&name), unix_name(&name, "known", 0)));
	say("listen", listen(one, 1));
	say("connect", connect(two, any(&name), unix_name(&name, "known", 0)));
	three = accept(one, NULL, NULL);
	say("client", getsockopt(three, SOL_SOCKET, SO_PEERCRED, &peer, &size));
	say("user", peer.uid == getuid() && peer.gid == getgid());
	say("process", peer.pid == getpid());
	say("server", getsockopt(two, SOL_SOCKET, SO_PEERCRED, &peer, &size));
	say("server user", peer.uid == getuid() && peer.gid == getgid());
	say("server process", peer.pid == getpid());
}

static long sender(int descriptor)
{
	union { char raw[256]; struct cmsghdr align; } control;
	char byte;
	struct iovec part = { &byte, 1 };
	struct msghdr header = { NULL, 0, &part, 1, &control, sizeof control, 0 };
	struct cmsghdr *first;

	need(recvmsg(descriptor, &header, MSG_DONTWAIT) == 1 && (first = CMSG_FIRSTHDR(&header)), "credentials");
	return ((struct ucred *)CMSG_DATA(first))->pid == getpid();
}

static void passed(void)
{
	struct iovec part = { "x", 1 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	int ends[2], yes = 1;

	need(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
	setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes);
	say("send", send(ends[0], "x", 1, 0));
	say("process", sender(ends[1]));
	say("sendmsg", sendmsg(ends[0], &header, 0));
	say("process of sendmsg", sender(ends[1]));
}

static void answers(void)
{
	struct sockaddr_un name, from = { 0 };
	char path[200], buffer[16];
	socklen_t size = sizeof from;
	int one = socket(AF_UNIX, SOCK_DGRAM, 0), two = socket(AF_UNIX, SOCK_DGRAM, 0);

	need(getcwd(path, sizeof path - 20) != NULL, "getcwd");
	strcat(path, "/client");
	unlink("server");
	unlink("client");
	say("bind", bind(one, any(&name), unix_name(&name, "server", 0)));
	say("bind client", bind(two, any(&name), unix_name(&name, path, 0)));
	own_name("client", two);
	say("question", sendto(two, "who?", 4, 0, any(&name), unix_name(&name, "server", 0)));
	say("received", recvfrom(one, buffer, sizeof buffer, 0, any(&from), &size));
	say("from the name", !strcmp(from.sun_path, path));
	say("answer", sendto(one, "me", 2, 0, any(&from), size));
	say("answered", recv(two, buffer, sizeof buffer, MSG_DONTWAIT));
}

static void zero_copy(void)
{
	static char text[1 << 16];
	struct iovec part = { text, sizeof text };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	int port, one = bound4(SOCK_STREAM, &port), two = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	struct sockaddr_in to = inet4("127.0.0.1", port);

	need(listen(one, 1) == 0 && connect(two, any(&to), sizeof to) == 0, "connect");
	say("not asked for", sendmsg(two, &header, MSG_ZEROCOPY));
	say("option", setsockopt(two, SOL_SOCKET, SO_ZEROCOPY, &yes, sizeof yes));
	say("asked for", sendmsg(two, &header, MSG_ZEROCOPY));
	say("copied", sendmsg(two, &header, 0));
}

int main(void)
{
	run_group("credentials", credentials);
	run_group("passed", passed);
	run_group("answers", answers);
	run_group("zero copy", zero_copy);
	return 0;
}
