/* TCP and UDP on loopback: what each call gives, for comparison of a native run with a supervised one. */
#include "net_report.h"

static int listener4(int backlog, int *port)
{
	int made = bound4(SOCK_STREAM, port);

	need(listen(made, backlog) == 0, "listen");
	return made;
}

static void tcp(void)
{
	int port, one, two, three;
	struct sockaddr_in to;
	char buffer[16] = { 0 };

	one = listener4(5, &port);
	to = inet4("127.0.0.1", port);
	own_name("listening", one);
	two = socket(AF_INET, SOCK_STREAM, 0);
	own_name("fresh", two);
	peer_name("fresh peer", two);
	say("connect", connect(two, any(&to), sizeof to));
	say("again", connect(two, any(&to), sizeof to));
	own_name("connected", two);
	peer_name("peer", two);
	three = accept(one, NULL, NULL);
	say("accepted", three >= 0);
	peer_name("its peer", three);
	say("same port", port_of(two) != 0);
	say("send", send(two, "hello", 5, 0));
	say("sendto with an address", sendto(two, "hello", 5, 0, any(&to), sizeof to));
	say("sendto with no length", sendto(two, "hello", 5, 0, any(&to), 0));
	say("received", recv(three, buffer, 15, MSG_WAITALL));
	tell("text", buffer);
	say("listen on a connected socket", listen(two, 1));
	say("bind a connected socket", bind(two, any(&to), sizeof to));
	say("connect a listening socket", connect(one, any(&to), sizeof to));
}

static void nonblocking(void)
{
	int port, one = listener4(5, &port), two = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in to = inet4("127.0.0.1", port);
	struct pollfd wait = { .fd = two, .events = POLLOUT };
	int error = -1;
	socklen_t size = sizeof error;

	say("connect", connect(two, any(&to), sizeof to));
	say("poll", poll(&wait, 1, 10000));
	say("SO_ERROR", getsockopt(two, SOL_SOCKET, SO_ERROR, &error, &size));
	say("error", error);
	say("second", connect(two, any(&to), sizeof to));
	say("third", connect(two, any(&to), sizeof to));
	close(one);
}

static void refused(void)
{
	int port, one = bound4(SOCK_STREAM, &port), error = -1;
	int two = socket(AF_INET, SOCK_STREAM, 0), three = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in to = inet4("127.0.0.1", port);
	struct pollfd wait = { .fd = three, .events = POLLOUT };
	socklen_t size = sizeof error;

	say("blocking", connect(two, any(&to), sizeof to));
	say("blocking again", connect(two, any(&to), sizeof to));
	say("nonblocking", connect(three, any(&to), sizeof to));
	say("poll", poll(&wait, 1, 10000));
	getsockopt(three, SOL_SOCKET, SO_ERROR, &error, &size);
	say("error", error == ECONNREFUSED);
	close(one);
}

static int connections[8];

/* Connections until the listener takes no more; the last one hangs. */
static int hanging(const struct sockaddr_in *to)
{
	for (int i = 0; i < 8; i++) {
		struct pollfd wait = { .events = POLLOUT };
		connections[i] = wait.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		need(connect(wait.fd, any((void *)to), sizeof *to) < 0 && errno == EINPROGRESS, "connect");
		if (poll(&wait, 1, 200) == 0)
			return wait.fd;
	}
	need(0, "a connection that hangs");
	return -1;
}

static void on_signal(int number)
{
	(void)number;
}

static int full_listener;

static void make_room(int number)
{
	(void)number;
	listen(full_listener, 100);
}

/* A signal in a while; not SIGALRM, which ends a group that hangs. */
static void catch(int flags, void (*handler)(int), int milliseconds)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec when = { .it_value = { .tv_nsec = milliseconds * 1000000L } };
	timer_t timer;

	sigaction(SIGUSR1, &action, NULL);
	need(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer");
	need(timer_settime(timer, 0, &when, NULL) == 0, "timer");
}

static void waiting(void)
{
	int port, one = listener4(0, &port), two;
	struct sockaddr_in to = inet4("127.0.0.1", port);

	say("already", connect(hanging(&to), any(&to), sizeof to));
	two = socket(AF_INET, SOCK_STREAM, 0);
	catch(0, on_signal, 300);
	say("interrupted", connect(two, any(&to), sizeof to));
	two = socket(AF_INET, SOCK_STREAM, 0);
	full_listener = one;
	catch(SA_RESTART, make_room, 300);
	say("restarted", connect(two, any(&to), sizeof to));
	peer_name("peer", two);
}

