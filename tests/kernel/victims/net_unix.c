/* Unix sockets by path: what each call gives, for comparison of a native run with a supervised one. */
#include "net_report.h"

static int made(int type, const char *path, int bare, const char *step)
{
	struct sockaddr_un name;
	int descriptor = socket(AF_UNIX, type, 0);

	say(step, bind(descriptor, any(&name), unix_name(&name, path, bare)));
	return descriptor;
}

static long reach(int type, const char *path, const char *step)
{
	struct sockaddr_un name;
	int descriptor = socket(AF_UNIX, type, 0);
	long result = say(step, connect(descriptor, any(&name), unix_name(&name, path, 0)));

	close(descriptor);
	return result;
}

static const char *absolute(const char *leaf)
{
	static char path[4096];

	need(getcwd(path, sizeof path - 200) != NULL, "getcwd");
	strcat(path, "/");
	return strcat(path, leaf);
}

static void stream(void)
{
	int one, two, three;
	struct sockaddr_un name;
	unsigned char raw[160];
	socklen_t size = sizeof name;
	struct stat status;
	char buffer[8] = { 0 };

	umask(027);
	one = made(SOCK_STREAM, "stream", 0, "bind");
	own_name("own", one);
	say("kind", stat("stream", &status) == 0 && S_ISSOCK(status.st_mode));
	say("mode", status.st_mode & 07777);
	say("bound again", bind(one, any(&name), unix_name(&name, "other", 0)));
	reach(SOCK_STREAM, "stream", "not listening");
	say("listen", listen(one, 5));
	two = socket(AF_UNIX, SOCK_STREAM, 0);
	say("connect", connect(two, any(&name), unix_name(&name, "stream", 1)));
	peer_name("peer", two);
	own_name("own of client", two);
	say("connect again", connect(two, any(&name), unix_name(&name, "stream", 1)));
	three = accept(one, any(raw), &size);
	say("accepted from", size);
	say("send", sendto(two, "abc", 3, 0, any(&name), 0));
	say("received", recv(three, buffer, 8, 0));
	say("sendto connected", sendto(two, "abc", 3, 0, any(&name), unix_name(&name, "stream", 1)) < 0);
	reach(SOCK_DGRAM, "stream", "wrong type");
	reach(SOCK_SEQPACKET, "stream", "wrong type too");
	made(SOCK_STREAM, "stream", 0, "in use");
	close(one);
	reach(SOCK_STREAM, "stream", "closed");
	unlink("stream");
	reach(SOCK_STREAM, "stream", "unlinked");
}

