/* What a traced agent may try with what a tracer needs of it: its channel, its page, its children. One word an attempt. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <dirent.h>

#define PAGE ((char *)0x10F5E27B0000)

static const char *name_of(long result)
{
	return result >= 0 ? "ok" : strerrorname_np(errno);
}

static int highest(void)
{
	DIR *all = opendir("/proc/self/fd");
	int most = 0;
	for (struct dirent *each; (each = readdir(all));)
		most = atoi(each->d_name) > most ? atoi(each->d_name) : most;
	closedir(all);
	return most;
}

static const char *opened(const char *path)
{
	int file = open(path, O_RDONLY);
	const char *name = name_of(file);
	if (file >= 0)
		close(file);
	return name;
}

static void hidden(const char *path)
{
	int number = highest();
	struct msghdr message = {0};
	printf("high %d\n", number > 1000);
	printf("close %s\n", name_of(close(number)));
	printf("dup2 %s\n", name_of(dup2(0, number)));
	printf("dup3 %s\n", name_of(dup3(0, number, O_CLOEXEC)));
	printf("dup %s\n", name_of(dup(number)));
	printf("fcntl %s\n", name_of(fcntl(number, F_SETFD, FD_CLOEXEC)));
	printf("ioctl %s\n", name_of(ioctl(number, FIOCLEX)));
	printf("shutdown %s\n", name_of(shutdown(number, SHUT_RDWR)));
	printf("recvmsg %s\n", name_of(recvmsg(number, &message, MSG_DONTWAIT)));
	printf("recv %s\n", name_of(recv(number, PAGE, 1, MSG_DONTWAIT)));
	printf("high-word %s\n", name_of(syscall(SYS_close, 0x500000000UL | (unsigned)number)));
	printf("open %s\n", opened(path));
}

static void ranges(const char *path)
{
	int number = highest(), above = number + 100, below = dup(0);
	printf("dup2 %s\n", name_of(dup2(0, above)));
	printf("cloexec %s\n", name_of(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC)));
	printf("set %d %d\n", fcntl(below, F_GETFD), fcntl(above, F_GETFD));
	printf("flags %s\n", name_of(syscall(SYS_close_range, 3, ~0U, 1 << 20)));
	printf("only %s\n", name_of(close_range(number, number, 0)));
	printf("all %s\n", name_of(close_range(3, ~0U, 0)));
	printf("below %s\n", name_of(fcntl(below, F_GETFD)));
	printf("above %s\n", name_of(fcntl(above, F_GETFD)));
	printf("open %s\n", opened(path));
}

static void table(const char *path)
{
	struct rlimit limit = {32, 32};
	setrlimit(RLIMIT_NOFILE, &limit);
	int count = 0, file, most = 0;
	while ((file = open(path, O_RDONLY)) >= 0) {
		count++;
		most = file;
	}
	printf("%s after %d, the last was %d\n", name_of(file), count, most);
	close(most);
	printf("again %d\n", open(path, O_RDONLY));
}

static int untraced_child(void *path)
{
	printf("child %s\n", opened(path));
	fflush(stdout);
	_exit(0);
}

static void untraced(const char *path)
{
	char *stack = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fflush(stdout);
	int child = clone(untraced_child, stack + (1 << 16), CLONE_UNTRACED | SIGCHLD, (void *)path);
	waitpid(child, NULL, 0);
	printf("parent %s\n", opened(path));
}

static void forks(const char *path)
{
	int failed = 0, status;
	for (int i = 0; i < 200; i++)
		if (fork() == 0) {
			if (fork() == 0)
				_exit(strcmp(opened(path), "ok") != 0);
			int inner = 1;
			wait(&inner);
			_exit(strcmp(opened(path), "ok") != 0 || inner != 0);
		}
	while (wait(&status) > 0)
		failed += status != 0;
	printf("failed %d\n", failed);
}

static volatile int over;

static void *spoil(void *unused)
{
	char junk[128];
	int number = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
	memset(junk, 0x41, sizeof junk);
	for (unsigned i = 0; !over; i++)
		if (i % 3)
			syscall(SYS_process_vm_writev, 0);
		else
			memcpy(PAGE + i % 100, junk, 1 + i % 20);
	close(number);
	return unused;
}

static void spoilt(const char *path)
{
	pthread_t thread;
	int wrong = 0;
	opened(path); /* maps the page */
	pthread_create(&thread, NULL, spoil, NULL);
	for (int i = 0; i < 500; i++)
		wrong += open(path, O_RDONLY) < 0 && errno == ENOENT;
	over = 1;
	pthread_join(thread, NULL);
	printf("denied %s\n", opened("/etc/shadow"));
	munmap(PAGE, 4096);
	printf("unmapped %s\n", opened(path));
	if (fork() == 0) {
		execl("/proc/self/exe", "traced", "plain", path, NULL);
		_exit(9);
	}
	wait(NULL);
}

