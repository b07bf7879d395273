/* flood_crowd FILE FIFO THREADS
 *
 * THREADS threads open FIFO, at whose other end there is nobody; then the main thread opens FILE for a second. Prints
 * "slowest US opens N failed F waiting W": its own opens, and how many of the others wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *fifo;
static atomic_int began, ended;

static void *waiter(void *unused)
{
	began++;
	open(fifo, O_RDONLY);
	ended++;
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
	if (argc != 4)
		return 2;
	fifo = argv[2];
	int threads = atoi(argv[3]);
	for (int i = 0; i < threads; i++) {
		pthread_t thread;
		pthread_attr_t small;
		pthread_attr_init(&small);
		pthread_attr_setstacksize(&small, 1 << 16);
		if (pthread_create(&thread, &small, waiter, NULL))
			return 4;
	}
	while (began < threads)
		usleep(1000);
	double slowest = 0, end = now() + 1e6;
	long opens = 0, failed = 0;
	for (double start = now(); start < end; opens++) {
		int fd = open(argv[1], O_RDONLY);
		double after = now();
		if (fd < 0)
			failed++;
		else
			close(fd);
		if (after - start > slowest)
			slowest = after - start;
		start = now();
	}
	printf("slowest %.0f opens %ld failed %ld waiting %d\n", slowest, opens, failed, began - ended);
	fflush(stdout);
	_exit(0);
}
