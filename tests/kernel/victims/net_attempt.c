/*
 * Tries to reach something, in the way and at the place each argument names, and prints one line for each: `ok` or the
 * error's name.
 *
 *   connect,KIND,ADDRESS,PORT   also sendto, sendto-high, sendmsg, sendmmsg, fastopen; KIND is tcp4 tcp6 udp4 udp6, lit4 for UDP-Lite
 *   bind,KIND,ADDRESS,PORT      and listen
 *   listen,KIND                 without bind
 *   unix,TYPE,PATH              TYPE is stream dgram sendto sendmsg; @NAME is abstract
 *   unix-bind,TYPE,PATH
 *   socket,FAMILY,TYPE,PROTOCOL
 *   route,HOW,ADDRESS,PORT      HOW is option cmsg option6 old-option6 cmsg6: a source route
 *   credentials                 explicit credentials in a control message
 *   wait                        print `waiting`, go on when a line of input comes
 *   serve,KIND,FILE             bind and listen on loopback, write the port to FILE, keep it open
 *   connect-file,KIND,FILE      connect to the port that FILE tells
 *   stop                        close what `serve` opened
 */
#include "net_report.h"
#include <linux/ipv6.h>
#include <linux/seg6.h>

static char *words[8];
static int count, serving = -1;

static void answer(long result)
{
	printf("%s\n", result < 0 ? strerrorname_np(errno) : "ok");
	fflush(stdout);
}

static int is(const char *text)
{
	return !strcmp(words[0], text);
}

static int stream_of(const char *kind)
{
	return kind[0] == 't' ? SOCK_STREAM : SOCK_DGRAM;
}

static int open_of(const char *kind)
{
	int made = socket(kind[3] == '6' ? AF_INET6 : AF_INET, stream_of(kind), kind[0] == 'l' ? IPPROTO_UDPLITE : 0);

	need(made >= 0, "socket");
	return made;
}

static socklen_t place(struct sockaddr_storage *to, const char *kind, const char *address, int port)
{
	memset(to, 0, sizeof *to);
	if (kind[3] == '6') {
		*(struct sockaddr_in6 *)to = inet6(address, port);
		return sizeof(struct sockaddr_in6);
	}
	*(struct sockaddr_in *)to = inet4(address, port);
	return sizeof(struct sockaddr_in);
}