static int processors(void)
{
	cpu_set_t mine;
	return sched_getaffinity(0, sizeof mine, &mine) ? -1 : CPU_COUNT(&mine);
}

/* Looks at what it may run on right after each open, where a tracer that is late would still have it narrowed. */
static void widths(const char *path)
{
	cpu_set_t all, one;
	int narrow = 0, before = processors();
	sched_getaffinity(0, sizeof all, &all);
	for (int i = 0; i < 3000; i++) {
		close(open(path, O_RDONLY | O_CLOEXEC));
		if (i % 100 == 0) {
			int status, child = fork();
			if (child == 0)
				_exit(processors() != before);
			waitpid(child, &status, 0);
			narrow += status != 0;
		} else if (i % 2)
			narrow += processors() != before;
	}
	printf("narrow %d\n", narrow);
	CPU_ZERO(&one);
	for (int i = CPU_SETSIZE - 1; !CPU_COUNT(&one); i--)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	int lost = sched_setaffinity(0, sizeof one, &one);
	for (int i = 0; i < 100; i++) {
		close(open(path, O_RDONLY | O_CLOEXEC));
		lost += processors() != 1 || sched_getcpu() < 0 || !CPU_ISSET(sched_getcpu(), &one);
	}
	printf("lost %d\n", lost);
	close(open(path, O_RDONLY | O_CLOEXEC));
	sched_setaffinity(0, sizeof all, &all);
	close(open(path, O_RDONLY | O_CLOEXEC));
	printf("back %d\n", processors() == before);
}

static int exits(void *unused)
{
	(void)unused;
	_exit(0);
}

static void namespaced(const char *path)
{
	(void)path;
	char *stack = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	printf("namespace %s\n", name_of(clone(exits, stack + (1 << 16), CLONE_NEWUTS | SIGCHLD, NULL)));
}

/* A filter of its own that has calls seen by the tracer with a mark of its choice: of equal verdicts the newest counts. */
static void marked(const char *path)
{
	struct sock_filter marks[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof marks / sizeof *marks, marks};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	printf("filter %s\n", name_of(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)));
	namespaced(path);
	printf("open %s\n", opened(path));
	printf("shadow %s\n", opened("/etc/shadow"));
}

int main(int count, char **words)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count < 3)
		return 2;
	struct {
		const char *name;
		void (*attempt)(const char *);
	} attempts[] = {{"hidden", hidden}, {"ranges", ranges}, {"table", table}, {"untraced", untraced},
			{"forks", forks}, {"spoilt", spoilt}, {"widths", widths},
			{"namespaced", namespaced}, {"marked", marked}};
	for (unsigned i = 0; i < sizeof attempts / sizeof *attempts; i++)
		if (!strcmp(words[1], attempts[i].name))
			attempts[i].attempt(words[2]);
	if (!strcmp(words[1], "plain"))
		printf("plain %s\n", opened(words[2]));
	return 0;
}