static void addresses(void)
{
	int port, taken = bound4(SOCK_STREAM, &port), one = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in here = inet4("127.0.0.1", port), foreign = inet4("192.0.2.1", 0), zero = inet4("0.0.0.0", 0);

	say("in use", bind(one, any(&here), sizeof here));
	say("not available", bind(one, any(&foreign), sizeof foreign));
	zero.sin_family = AF_UNSPEC;
	say("unspecified family", bind(one, any(&zero), sizeof zero));
	own_name("bound", one);
	say("bound twice", bind(one, any(&zero), sizeof zero));
	here.sin_family = AF_UNSPEC;
	one = socket(AF_INET, SOCK_STREAM, 0);
	say("unspecified family, address", bind(one, any(&here), sizeof here));
	say("listen unbound", listen(one, 3));
	own_name("listening unbound", one);
	say("listen again", listen(one, 7));
	say("negative backlog", listen(one, -1));
	say("listen udp", listen(socket(AF_INET, SOCK_DGRAM, 0), 1));
	say("listen on no socket", listen(1000, 1));
	close(taken);
}

static void disconnect(void)
{
	int port, one = listener4(5, &port), two = socket(AF_INET, SOCK_STREAM, 0), three;
	struct sockaddr_in to = inet4("127.0.0.1", port);
	struct sockaddr nothing = { .sa_family = AF_UNSPEC };

	say("connect", connect(two, any(&to), sizeof to));
	say("dissolve", connect(two, &nothing, sizeof nothing));
	peer_name("peer", two);
	say("connect again", connect(two, any(&to), sizeof to));
	peer_name("peer again", two);
	say("dissolve, two bytes", connect(two, &nothing, 2));
	three = socket(AF_INET, SOCK_DGRAM, 0);
	say("udp connect", connect(three, any(&to), sizeof to));
	say("udp dissolve", connect(three, &nothing, sizeof nothing));
	peer_name("udp peer", three);
	say("udp send", send(three, "x", 1, 0));
	say("fresh", connect(socket(AF_INET, SOCK_STREAM, 0), &nothing, sizeof nothing));
	three = socket(AF_UNIX, SOCK_STREAM, 0);
	say("unix stream", connect(three, &nothing, sizeof nothing));
	three = socket(AF_UNIX, SOCK_DGRAM, 0);
	say("unix dgram", connect(three, &nothing, sizeof nothing));
	close(one);
}

static void lengths(void)
{
	static const int sizes[] = { 0, 1, 2, 8, 15, 16, 17, 28, 110, 128, 129, -1 };
	int port, one = listener4(50, &port);
	struct { struct sockaddr_in address; char rest[160]; } to = { inet4("127.0.0.1", port), "" };
	struct { struct sockaddr_in6 address; char rest[160]; } six;
	char step[32];

	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		snprintf(step, sizeof step, "connect %d", sizes[i]);
		say(step, connect(socket(AF_INET, SOCK_STREAM, 0), any(&to), sizes[i]));
		snprintf(step, sizeof step, "sendto %d", sizes[i]);
		say(step, sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, any(&to), sizes[i]));
		to.address.sin_port = 0;
		snprintf(step, sizeof step, "bind %d", sizes[i]);
		say(step, bind(socket(AF_INET, SOCK_STREAM, 0), any(&to), sizes[i]));
		to.address.sin_port = htons(port);
	}
	one = bound6(SOCK_STREAM, "::1", &port);
	listen(one, 50);
	six.address = inet6("::1", port);
	for (int size = 22; size <= 28; size++) {
		snprintf(step, sizeof step, "six connect %d", size);
		say(step, connect(socket(AF_INET6, SOCK_STREAM, 0), any(&six), size));
		snprintf(step, sizeof step, "six sendto %d", size);
		say(step, sendto(socket(AF_INET6, SOCK_DGRAM, 0), "x", 1, 0, any(&six), size));
		six.address.sin6_port = 0;
		snprintf(step, sizeof step, "six bind %d", size);
		say(step, bind(socket(AF_INET6, SOCK_STREAM, 0), any(&six), size));
		six.address.sin6_port = htons(port);
	}
}

