/* flood_toggle FILE SOCKET
 *
 * Many threads connect to SOCKET, whose queue is full, while another switches their sockets between waiting and not
 * waiting: whoever looks at O_NONBLOCK first and connects then may wait after all. The main thread opens FILE all the
 * while, and prints "slowest US opens N".
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKETS 60
#define SECONDS 2

static int sockets[SOCKETS];
static struct sockaddr_un name = {.sun_family = AF_UNIX};

static void *toggle(void *unused)
{
	for (;;) {
		for (int i = 0; i < SOCKETS; i++)
			fcntl(sockets[i], F_SETFL, O_NONBLOCK);
		for (volatile int spin = rand() % 20000; spin; spin--)
			;
		for (int i = 0; i < SOCKETS; i++)
			fcntl(sockets[i], F_SETFL, 0);
	}
	return unused;
}

static void *keep_connecting(void *socket)
{
	for (;;)
		connect(*(int *)socket, (struct sockaddr *)&name, sizeof name);
	return NULL;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	strncpy(name.sun_path, argv[2], sizeof name.sun_path - 1);
	pthread_t thread;
	for (int i = 0; i < SOCKETS; i++) {
		sockets[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		pthread_create(&thread, NULL, keep_connecting, &sockets[i]);
	}
	pthread_create(&thread, NULL, toggle, NULL);
	double slowest = 0, end = now() + SECONDS * 1e6;
	long opens = 0;
	for (double start = now(); start < end; opens++) {
		int fd = open(argv[1], O_RDONLY);
		double after = now();
		if (fd < 0)
			return 3;
		close(fd);
		if (after - start > slowest)
			slowest = after - start;
		start = now();
	}
	printf("slowest %.0f opens %ld\n", slowest, opens);
	fflush(stdout);
	_exit(0);
}