static void datagram(void)
{
	int one = made(SOCK_DGRAM, "dgram", 0, "bind"), two = made(SOCK_DGRAM, "dgram2", 1, "bind second");
	int three = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct sockaddr_un name, from = { 0 };
	socklen_t size = sizeof from;
	char buffer[64] = { 0 };

	say("sendto", sendto(two, "hello", 5, 0, any(&name), unix_name(&name, "dgram", 0)));
	say("recvfrom", recvfrom(one, buffer, sizeof buffer, 0, any(&from), &size));
	say_name("from", 0, &from, size);
	say("reply", sendto(one, "back", 4, 0, any(&from), size));
	say("reply received", recv(two, buffer, sizeof buffer, MSG_DONTWAIT));
	say("unnamed sender", sendto(three, "hi", 2, 0, any(&name), unix_name(&name, "dgram", 1)));
	size = sizeof from;
	say("from nobody", recvfrom(one, buffer, sizeof buffer, 0, any(&from), &size));
	say("no name", size);
	say("connect", connect(three, any(&name), unix_name(&name, "dgram2", 0)));
	peer_name("peer", three);
	say("send", send(three, "abc", 3, 0));
	say("elsewhere", sendto(three, "abcd", 4, 0, any(&name), unix_name(&name, "dgram", 0)));
	say("no length", sendto(three, "abcde", 5, 0, any(&name), 0));
	say("received", recv(two, buffer, sizeof buffer, MSG_DONTWAIT));
	say("received elsewhere", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	say("received too", recv(two, buffer, sizeof buffer, MSG_DONTWAIT));
	say("missing", sendto(three, "x", 1, 0, any(&name), unix_name(&name, "nothing", 0)));
	say("only a family", sendto(three, "x", 1, 0, any(&name), 2));
	close(two);
	say("closed", send(three, "x", 1, 0));
}

static void packets(void)
{
	int one = made(SOCK_SEQPACKET, "packets", 0, "bind"), two = socket(AF_UNIX, SOCK_SEQPACKET, 0), three;
	struct sockaddr_un name;
	char buffer[64];

	say("listen", listen(one, 5));
	say("connect", connect(two, any(&name), unix_name(&name, "packets", 0)));
	three = accept(one, NULL, NULL);
	say("send", send(two, "abc", 3, 0));
	say("send more", sendto(two, "abcd", 4, 0, NULL, 0));
	say("received", recv(three, buffer, sizeof buffer, 0));
	say("received more", recv(three, buffer, sizeof buffer, 0));
	peer_name("peer", two);
	peer_name("peer of accepted", three);
}

static void names(void)
{
	char path[200], step[64];
	struct sockaddr_un name;
	int one, two;

	mkdir("directory", 0755);
	one = made(SOCK_STREAM, "directory/inside", 1, "relative");
	own_name("relative own", one);
	listen(one, 5);
	reach(SOCK_STREAM, "./directory/../directory//inside", "another spelling");
	two = made(SOCK_STREAM, "directory/second", 0, "second");
	own_name("second own", two);
	own_name("first own again", one);
	one = made(SOCK_STREAM, absolute("absolute"), 0, "absolute");
	two = socket(AF_UNIX, SOCK_STREAM, 0);
	listen(one, 5);
	say("absolute connect", connect(two, any(&name), unix_name(&name, absolute("absolute"), 0)));
	peer_name("absolute peer", two);
	say("link", symlink("absolute", "link"));
	reach(SOCK_STREAM, "link", "through a link");
	made(SOCK_STREAM, "link", 0, "bind a link");
	say("loose link", symlink("nowhere", "loose"));
	made(SOCK_STREAM, "loose", 0, "bind a loose link");
	reach(SOCK_STREAM, "loose", "connect a loose link");
	reach(SOCK_STREAM, "directory", "a directory");
	close(creat("file", 0644));
	reach(SOCK_STREAM, "file", "a file");
	reach(SOCK_STREAM, "file/socket", "below a file");
	made(SOCK_STREAM, "file/socket", 0, "bind below a file");
	made(SOCK_STREAM, "missing/socket", 0, "bind in a missing directory");
	made(SOCK_STREAM, "directory", 0, "bind a directory");
	made(SOCK_STREAM, "directory/", 0, "bind a directory, slash");
	made(SOCK_STREAM, "new/", 0, "bind with a slash");
	made(SOCK_STREAM, ".", 0, "bind a dot");
	made(SOCK_STREAM, "directory/..", 0, "bind dots");
	for (int size = 85; size <= 109; size += size < 105 ? 4 : 1) {
		memset(path, 'n', sizeof path);
		path[size] = 0;
		snprintf(step, sizeof step, "bind %d", size);
		one = made(SOCK_STREAM, path, 1, step);
		snprintf(step, sizeof step, "name %d", size);
		own_name(step, one);
		listen(one, 1);
		snprintf(step, sizeof step, "connect %d", size);
		say(step, connect(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), unix_name(&name, path, 1)));
		memcpy(path, "directory/", 10);
		path[size] = 0;
		snprintf(step, sizeof step, "bind inside %d", size);
		one = made(SOCK_STREAM, path, 1, step);
		snprintf(step, sizeof step, "name inside %d", size);
		own_name(step, one);
	}
	one = socket(AF_UNIX, SOCK_STREAM, 0);
	unix_name(&name, "sized", 0);
	say("bind whole", bind(one, any(&name), sizeof name));
	own_name("whole own", one);
	say("bind 111", bind(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), 111));
	say("connect 111", connect(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), 111));
	say("connect 2", connect(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), 2));
	say("connect 1", connect(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), 1));
	say("connect 0", connect(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), 0));
	name.sun_family = AF_INET;
	say("bind other family", bind(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), sizeof name));
	say("family to the internet", connect(socket(AF_INET, SOCK_STREAM, 0), any(&name), unix_name(&name, "sized", 0)));
	say("rename", rename("absolute", "moved"));
	reach(SOCK_STREAM, "moved", "renamed");
}