static long attempt(int descriptor, const char *how, void *to, socklen_t size)
{
	struct iovec part = { "x", 1 };
	struct msghdr header = { .msg_name = to, .msg_namelen = size, .msg_iov = &part, .msg_iovlen = 1 };
	struct mmsghdr many = { header, 0 };

	if (!strcmp(how, "sendto"))
		return sendto(descriptor, "x", 1, 0, to, size);
	if (!strcmp(how, "sendto-high")) {
		/* An address of which a filter that looks at the low word alone sees nothing. */
		void *page = mmap((void *)(1ul << 32), 4096, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		need(page == (void *)(1ul << 32), "mmap");
		memcpy(page, to, size);
		long result = sendto(descriptor, "x", 1, 0, page, size);
		int error = errno;
		munmap(page, 4096);
		errno = error;
		return result;
	}
	if (!strcmp(how, "sendmsg"))
		return sendmsg(descriptor, &header, 0);
	if (!strcmp(how, "sendmmsg"))
		return sendmmsg(descriptor, &many, 1, 0);
	if (!strcmp(how, "fastopen"))
		return sendto(descriptor, "x", 1, MSG_FASTOPEN, to, size);
	if (connect(descriptor, to, size) < 0)
		return -1;
	return send(descriptor, "x", 1, 0);
}

static void internet(void)
{
	struct sockaddr_storage to;
	socklen_t size = place(&to, words[1], words[2], atoi(words[3]));

	answer(attempt(open_of(words[1]), words[0], &to, size));
}

static void bind_it(void)
{
	struct sockaddr_storage to;
	socklen_t size = place(&to, words[1], words[2], atoi(words[3]));
	int descriptor = open_of(words[1]);
	long result = bind(descriptor, any(&to), size);

	answer(result < 0 || stream_of(words[1]) == SOCK_DGRAM ? result : listen(descriptor, 1));
}

static int local(struct sockaddr_un *name, socklen_t *size)
{
	*size = unix_name(name, words[2], 1);
	if (name->sun_path[0] == '@')
		name->sun_path[0] = 0;
	return socket(AF_UNIX, strcmp(words[1], "stream") ? SOCK_DGRAM : SOCK_STREAM, 0);
}

static void route_option(int level, int option, const void *value, socklen_t size)
{
	answer(setsockopt(socket(level ? AF_INET6 : AF_INET, SOCK_DGRAM, 0), level, option, value, size));
}

static void route_message(int level, int type, const void *value, size_t size)
{
	union { char raw[128]; struct cmsghdr align; } control = { { 0 } };
	struct iovec part = { "x", 1 };
	struct sockaddr_storage to;
	socklen_t to_size = place(&to, level ? "udp6" : "udp4", words[2], atoi(words[3]));
	struct msghdr header = { &to, to_size, &part, 1, &control, CMSG_SPACE(size), 0 };
	struct cmsghdr *first = CMSG_FIRSTHDR(&header);

	*first = (struct cmsghdr){ CMSG_LEN(size), level, type };
	memcpy(CMSG_DATA(first), value, size);
	answer(sendmsg(socket(level ? AF_INET6 : AF_INET, SOCK_DGRAM, 0), &header, 0));
}

static void route(void)
{
	/* Loose source route by 127.0.0.1; a segment routing header and one of type 2, each with one address, ::1. */
	static const unsigned char loose[8] = { 131, 7, 4, 127, 0, 0, 1, 0 };
	union { unsigned char raw[24]; struct ipv6_sr_hdr header; } segments = { { 0 } }, home = { { 0 } };

	segments.header.hdrlen = 2;
	segments.header.type = 4;
	home.header.hdrlen = 2;
	home.header.type = 2;
	home.header.segments_left = 1;
	segments.raw[23] = home.raw[23] = 1;
	if (!strcmp(words[1], "option"))
		route_option(IPPROTO_IP, IP_OPTIONS, loose, sizeof loose);
	else if (!strcmp(words[1], "cmsg"))
		route_message(IPPROTO_IP, IP_RETOPTS, loose, sizeof loose);
	else if (!strcmp(words[1], "option6"))
		route_option(IPPROTO_IPV6, IPV6_RTHDR, &segments, sizeof segments);
	else if (!strcmp(words[1], "old-option6"))
		route_option(IPPROTO_IPV6, IPV6_2292RTHDR, &segments, sizeof segments);
	else
		route_message(IPPROTO_IPV6, IPV6_RTHDR, &home, sizeof home);
}

static void credentials(void)
{
	union { char raw[128]; struct cmsghdr align; } control = { { 0 } };
	struct iovec part = { "x", 1 };
	struct ucred mine = { getpid(), getuid(), getgid() };
	struct msghdr header = { NULL, 0, &part, 1, &control, CMSG_SPACE(sizeof mine), 0 };
	struct cmsghdr *first = CMSG_FIRSTHDR(&header);
	int ends[2];

	need(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
	*first = (struct cmsghdr){ CMSG_LEN(sizeof mine), SOL_SOCKET, SCM_CREDENTIALS };
	memcpy(CMSG_DATA(first), &mine, sizeof mine);
	answer(sendmsg(ends[0], &header, 0));
}

static void serve(void)
{
	int port;
	FILE *file = fopen(words[2], "w");

	serving = words[1][3] == '6' ? bound6(stream_of(words[1]), "::1", &port) : bound4(stream_of(words[1]), &port);
	if (stream_of(words[1]) == SOCK_STREAM)
		need(listen(serving, 5) == 0, "listen");
	need(file && fprintf(file, "%d\n", port) > 0 && fclose(file) == 0, "file");
	answer(0);
}

static void connect_file(void)
{
	struct sockaddr_storage to;
	FILE *file = fopen(words[2], "r");
	int port = 0;

	need(file && fscanf(file, "%d", &port) == 1, "port");
	fclose(file);
	answer(attempt(open_of(words[1]), "connect", &to, place(&to, words[1], words[1][3] == '6' ? "::1" : "127.0.0.1", port)));
}

static void perform(char *text)
{
	struct sockaddr_un name;
	socklen_t size;
	char line[16];

	count = 0;
	for (char *word = strtok(text, ","); word && count < 8; word = strtok(NULL, ","))
		words[count++] = word;
	if (is("unix")) {
		int descriptor = local(&name, &size);
		answer(attempt(descriptor, words[1], &name, size));
	} else if (is("unix-bind")) {
		int descriptor = local(&name, &size);
		answer(bind(descriptor, any(&name), size));
	} else if (is("socket")) {
		answer(socket(atoi(words[1]), atoi(words[2]), atoi(words[3])));
	} else if (is("listen")) {
		answer(listen(open_of(words[1]), 1));
	} else if (is("bind")) {
		bind_it();
	} else if (is("route")) {
		route();
	} else if (is("credentials")) {
		credentials();
	} else if (is("serve")) {
		serve();
	} else if (is("connect-file")) {
		connect_file();
	} else if (is("stop")) {
		answer(close(serving));
	} else if (is("wait")) {
		puts("waiting");
		fflush(stdout);
		need(fgets(line, sizeof line, stdin) != NULL, "input");
	} else {
		internet();
	}
}

int main(int argc, char **argv)
{
	alarm(60);
	for (int i = 1; i < argc; i++)
		perform(argv[i]);
	return 0;
}
