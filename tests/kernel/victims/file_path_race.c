/*
 * Races the path of an open with O_PATH: a second thread flips it between the two names given, while this one opens
 * it and asks which file it got. Prints the number of opens and how often it held the second file; ends when it has
 * held that, or after the number of opens given.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char path[256];
static const char *first, *second;
static volatile int done;

static void *flip(void *unused)
{
	while (!done) {
		memcpy(path, second, strlen(second) + 1);
		memcpy(path, first, strlen(first) + 1);
	}
	return unused;
}

int main(int count, char **arguments)
{
	pthread_t thread;
	struct stat wanted, got;
	long opens = 0, won = 0, limit = count > 3 ? atol(arguments[3]) : 0;
	first = arguments[1];
	second = arguments[2];
	if (stat(first, &wanted))
		return 2;
	pthread_create(&thread, NULL, flip, NULL);
	for (; opens < limit && !won; opens++) {
		int descriptor = syscall(SYS_openat, AT_FDCWD, path, O_PATH);
		if (descriptor >= 0) {
			won = !fstat(descriptor, &got) && got.st_ino != wanted.st_ino;
			close(descriptor);
		}
	}
	done = 1;
	pthread_join(thread, NULL);
	printf("%ld %ld\n", opens, won);
	return 0;
}