static void families(void)
{
	int port, six_port, one = listener4(50, &port), six = bound6(SOCK_STREAM, "::1", &six_port);
	int udp, udp_port;
	struct sockaddr_in to = inet4("127.0.0.1", port), nowhere = inet4("0.0.0.0", port);
	struct sockaddr_in6 mapped = inet6("::ffff:127.0.0.1", port), loop = inet6("::1", six_port);
	struct sockaddr_in6 nowhere6 = inet6("::", six_port), mapped_nowhere = inet6("::ffff:0.0.0.0", port);
	int two;

	listen(six, 50);
	say("four to six", connect(socket(AF_INET, SOCK_STREAM, 0), any(&loop), sizeof loop));
	say("six to four", connect(socket(AF_INET6, SOCK_STREAM, 0), any(&to), sizeof to));
	say("six to six", connect(two = socket(AF_INET6, SOCK_STREAM, 0), any(&loop), sizeof loop));
	peer_name("six", two);
	say("mapped", connect(two = socket(AF_INET6, SOCK_STREAM, 0), any(&mapped), sizeof mapped));
	peer_name("mapped peer", two);
	own_name("mapped own", two);
	say("unspecified", connect(two = socket(AF_INET, SOCK_STREAM, 0), any(&nowhere), sizeof nowhere));
	peer_name("unspecified peer", two);
	say("unspecified six", connect(two = socket(AF_INET6, SOCK_STREAM, 0), any(&nowhere6), sizeof nowhere6));
	peer_name("unspecified six peer", two);
	two = socket(AF_INET6, SOCK_STREAM, 0);
	say("unspecified mapped", connect(two, any(&mapped_nowhere), sizeof mapped_nowhere));
	peer_name("unspecified mapped peer", two);
	udp = bound4(SOCK_DGRAM, &udp_port);
	to.sin_port = nowhere.sin_port = mapped.sin6_port = htons(udp_port);
	two = socket(AF_INET6, SOCK_DGRAM, 0);
	say("udp six to four", sendto(two, "x", 1, 0, any(&to), sizeof to));
	say("udp mapped", sendto(two, "xy", 2, 0, any(&mapped), sizeof mapped));
	say("udp four to six", sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, any(&mapped), sizeof mapped));
	say("udp unspecified", sendto(socket(AF_INET, SOCK_DGRAM, 0), "xyz", 3, 0, any(&nowhere), sizeof nowhere));
	to.sin_family = AF_UNSPEC;
	say("udp no family", sendto(socket(AF_INET, SOCK_DGRAM, 0), "four", 4, 0, any(&to), sizeof to));
	two = socket(AF_INET6, SOCK_DGRAM, 0);
	say("udp six connect", connect(two, any(&mapped), sizeof mapped));
	say("udp six no family", sendto(two, "fiver", 5, 0, any(&to), sizeof to));
	say("udp six no family, short", sendto(two, "sixsix", 6, 0, any(&to), 2));
	for (int i = 0; i < 6; i++) {
		char buffer[16];
		say("udp received", recv(udp, buffer, sizeof buffer, MSG_DONTWAIT));
	}
	close(one);
}

static struct msghdr message(void *name, socklen_t name_size, struct iovec *parts, size_t count)
{
	return (struct msghdr){ .msg_name = name, .msg_namelen = name_size, .msg_iov = parts, .msg_iovlen = count };
}

