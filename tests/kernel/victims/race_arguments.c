/* race_arguments KIND MILLISECONDS GOOD BAD
 *
 * One thread alternates an argument in memory between GOOD and BAD as fast as it can; another makes the call with it,
 * over and over. GOOD and BAD are directories whose names differ in one letter, or the two ports of socket kinds.
 * Prints what came of it: "good N bad N refused N killed N". What lies in BAD, or listens there, answers with 'b'.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Everything that children and their parent both see. */
static struct {
	long good, bad, refused, killed;
	char path[512];
	struct sockaddr_in address[2];
	struct open_how how;
	struct msghdr message;
} *shared;

static const char *good, *bad;
static volatile uint8_t *byte; /* the place that changes, and what it changes between */
static uint8_t byte_good, byte_bad;
static volatile uint16_t *word;
static uint16_t word_good, word_bad;
static struct timespec end;

static void *racer(void *unused)
{
	for (;;) {
		if (byte) {
			*byte = byte_bad;
			*byte = byte_good;
		} else {
			*word = word_bad;
			*word = word_good;
		}
	}
	return unused;
}

static void race(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, racer, NULL))
		exit(9);
}

static int more(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec);
}

static void race_path(const char *leaf)
{
	size_t place = 0;
	snprintf(shared->path, sizeof shared->path, "%s/%s", good, leaf);
	while (good[place] == bad[place])
		place++;
	byte = (uint8_t *)shared->path + place;
	byte_good = good[place];
	byte_bad = bad[place];
}

static const char *in_good(const char *leaf)
{
	static char path[512];
	snprintf(path, sizeof path, "%s/%s", good, leaf);
	return path;
}