static void forbidden_directory(void)
{
	mkdir("closed", 0755);
	close(made(SOCK_STREAM, "closed/socket", 0, "before"));
	chmod("closed", 0);
	made(SOCK_STREAM, "closed/new", 0, "bind");
	reach(SOCK_STREAM, "closed/socket", "connect");
	chmod("closed", 0500);
	made(SOCK_STREAM, "closed/new", 0, "bind read-only");
	reach(SOCK_STREAM, "closed/socket", "connect unlistening");
	chmod("closed/socket", 0);
	reach(SOCK_STREAM, "closed/socket", "connect without write");
	chmod("closed", 0755);
}

static void waits(void)
{
	struct sockaddr_un name;
	int one = made(SOCK_STREAM, "busy", 0, "bind"), two, accepted = 0;
	pid_t child;
	struct sigaction action = { .sa_handler = SIG_DFL };

	listen(one, 0);
	unix_name(&name, "busy", 0);
	say("first", connect(socket(AF_UNIX, SOCK_STREAM, 0), any(&name), sizeof name));
	two = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	say("nonblocking", connect(two, any(&name), sizeof name));
	sigaction(SIGCHLD, &action, NULL);
	child = fork();
	if (!child) {
		two = socket(AF_UNIX, SOCK_STREAM, 0);
		_exit(connect(two, any(&name), sizeof name) == 0 ? 0 : errno);
	}
	for (int status; accepted < 2; accepted++) {
		say("accept", accept(one, NULL, NULL) >= 0);
		if (accepted == 1)
			say("child", (waitpid(child, &status, 0), status));
	}
}

