/* Opens for the kernel tier: `swap A B SECONDS` opens A while another thread puts B in the descriptor's place;
 * `many FILE COUNT` opens and closes one file; `wait FILE COUNT` does so after a line on standard input. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *other;
static volatile int stop;
static volatile long swapped;

/* The descriptor that the next open gives is the lowest that is free. */
static void *swap(void *lowest)
{
	int place = *(int *)lowest, file = open(other, O_RDONLY);
	while (!stop) {
		dup2(file, place);
		close(place);
		swapped++;
	}
	return NULL;
}

static void many(const char *path, long count)
{
	while (count-- > 0) {
		int file = open(path, O_RDONLY | O_CLOEXEC);
		if (file < 0)
			exit(1);
		close(file);
	}
}

int main(int argc, char **argv)
{
	char line[8];
	if (argc < 4)
		return 2;
	if (!strcmp(argv[1], "swap")) {
		pthread_t thread;
		other = argv[3];
		int lowest = dup(0);
		close(lowest);
		int held = dup(0), place = dup(0); /* `other` takes the first, the swapped one comes after */
		close(held);
		close(place);
		place = lowest + 1;
		pthread_create(&thread, NULL, swap, &place);
		while (swapped == 0)
			;
		time_t end = time(NULL) + atoi(argv[4]);
		long opened = 0;
		for (; time(NULL) < end && opened < 20000; opened++) {
			int file = open(argv[2], O_RDONLY);
			if (file >= 0 && file != place)
				close(file);
		}
		stop = 1;
		pthread_join(thread, NULL);
		printf("%ld\n", opened);
		return 0;
	}
	if (!strcmp(argv[1], "wait")) {
		puts("ready");
		fflush(stdout);
		if (read(0, line, sizeof line) < 1) /* nothing of stdio, which would ask the supervisor about the descriptor */
			return 1;
	}
	many(argv[2], atol(argv[3]));
	puts("done");
	return 0;
}
