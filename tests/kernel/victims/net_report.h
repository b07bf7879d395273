/* How the network agents print what a call gave: `group.step value ERRNO`. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *group = "?";

/* Print one result and return it. */
static inline long say(const char *step, long value)
{
	int error = errno;
	printf("%s.%s %ld %s\n", group, step, value, value < 0 ? strerrorname_np(error) : "-");
	fflush(stdout);
	return value;
}

static inline void tell(const char *step, const char *text)
{
	printf("%s.%s %s\n", group, step, text);
	fflush(stdout);
}

static inline void need(int true_enough, const char *what)
{
	if (!true_enough) {
		printf("%s: cannot set up: %s: %s\n", group, what, strerror(errno));
		fflush(stdout);
		_exit(99);
	}
}

/* Run one group in a process of its own, ended by a signal if it hangs. */
static inline void run_group(const char *name, void (*body)(void))
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	need(child >= 0, "fork");
	if (!child) {
		group = name;
		alarm(30);
		body();
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, &status, 0);
	group = name;
	say("ended", status);
}

static inline struct sockaddr_in inet4(const char *address, int port)
{
	struct sockaddr_in made = { .sin_family = AF_INET, .sin_port = htons(port) };

	need(inet_pton(AF_INET, address, &made.sin_addr) == 1, "address");
	return made;
}

static inline struct sockaddr_in6 inet6(const char *address, int port)
{
	struct sockaddr_in6 made = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	need(inet_pton(AF_INET6, address, &made.sin6_addr) == 1, "address");
	return made;
}

static inline struct sockaddr *any(void *address)
{
	return address;
}

/* A name of a Unix socket and the length to pass: without the NUL, as Python does, when `bare`. */
static inline socklen_t unix_name(struct sockaddr_un *made, const char *path, int bare)
{
	size_t length = strlen(path);

	memset(made, 0, sizeof *made);
	made->sun_family = AF_UNIX;
	memcpy(made->sun_path, path, length > sizeof made->sun_path ? sizeof made->sun_path : length);
	return offsetof(struct sockaddr_un, sun_path) + length + !bare;
}

static inline int port_of(int descriptor)
{
	struct sockaddr_in6 name;
	socklen_t size = sizeof name;

	need(getsockname(descriptor, any(&name), &size) == 0, "getsockname");
	return ntohs(name.sin6_port);
}

/* A socket bound to a loopback port of the kernel's choice. */
static inline int bound4(int type, int *port)
{
	struct sockaddr_in address = inet4("127.0.0.1", 0);
	int made = socket(AF_INET, type, 0);

	need(made >= 0 && bind(made, any(&address), sizeof address) == 0, "bind");
	*port = port_of(made);
	return made;
}

static inline int bound6(int type, const char *address_text, int *port)
{
	struct sockaddr_in6 address = inet6(address_text, 0);
	int made = socket(AF_INET6, type, 0);

	need(made >= 0 && bind(made, any(&address), sizeof address) == 0, "bind");
	*port = port_of(made);
	return made;
}

static inline void *unmapped(void)
{
	void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(page != MAP_FAILED, "mmap");
	return page;
}

/* Print an address without the port, which differs from run to run. */
static inline void say_name(const char *step, int result, const void *raw, socklen_t size)
{
	char text[INET6_ADDRSTRLEN] = "", line[512];
	const struct sockaddr_un *local = raw;
	const struct sockaddr_in *four = raw;
	const struct sockaddr_in6 *six = raw;

	if (result < 0) {
		say(step, result);
		return;
	}
	if (size >= 2 && local->sun_family == AF_UNIX) {
		size_t used = 0;
		for (socklen_t i = 2; i < size && i < 111; i++)
			used += snprintf(line + used, 4, "%c", local->sun_path[i - 2] ? local->sun_path[i - 2] : '~');
		line[used] = 0;
		printf("%s.%s unix %u '%s'\n", group, step, size, line);
		return;
	}
	if (four->sin_family == AF_INET)
		inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
	else
		inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
	printf("%s.%s %s %s %u\n", group, step, text, four->sin_port ? "port" : "no port", size);
}

static inline void own_name(const char *step, int descriptor)
{
	unsigned char raw[160] = { 0 };
	socklen_t size = 128;
	int result = getsockname(descriptor, any(raw), &size);

	say_name(step, result, raw, size);
}

static inline void peer_name(const char *step, int descriptor)
{
	unsigned char raw[160] = { 0 };
	socklen_t size = 128;
	int result = getpeername(descriptor, any(raw), &size);

	say_name(step, result, raw, size);
}
