/* flood_wait KIND FILE TARGET MILLISECONDS
 *
 * One thread makes a call that waits, of KIND, at TARGET; another opens FILE over and over for MILLISECONDS. Prints
 * "slowest US opens N waited W": the longest open in microseconds, how many there were, and whether the other thread
 * was still waiting at the end. KIND `none` waits for nothing: the control.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MEGABYTES 64

static const char *kind, *target;
static atomic_int about_to, done;

static void loopback(struct sockaddr_in *address)
{
	*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(target))};
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

static void send_much(int fd)
{
	size_t size = MEGABYTES << 20;
	struct iovec payload = {mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), size};
	struct msghdr message = {.msg_iov = &payload, .msg_iovlen = 1};
	about_to = 1;
	sendmsg(fd, &message, 0);
}

static void *waiter(void *unused)
{
	struct sockaddr_in address;
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int pair[2];
	if (!strcmp(kind, "fifo")) {
		about_to = 1;
		open(target, O_RDONLY);
	} else if (!strcmp(kind, "connect-tcp")) {
		loopback(&address);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		about_to = 1;
		connect(fd, (struct sockaddr *)&address, sizeof address);
	} else if (!strcmp(kind, "connect-unix")) {
		strncpy(name.sun_path, target, sizeof name.sun_path - 1);
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		about_to = 1;
		connect(fd, (struct sockaddr *)&name, sizeof name);
	} else if (!strcmp(kind, "send-pair")) {
		socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
		send_much(pair[0]);
	} else if (!strcmp(kind, "send-tcp")) {
		loopback(&address);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		connect(fd, (struct sockaddr *)&address, sizeof address);
		send_much(fd);
	}
	done = 1;
	return unused;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	kind = argv[1];
	target = argv[3];
	pthread_t thread;
	pthread_create(&thread, NULL, waiter, NULL);
	while (!about_to && !done)
		usleep(1000);
	double slowest = 0, end = now() + atof(argv[4]) * 1e3;
	long opens = 0;
	for (double start = now(); start < end; opens++) {
		int fd = open(argv[2], O_RDONLY);
		double after = now();
		if (fd < 0)
			return 3;
		close(fd);
		if (after - start > slowest)
			slowest = after - start;
		start = now();
	}
	printf("slowest %.0f opens %ld waited %d\n", slowest, opens, !done);
	return 0;
}