static void udp(void)
{
	int port, one = bound4(SOCK_DGRAM, &port), two = socket(AF_INET, SOCK_DGRAM, 0), three;
	struct sockaddr_in to = inet4("127.0.0.1", port), from;
	socklen_t size = sizeof from;
	struct iovec parts[3] = { { "ab", 2 }, { NULL, 0 }, { "cde", 3 } };
	struct msghdr header = message(&to, sizeof to, parts, 3);
	struct mmsghdr many[3];
	static char big[70000], buffer[70000];

	say("unconnected send", send(two, "x", 1, 0));
	say("sendto", sendto(two, "hello", 5, 0, any(&to), sizeof to));
	say("recvfrom", recvfrom(one, buffer, sizeof buffer, 0, any(&from), &size));
	say_name("from", 0, &from, size);
	say("reply", sendto(one, "back", 4, 0, any(&from), size));
	say("reply received", recv(two, buffer, sizeof buffer, MSG_DONTWAIT));
	say("empty", sendto(two, "", 0, 0, any(&to), sizeof to));
	say("empty received", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	say("sendmsg", sendmsg(two, &header, 0));
	say("sendmsg received", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	tell("parts", strndup(buffer, 5));
	header.msg_iovlen = 0;
	say("sendmsg of nothing", sendmsg(two, &header, 0));
	say("nothing received", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	say("largest", sendto(two, big, 65507, 0, any(&to), sizeof to));
	say("largest received", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	say("too long", sendto(two, big, 65508, 0, any(&to), sizeof to));
	say("huge length", sendto(two, big, 1UL << 40, 0, any(&to), sizeof to));
	say("with DONTWAIT", sendto(two, "x", 1, MSG_DONTWAIT, any(&to), sizeof to));
	say("DONTWAIT received", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	say("connect", connect(two, any(&to), sizeof to));
	say("connect again", connect(two, any(&to), sizeof to));
	say("connected send", send(two, "x", 1, 0));
	say("connected sendto", sendto(two, "xy", 2, 0, any(&to), sizeof to));
	three = bound4(SOCK_DGRAM, &port);
	from = inet4("127.0.0.1", port);
	say("connected sendto elsewhere", sendto(two, "xyz", 3, 0, any(&from), sizeof from));
	say("elsewhere", recv(three, buffer, sizeof buffer, MSG_DONTWAIT));
	recv(one, buffer, sizeof buffer, 0);
	recv(one, buffer, sizeof buffer, 0);
	for (int i = 0; i < 3; i++)
		many[i] = (struct mmsghdr){ message(&to, sizeof to, parts, i + 1), 77 };
	say("sendmmsg", sendmmsg(two, many, 3, 0));
	say("lengths", many[0].msg_len * 100 + many[1].msg_len * 10 + many[2].msg_len);
	for (int i = 0; i < 3; i++)
		say("mmsg received", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	many[1].msg_hdr.msg_name = unmapped();
	many[1].msg_len = many[2].msg_len = 77;
	say("sendmmsg, second bad", sendmmsg(two, many, 3, 0));
	say("second length", many[1].msg_len);
	say("one received", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	say("no more", recv(one, buffer, sizeof buffer, MSG_DONTWAIT));
	many[0].msg_hdr.msg_name = unmapped();
	say("sendmmsg, first bad", sendmmsg(two, many, 3, 0));
	say("sendmmsg of none", sendmmsg(two, many, 0, 0));
	say("sendmmsg of none, no socket", sendmmsg(1000, many, 0, 0));
	say("sendmmsg, array gone", syscall(SYS_sendmmsg, two, unmapped(), 2, 0));
	three = bound4(SOCK_DGRAM, &port);
	close(three);
	from = inet4("127.0.0.1", port);
	three = socket(AF_INET, SOCK_DGRAM, 0);
	say("to a closed port", connect(three, any(&from), sizeof from));
	say("first send", send(three, "x", 1, 0));
	say("second send", sendto(three, "x", 1, 0, any(&from), sizeof from));
}

static void bad_pointers(void)
{
	int port, one = bound4(SOCK_DGRAM, &port), two = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in to = inet4("127.0.0.1", port);
	void *bad = unmapped();
	struct iovec part = { bad, 5 }, negative = { "x", (size_t)-1 }, good = { "x", 1 };
	struct msghdr header = message(&to, sizeof to, &part, 1);
	socklen_t size = sizeof to, minus = -5;
	char buffer[128];

	say("connect", syscall(SYS_connect, two, bad, sizeof to));
	say("bind", syscall(SYS_bind, two, bad, sizeof to));
	say("sendto address", syscall(SYS_sendto, two, "x", 1, 0, bad, sizeof to));
	say("sendto data", syscall(SYS_sendto, two, bad, 5, 0, &to, sizeof to));
	say("sendmsg header", syscall(SYS_sendmsg, two, bad, 0));
	say("sendmsg data", sendmsg(two, &header, 0));
	header.msg_iov = &negative;
	say("sendmsg negative length", sendmsg(two, &header, 0));
	header.msg_iov = bad;
	say("sendmsg vector", sendmsg(two, &header, 0));
	header.msg_iovlen = 1025;
	say("sendmsg long vector", sendmsg(two, &header, 0));
	header = message(bad, sizeof to, &good, 1);
	say("sendmsg name", sendmsg(two, &header, 0));
	header = message(&to, (socklen_t)-1, &good, 1);
	say("sendmsg negative name", sendmsg(two, &header, 0));
	header = message(&to, 500, &good, 1);
	say("sendmsg long name", sendmsg(two, &header, 0));
	header = message(NULL, (socklen_t)-1, &good, 1);
	say("sendmsg no name", sendmsg(two, &header, 0));
	header = message(&to, sizeof to, &good, 1);
	header.msg_control = bad;
	header.msg_controllen = 64;
	say("sendmsg control", sendmsg(two, &header, 0));
	header.msg_control = NULL;
	say("sendmsg control without length", sendmsg(two, &header, 0));
	memset(buffer, 0, sizeof buffer);
	header.msg_control = buffer;
	say("sendmsg control of nothing", sendmsg(two, &header, 0));
	header.msg_controllen = 4;
	say("sendmsg short control", sendmsg(two, &header, 0));
	header.msg_controllen = 1 << 30;
	say("sendmsg huge control", sendmsg(two, &header, 0));
	say("getsockname", syscall(SYS_getsockname, one, bad, &size));
	say("getsockname size", syscall(SYS_getsockname, one, &to, bad));
	say("getsockname negative", getsockname(one, any(buffer), &minus));
	size = 0;
	say("getsockname no room", getsockname(one, any(buffer), &size));
	say("size", size);
	size = 3;
	memset(buffer, 'z', sizeof buffer);
	say("getsockname little room", getsockname(one, any(buffer), &size));
	say("size again", size);
	say("fourth byte", buffer[3]);
	say("getpeername", syscall(SYS_getpeername, one, bad, bad));
}

static void no_sockets(void)
{
	struct sockaddr_in to = inet4("127.0.0.1", 9);
	struct iovec part = { "x", 1 };
	struct msghdr header = message(&to, sizeof to, &part, 1);
	struct mmsghdr many = { header, 0 };
	socklen_t size = sizeof to;
	void *bad = unmapped();
	int file = open("/dev/null", O_RDWR), pins[] = { 1000, -1, file };

	for (int i = 0; i < 3; i++) {
		say("connect", connect(pins[i], any(&to), sizeof to));
		say("bind", bind(pins[i], any(&to), sizeof to));
		say("listen", listen(pins[i], 1));
		say("sendto", sendto(pins[i], "x", 1, 0, any(&to), sizeof to));
		say("sendmsg", sendmsg(pins[i], &header, 0));
		say("sendmmsg", sendmmsg(pins[i], &many, 1, 0));
		say("getsockname", getsockname(pins[i], any(&to), &size));
		say("getpeername", getpeername(pins[i], any(&to), &size));
		say("connect, address bad", syscall(SYS_connect, pins[i], bad, 16));
		say("connect, size bad", syscall(SYS_connect, pins[i], &to, 4000));
		say("bind, address bad", syscall(SYS_bind, pins[i], bad, 16));
		say("sendto, address bad", syscall(SYS_sendto, pins[i], "x", 1, 0, bad, 16));
		say("sendmsg, header bad", syscall(SYS_sendmsg, pins[i], bad, 0));
	}
	say("ip option", setsockopt(file, IPPROTO_IP, 1, &size, sizeof size));
}

static void fast_open(void)
{
	int port, one = listener4(5, &port), two = socket(AF_INET, SOCK_STREAM, 0), three;
	struct sockaddr_in to = inet4("127.0.0.1", port);
	struct sockaddr nothing = { .sa_family = AF_UNSPEC };
	char buffer[16] = { 0 };

	say("sendto", sendto(two, "early", 5, MSG_FASTOPEN, any(&to), sizeof to));
	three = accept(one, NULL, NULL);
	say("received", recv(three, buffer, sizeof buffer, 0));
	tell("text", buffer);
	peer_name("peer", two);
	say("again", sendto(two, "late", 4, MSG_FASTOPEN, any(&to), sizeof to));
	say("no family", sendto(socket(AF_INET, SOCK_STREAM, 0), "x", 1, MSG_FASTOPEN, &nothing, sizeof nothing));
	two = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	say("nonblocking", sendto(two, "early", 5, MSG_FASTOPEN, any(&to), sizeof to));
	say("udp", sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, MSG_FASTOPEN, any(&to), sizeof to));
}

int main(void)
{
	run_group("tcp", tcp);
	run_group("nonblocking", nonblocking);
	run_group("refused", refused);
	run_group("waiting", waiting);
	run_group("addresses", addresses);
	run_group("disconnect", disconnect);
	run_group("lengths", lengths);
	run_group("families", families);
	run_group("udp", udp);
	run_group("bad pointers", bad_pointers);
	run_group("no sockets", no_sockets);
	run_group("fast open", fast_open);
	return 0;
}
