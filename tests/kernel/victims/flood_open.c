/* flood_open DIRECTORY FORBIDDEN PORT
 *
 * 8 threads and 200 forked children open files at once: THREAD_OPENS and CHILD_OPENS each, DIRECTORY/f0 to f15, of
 * which each holds its letter. The children also make calls that fail in every way. Twice; after each flood the
 * program prints "flood N opened O failed F descriptors B A" (its own before and after) and waits for a line.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8
#define CHILDREN 200
#define THREAD_OPENS 250
#define CHILD_OPENS 10
#define FILES 16

static struct {
	atomic_int waiting, go;
	atomic_long opened, failed;
} *shared;
static const char *directory, *forbidden;
static struct sockaddr_in nobody;

static void open_some(int count, int seed)
{
	char path[512], letter;
	for (int i = 0; i < count; i++) {
		int number = (seed + i) % FILES;
		snprintf(path, sizeof path, "%s/f%d", directory, number);
		int fd = open(path, O_RDONLY);
		if (fd >= 0 && read(fd, &letter, 1) == 1 && letter == 'a' + number)
			shared->opened++;
		else
			shared->failed++;
		if (fd >= 0)
			close(fd);
	}
}

static void wait_for_all(void)
{
	shared->waiting++;
	while (!shared->go)
		usleep(1000);
}

static void *thread(void *seed)
{
	wait_for_all();
	open_some(THREAD_OPENS, (long)seed);
	return NULL;
}

/* What must fail: each with its own way out of the supervisor. */
static void fail_some(void)
{
	char missing[512], *none[] = {NULL};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	snprintf(missing, sizeof missing, "%s/missing", directory);
	int failed = open(forbidden, O_RDONLY) < 0 && errno == EACCES;
	failed += connect(fd, (struct sockaddr *)&nobody, sizeof nobody) && errno == ECONNREFUSED;
	failed += execve(missing, none, none) && errno == ENOENT;
	failed += rename(forbidden, directory) && errno == EACCES;
	failed += open((char *)8, O_RDONLY) < 0 && errno == EFAULT;
	struct rlimit full = {fd + 1, fd + 1}; /* no room for another descriptor */
	setrlimit(RLIMIT_NOFILE, &full);
	failed += open("/dev/null", O_RDONLY) < 0 && errno == EMFILE;
	if (failed != 6)
		shared->failed++;
}

static int descriptors(void)
{
	int count = 0;
	DIR *list = opendir("/proc/self/fd");
	while (readdir(list))
		count++;
	closedir(list);
	return count;
}

static void flood(int number)
{
	pthread_t threads[THREADS];
	pid_t children[CHILDREN];
	int before = descriptors();
	*shared = (typeof(*shared)){0};
	for (int i = 0; i < CHILDREN; i++)
		if (!(children[i] = fork())) {
			alarm(60);
			wait_for_all();
			open_some(CHILD_OPENS, i);
			fail_some();
			_exit(0);
		}
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, thread, (void *)i);
	while (shared->waiting < THREADS + CHILDREN)
		usleep(1000);
	shared->go = 1;
	for (int i = 0; i < CHILDREN; i++)
		waitpid(children[i], NULL, 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("flood %d opened %ld failed %ld descriptors %d %d\n", number, shared->opened, shared->failed, before,
	       descriptors());
	fflush(stdout);
	getchar();
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	directory = argv[1];
	forbidden = argv[2];
	nobody = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	flood(1);
	flood(2);
	return 0;
}