static void pairs(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	int ends[2];
	char buffer[8] = { 0 };
	struct iovec part = { "abc", 3 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	for (int i = 0; i < 3; i++) {
		say("socketpair", socketpair(AF_UNIX, types[i], 0, ends));
		own_name("own", ends[0]);
		peer_name("peer", ends[0]);
		say("sendmsg", sendmsg(ends[0], &header, 0));
		say("received", recv(ends[1], buffer, sizeof buffer, 0));
		say("listen", listen(ends[0], 1));
		fcntl(ends[0], F_SETFL, O_NONBLOCK);
		while (sendmsg(ends[0], &header, 0) > 0)
			;
		say("full", -1);
		say("full, DONTWAIT", sendmsg(ends[0], &header, MSG_DONTWAIT));
		close(ends[0]);
		close(ends[1]);
	}
}

static volatile sig_atomic_t broken;

static void on_pipe(int number)
{
	(void)number;
	broken++;
}

static void broken_pipes(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	struct iovec part = { "abc", 3 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	struct mmsghdr many[2] = { { header, 0 }, { header, 0 } };
	int ends[2], port, one = bound4(SOCK_STREAM, &port), two = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in to = inet4("127.0.0.1", port);

	signal(SIGPIPE, on_pipe);
	for (int i = 0; i < 3; i++) {
		socketpair(AF_UNIX, types[i], 0, ends);
		close(ends[1]);
		say("sendmsg", sendmsg(ends[0], &header, 0));
		say("signals", broken);
		say("quiet", sendmsg(ends[0], &header, MSG_NOSIGNAL));
		say("signals", broken);
		say("sendmmsg", sendmmsg(ends[0], many, 2, 0));
		say("signals", broken);
		close(ends[0]);
	}
	listen(one, 1);
	connect(two, any(&to), sizeof to);
	shutdown(two, SHUT_WR);
	say("tcp", sendmsg(two, &header, 0));
	say("tcp with an address", sendto(two, "x", 1, 0, any(&to), sizeof to));
	say("signals", broken);
	two = socket(AF_INET, SOCK_STREAM, 0);
	say("never connected", sendmsg(two, &header, 0));
	say("signals", broken);
	two = socket(AF_UNIX, SOCK_STREAM, 0);
	say("unix never connected", sendmsg(two, &header, 0));
	signal(SIGPIPE, SIG_DFL);
	if (!fork()) {
		socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
		close(ends[1]);
		sendmsg(ends[0], &header, 0);
		_exit(7);
	}
	wait(&port);
	say("default", port);
}

static long pass(int channel, const int *numbers, int count, int extra)
{
	union { char raw[8192]; struct cmsghdr align; } control = { { 0 } };
	struct iovec part = { "f", 1 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control };
	struct cmsghdr *first;

	header.msg_controllen = sizeof control;
	first = CMSG_FIRSTHDR(&header);
	*first = (struct cmsghdr){ CMSG_LEN(count * sizeof(int)) + extra, SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(first), numbers, count * sizeof(int));
	header.msg_controllen = CMSG_SPACE(count * sizeof(int));
	return sendmsg(channel, &header, 0);
}

static int received(int channel, int *numbers)
{
	union { char raw[8192]; struct cmsghdr align; } control;
	char byte[8];
	struct iovec part = { byte, sizeof byte };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	struct cmsghdr *first;

	if (recvmsg(channel, &header, MSG_DONTWAIT) < 0 || !(first = CMSG_FIRSTHDR(&header)))
		return -1;
	memcpy(numbers, CMSG_DATA(first), first->cmsg_len - CMSG_LEN(0));
	return (first->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

static void rights(void)
{
	int ends[2], pipe_ends[2], numbers[254], got[254], status;
	char buffer[8] = { 0 };

	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	need(pipe(pipe_ends) == 0, "pipe");
	if (!fork()) {
		close(ends[0]);
		close(pipe_ends[1]);
		struct pollfd wait = { .fd = ends[1], .events = POLLIN };
		poll(&wait, 1, 10000);
		if (received(ends[1], got) != 1 || write(got[0], "hello", 5) != 5)
			_exit(1);
		_exit(0);
	}
	say("pass", pass(ends[0], &pipe_ends[1], 1, 0));
	close(pipe_ends[1]);
	say("through it", read(pipe_ends[0], buffer, sizeof buffer));
	tell("text", buffer);
	wait(&status);
	say("child", status);
	for (int i = 0; i < 254; i++)
		numbers[i] = pipe_ends[0];
	say("most", pass(ends[0], numbers, 253, 0));
	say("most received", received(ends[1], got));
	say("one too many", pass(ends[0], numbers, 254, 0));
	numbers[1] = 1000;
	say("no such descriptor", pass(ends[0], numbers, 2, 0));
	numbers[1] = -1;
	say("negative descriptor", pass(ends[0], numbers, 2, 0));
	say("uneven", pass(ends[0], numbers, 1, 2));
	say("uneven received", received(ends[1], got));
	say("beyond the end", pass(ends[0], numbers, 1, 9000));
	say("none", pass(ends[0], numbers, 0, 0));
	say("two", pass(ends[0], pipe_ends, 1, 0));
	for (int i = 0; i < 3; i++)
		received(ends[1], got);
	say("nothing left", recv(ends[1], buffer, 8, MSG_DONTWAIT));
}

int main(void)
{
	run_group("stream", stream);
	run_group("datagram", datagram);
	run_group("packets", packets);
	run_group("names", names);
	run_group("forbidden directory", forbidden_directory);
	run_group("waits", waits);
	run_group("pairs", pairs);
	run_group("broken pipes", broken_pipes);
	run_group("rights", rights);
	return 0;
}