static void race_port(void)
{
	for (int i = 0; i < 2; i++) {
		shared->address[i].sin_family = AF_INET;
		shared->address[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		shared->address[i].sin_port = htons(atoi(i ? bad : good));
	}
	word = &shared->address[0].sin_port;
	word_good = htons(atoi(good));
	word_bad = htons(atoi(bad));
}

static void count(int answer)
{
	if (answer == 'b')
		shared->bad++;
	else if (answer == 'g')
		shared->good++;
	else
		shared->refused++;
}

/* What an opened file or a connected socket says it is. */
static int answer_of(int descriptor)
{
	char letter = 0;
	if (descriptor < 0 || read(descriptor, &letter, 1) != 1)
		letter = 0;
	if (descriptor >= 0)
		close(descriptor);
	return letter;
}

static void do_open(void) { count(answer_of(open(shared->path, O_RDONLY))); }

static void do_openat2(void)
{
	struct open_how how = {.flags = O_RDONLY};
	count(answer_of(syscall(SYS_openat2, AT_FDCWD, shared->path, &how, sizeof how)));
}

/* The file may be read, not written; the flags change between the two. */
static void do_openat2_how(void)
{
	int fd = syscall(SYS_openat2, AT_FDCWD, in_good("readable"), &shared->how, sizeof shared->how);
	int answer = fd < 0 ? 0 : 'g';
	if (fd >= 0 && write(fd, "b", 1) == 1)
		answer = 'b';
	if (fd >= 0)
		close(fd);
	count(answer);
}

static void do_rename_old(void)
{
	if (rename(shared->path, in_good("moved"))) {
		count(0);
		return;
	}
	int answer = answer_of(open(in_good("moved"), O_RDONLY));
	count(answer);
	if (answer == 'g') {
		char moved[512];
		strcpy(moved, in_good("moved"));
		rename(moved, in_good("token"));
	}
}

static void do_rename_new(void)
{
	char item[512];
	strcpy(item, in_good("item"));
	if (rename(item, shared->path))
		count(0);
	else if (!rename(in_good("planted"), item))
		count('g');
	else {
		count('b');
		close(open(item, O_CREAT | O_WRONLY, 0644));
	}
}

static void do_link_old(void)
{
	if (link(shared->path, in_good("link"))) {
		count(0);
		return;
	}
	count(answer_of(open(in_good("link"), O_RDONLY)));
	unlink(in_good("link"));
}

static void do_link_new(void)
{
	if (link(in_good("file"), shared->path))
		count(0);
	else
		count(unlink(in_good("made")) ? 'b' : 'g');
}

static void do_connect(void)
{
	struct linger reset = {.l_onoff = 1};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	if (connect(fd, (struct sockaddr *)&shared->address[0], sizeof shared->address[0])) {
		close(fd);
		count(0);
	} else
		count(answer_of(fd));
}

static int udp = -1;

/* A datagram has no answer: who received it is seen at the other end. */
static void do_sendto(void)
{
	ssize_t sent = sendto(udp, "x", 1, 0, (struct sockaddr *)&shared->address[0], sizeof shared->address[0]);
	count(sent == 1 ? 'g' : 0);
}

static void do_sendmsg(void) { count(sendmsg(udp, &shared->message, 0) == 1 ? 'g' : 0); }

/* An exec that is caught kills the process, so each attempt has one of its own; the parent's thread races for it. */
static void reap(pid_t child)
{
	int status;
	if (waitpid(child, &status, 0) != child)
		return;
	if (WIFSIGNALED(status))
		shared->killed++;
	else
		count(WEXITSTATUS(status));
}

static void do_execve(void)
{
	char *arguments[] = {shared->path, NULL}, *environment[] = {NULL};
	pid_t child = fork();
	if (!child) {
		execve(shared->path, arguments, environment);
		_exit(0);
	}
	reap(child);
}

static void *execute(void *unused)
{
	char *arguments[] = {shared->path, NULL}, *environment[] = {NULL};
	execve(shared->path, arguments, environment);
	_exit(0);
	return unused;
}

/* The same from a thread that is not the leader: the exec takes the leader's id. */
static void do_execve_thread(void)
{
	pid_t child = fork();
	if (!child) {
		pthread_t thread;
		pthread_create(&thread, NULL, execute, NULL);
		racer(NULL);
	}
	reap(child);
}

/* A process that strays is killed before it runs on, so it counts for itself. */
static void in_a_child(void (*attempt)(void))
{
	int status;
	pid_t child = fork();
	if (!child) {
		while (more())
			attempt();
		_exit(0);
	}
	waitpid(child, &status, 0);
	if (WIFSIGNALED(status))
		shared->killed++;
}

static void stray_by_chdir(void)
{
	char where[512];
	if (chdir(shared->path) || !getcwd(where, sizeof where))
		count(0);
	else
		count(strncmp(where, bad, strlen(bad)) ? 'g' : 'b');
}

static void do_chdir(void) { in_a_child(stray_by_chdir); }

/* A descriptor of O_PATH cannot be read from; it tells what it refers to. */
static void stray_by_open(void)
{
	struct stat found, wanted;
	int fd = open(shared->path, O_PATH);
	if (fd < 0 || fstat(fd, &found) || stat(in_good("file"), &wanted))
		count(0);
	else
		count(found.st_ino == wanted.st_ino ? 'g' : 'b');
	if (fd >= 0)
		close(fd);
}

static void do_open_path(void) { in_a_child(stray_by_open); }

static const struct kind {
	const char *name, *leaf; /* no leaf: the argument that changes is not a path */
	void (*attempt)(void);
} kinds[] = {
	{"open", "file", do_open},
	{"open-path", "file", do_open_path},
	{"openat2", "file", do_openat2},
	{"openat2-how", NULL, do_openat2_how},
	{"rename-old", "token", do_rename_old},
	{"rename-new", "planted", do_rename_new},
	{"link-old", "file", do_link_old},
	{"link-new", "made", do_link_new},
	{"execve", "program", do_execve},
	{"execve-thread", "program", do_execve_thread},
	{"chdir", "", do_chdir},
	{"connect", NULL, do_connect},
	{"sendto", NULL, do_sendto},
	{"sendmsg", NULL, do_sendmsg},
};

static void prepare(const struct kind *kind)
{
	if (kind->leaf)
		race_path(kind->leaf);
	else if (kind->attempt == do_openat2_how) {
		byte = (uint8_t *)&shared->how.flags;
		byte_good = O_RDONLY;
		byte_bad = O_RDWR;
	} else
		race_port();
	if (kind->attempt == do_sendmsg) {
		static struct iovec payload = {.iov_base = "x", .iov_len = 1};
		shared->message.msg_name = &shared->address[0];
		shared->message.msg_namelen = sizeof shared->address[0];
		shared->message.msg_iov = &payload;
		shared->message.msg_iovlen = 1;
		/* The pointer changes, not what it points to; both addresses lie where one byte makes the difference. */
		word = NULL;
		byte = (uint8_t *)&shared->message.msg_name;
		byte_good = (uintptr_t)&shared->address[0];
		byte_bad = (uintptr_t)&shared->address[1];
	}
	udp = socket(AF_INET, SOCK_DGRAM, 0);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	good = argv[3];
	bad = argv[4];
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct kind *kind = kinds;
	while (strcmp(kind->name, argv[1]))
		if (++kind == kinds + sizeof kinds / sizeof *kinds)
			return 2;
	prepare(kind);
	race();
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_nsec += atol(argv[2]) % 1000 * 1000000;
	end.tv_sec += atol(argv[2]) / 1000 + end.tv_nsec / 1000000000;
	end.tv_nsec %= 1000000000;
	while (more())
		kind->attempt();
	printf("good %ld bad %ld refused %ld killed %ld\n", shared->good, shared->bad, shared->refused, shared->killed);
	return 0;
}
