/* loop OPERATION COUNT [ARGUMENTS]: do one thing over and over and print the 50th, 95th and 99th percentile of what it
 * takes, in nanoseconds. `threads` prints operations a second; `paced` opens another file before each read, at a fixed
 * rate, and times the reads. The first tenth is for warming up and does not count. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static char **words;
static char block[1024];
static int kept = -1; /* a descriptor that an operation uses again */

static void must(int holds)
{
	if (!holds) {
		perror(words[1]);
		exit(1);
	}
}

static struct sockaddr_in address(const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return to;
}

static void op_read(void)
{
	int file = open(words[3], O_RDONLY | O_CLOEXEC);
	must(file >= 0 && read(file, block, sizeof block) == sizeof block);
	close(file);
}

/* The open alone: the descriptors are closed at once, every 256 times. */
static void op_open(void)
{
	static int files[256], open_files;
	files[open_files] = open(words[3], O_RDONLY | O_CLOEXEC);
	must(files[open_files] >= 0);
	if (++open_files < 256)
		return;
	while (open_files > 0)
		close(files[--open_files]);
}

static void op_write(void)
{
	int file = open(words[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	must(file >= 0 && write(file, block, sizeof block) == sizeof block);
	close(file);
}

static void op_missing(void)
{
	must(open(words[3], O_RDONLY) < 0 && errno == ENOENT);
}

static void op_stat(void)
{
	struct stat status;
	must(stat(words[3], &status) == 0);
}

static void op_access(void)
{
	must(access(words[3], R_OK) == 0);
}

static void op_readlink(void)
{
	must(readlink(words[3], block, sizeof block) > 0);
}

static void op_directory(void)
{
	must(mkdir(words[3], 0755) == 0 && rmdir(words[3]) == 0);
}

static void op_rename(void)
{
	must(rename(words[3], words[4]) == 0 && rename(words[4], words[3]) == 0);
}

static void op_link(void)
{
	must(link(words[3], words[4]) == 0 && unlink(words[4]) == 0);
}

static void op_symlink(void)
{
	must(symlink(words[3], words[4]) == 0 && unlink(words[4]) == 0);
}

static void op_chmod(void)
{
	must(chmod(words[3], 0644) == 0);
}

static void op_truncate(void)
{
	must(truncate(words[3], 1024) == 0);
}

static void op_times(void)
{
	must(utimensat(AT_FDCWD, words[3], NULL, 0) == 0);
}

static void op_getxattr(void)
{
	must(getxattr(words[3], "user.none", block, sizeof block) < 0);
}

static void abandon(int peer)
{
	struct linger now = {1, 0}; /* leave no port in TIME_WAIT */
	setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(peer);
}

static void op_connection(void)
{
	struct sockaddr_in to = address(words[3]);
	int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(peer >= 0 && connect(peer, (struct sockaddr *)&to, sizeof to) == 0);
	abandon(peer);
}

static void another_socket(void)
{
	if (kept >= 0)
		abandon(kept);
	kept = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void op_connect(void)
{
	struct sockaddr_in to = address(words[3]);
	must(connect(kept, (struct sockaddr *)&to, sizeof to) == 0);
}

static void op_unix_connect(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	strncpy(to.sun_path, words[3], sizeof to.sun_path - 1);
	int peer = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(peer >= 0 && connect(peer, (struct sockaddr *)&to, sizeof to) == 0);
	close(peer);
}

static void op_bind(void)
{
	struct sockaddr_in here = address("0");
	int own = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(own >= 0 && bind(own, (struct sockaddr *)&here, sizeof here) == 0);
	close(own);
}

static void op_sendto(void)
{
	struct sockaddr_in to = address(words[3]);
	if (kept < 0)
		kept = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(sendto(kept, block, 64, 0, (struct sockaddr *)&to, sizeof to) == 64);
}

static void http(const char *method)
{
	struct sockaddr_in to = address(words[3]);
	char request[256], answer[4096];
	int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(peer >= 0 && connect(peer, (struct sockaddr *)&to, sizeof to) == 0);
	int size = snprintf(request, sizeof request, "%s / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", method);
	must(write(peer, request, (size_t)size) == size);
	ssize_t got, all = 0;
	while ((got = read(peer, answer, sizeof answer)) > 0)
		all += got;
	must(all > 0);
	close(peer);
}

static void op_get(void)
{
	http("GET");
}

static void op_post(void)
{
	http("POST");
}

static void op_exec(void)
{
	int status;
	pid_t child = vfork();
	if (child == 0) {
		execl(words[3], words[3], (char *)NULL);
		_exit(127);
	}
	must(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void op_getpid(void)
{
	syscall(SYS_getpid);
}

static void op_pread(void)
{
	if (kept < 0)
		must((kept = open(words[3], O_RDWR)) >= 0);
	must(pread(kept, block, sizeof block, 0) == sizeof block);
}

static void op_pwrite(void)
{
	if (kept < 0)
		must((kept = open(words[3], O_RDWR)) >= 0);
	must(pwrite(kept, block, sizeof block, 0) == sizeof block);
}

static void op_futex(void)
{
	static uint32_t word;
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static const struct {
	const char *name;
	void (*run)(void);
	void (*before)(void); /* of each time, does not count */
} operations[] = {
	{"read", op_read},	 {"write", op_write},	      {"missing", op_missing},	 {"stat", op_stat},
	{"access", op_access},	 {"readlink", op_readlink},   {"directory", op_directory}, {"rename", op_rename},
	{"link", op_link},	 {"symlink", op_symlink},     {"chmod", op_chmod},	 {"truncate", op_truncate},
	{"times", op_times},	 {"getxattr", op_getxattr},   {"connect", op_connect, another_socket},
	{"connection", op_connection}, {"unix-connect", op_unix_connect},
	{"bind", op_bind},	 {"sendto", op_sendto},	      {"get", op_get},		 {"post", op_post},
	{"exec", op_exec},	 {"getpid", op_getpid},	      {"pread", op_pread},	 {"pwrite", op_pwrite},
	{"futex", op_futex},	 {"open", op_open},
};

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static long count;

static void *read_many(void *unused)
{
	for (long i = 0; i < count; i++)
		op_read();
	return unused;
}

static void in_threads(int threads)
{
	pthread_t workers[64];
	must(threads > 0 && threads <= 64);
	read_many(NULL);
	int64_t begin = now();
	for (int i = 0; i < threads; i++)
		must(pthread_create(&workers[i], NULL, read_many, NULL) == 0);
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i], NULL);
	printf("%.0f\n", (double)threads * (double)count * 1e9 / (double)(now() - begin));
}

/* Before each operation of `paced`: wait until it is due, then open another file, whatever comes of that. */
static void pace(void)
{
	static int64_t due;
	due = (due ? due : now()) + atol(words[5]);
	struct timespec time = {due / 1000000000, due % 1000000000};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
	int file = open(words[4], O_RDONLY | O_CLOEXEC);
	if (file >= 0)
		close(file);
}

static void timed(void (*run)(void), void (*before)(void))
{
	int64_t *taken = calloc((size_t)count, sizeof *taken);
	must(taken != NULL);
	for (long i = -count / 10; i < count; i++) {
		if (before)
			before();
		int64_t begin = now();
		run();
		if (i >= 0)
			taken[i] = now() - begin;
	}
	qsort(taken, (size_t)count, sizeof *taken, ascending);
	printf("%lld %lld %lld\n", (long long)taken[count / 2], (long long)taken[count * 95 / 100],
	       (long long)taken[count * 99 / 100]);
}

int main(int argc, char **argv)
{
	words = argv;
	if (argc < 3 || (count = atol(argv[2])) < 1)
		return 2;
	if (!strcmp(argv[1], "threads")) {
		in_threads(atoi(argv[4]));
		return 0;
	}
	if (!strcmp(argv[1], "paced")) {
		timed(op_read, pace);
		return 0;
	}
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
		if (!strcmp(argv[1], operations[i].name)) {
			timed(operations[i].run, operations[i].before);
			return 0;
		}
	return 2;
}
