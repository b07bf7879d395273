/*
 * Tries what each argument names on a process and prints one line for each: `ok` or the error's name.
 *
 *   HOW,TARGET[,SIGNAL]   TARGET is a process id, or self child thread orphan zombie gone zero; SIGNAL a number
 *
 * Signals: kill tkill tgkill queue tgqueue pidfd pidfd-info pidfd-file setown. Looking inside: attach seize traceme
 * read write getfd kcmp madvise. Settings: affinity scheduler param attr limit limit-read priority group-priority
 * ioprio. Places: chdir,PATH and fchdir,PATH.
 *   group,SIGNAL          a child in our process group and this process each say whether kill(0) reached them
 *   group-id,SIGNAL       the same by kill(-group)
 *   everybody,SIGNAL      the same by kill(-1), which spares the caller
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOWEST 19 /* no power is needed to ask for it, whatever this process started with */

static char *words[4];
static char secret[16] = "secret of self";
static volatile pid_t thread_id;
static volatile sig_atomic_t received;

static void stop(const char *what)
{
	printf("cannot set up: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(99);
}

static void *sleep_on(void *unused)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	thread_id = syscall(SYS_gettid);
	pause();
	return unused;
}

static pid_t sleeping_child(void)
{
	pid_t child = fork();

	if (child < 0)
		stop("fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		for (;;)
			pause();
	}
	return child;
}

/* A grandchild whose parent has ended, so that somebody else has adopted it. */
static pid_t orphan(void)
{
	int ends[2];
	pid_t found, child;

	if (pipe(ends) || (child = fork()) < 0)
		stop("fork");
	if (!child) {
		pid_t grandchild = fork();
		if (!grandchild) {
			alarm(60);
			for (;;)
				pause();
		}
		(void)!write(ends[1], &grandchild, sizeof grandchild);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	if (read(ends[0], &found, sizeof found) != sizeof found)
		stop("read");
	return found;
}

static pid_t target_of(const char *word)
{
	pid_t child;
	pthread_t thread;
	siginfo_t unused;

	if (!strcmp(word, "self"))
		return getpid();
	if (!strcmp(word, "zero"))
		return 0;
	if (!strcmp(word, "child"))
		return sleeping_child();
	if (!strcmp(word, "orphan"))
		return orphan();
	if (!strcmp(word, "thread")) {
		pthread_create(&thread, NULL, sleep_on, NULL);
		while (!thread_id)
			sched_yield();
		return thread_id;
	}
	if (!strcmp(word, "zombie") || !strcmp(word, "gone")) {
		child = fork();
		if (!child)
			_exit(0);
		waitid(P_PID, child, &unused, WEXITED | (word[0] == 'z' ? WNOWAIT : 0));
		return child;
	}
	return atoi(word);
}

static void on_signal(int number)
{
	(void)number;
	received++;
}

static long owned(pid_t target, int number)
{
	int ends[2];

	/* Readable data on a socket sends the owner the signal of our choice. */
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		stop("socketpair");
	if (fcntl(ends[0], F_SETOWN, target) < 0 || fcntl(ends[0], F_SETSIG, number) < 0)
		return -1;
	if (fcntl(ends[0], F_SETFL, O_ASYNC) < 0)
		return -1;
	return write(ends[1], "x", 1);
}

static long signal_it(const char *how, pid_t target, int number)
{
	siginfo_t info = { .si_signo = number, .si_code = SI_QUEUE };
	pid_t leader = !strcmp(words[1], "thread") ? getpid() : target;
	char name[64];

	if (!strcmp(how, "kill"))
		return kill(target, number);
	if (!strcmp(how, "tkill"))
		return syscall(SYS_tkill, target, number);
	if (!strcmp(how, "tgkill"))
		return syscall(SYS_tgkill, leader, target, number);
	if (!strcmp(how, "queue"))
		return syscall(SYS_rt_sigqueueinfo, target, number, &info);
	if (!strcmp(how, "tgqueue"))
		return syscall(SYS_rt_tgsigqueueinfo, leader, target, number, &info);
	if (!strcmp(how, "pidfd"))
		return syscall(SYS_pidfd_send_signal, syscall(SYS_pidfd_open, target, 0), number, NULL, 0);
	if (!strcmp(how, "pidfd-info"))
		return syscall(SYS_pidfd_send_signal, syscall(SYS_pidfd_open, target, 0), number, &info, 0);
	if (!strcmp(how, "pidfd-file")) {
		snprintf(name, sizeof name, "/dev/null");
		return syscall(SYS_pidfd_send_signal, open(name, O_RDONLY), number, NULL, 0);
	}
	if (!strcmp(how, "setown"))
		return owned(target, number);
	return -2;
}

static long look_at(const char *how, pid_t target)
{
	char buffer[16];
	struct iovec here = { buffer, sizeof buffer }, there = { secret, sizeof secret };

	if (!strcmp(how, "attach"))
		return ptrace(PTRACE_ATTACH, target, NULL, NULL);
	if (!strcmp(how, "seize"))
		return ptrace(PTRACE_SEIZE, target, NULL, NULL);
	if (!strcmp(how, "traceme"))
		return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	if (!strcmp(how, "read"))
		return syscall(SYS_process_vm_readv, target, &here, 1, &there, 1, 0);
	if (!strcmp(how, "write"))
		return syscall(SYS_process_vm_writev, target, &here, 1, &there, 1, 0);
	if (!strcmp(how, "getfd"))
		return syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, target, 0), 1, 0);
	if (!strcmp(how, "kcmp"))
		return syscall(SYS_kcmp, getpid(), target, 1, 0, 0);
	return -2;
}

struct attributes { unsigned size, policy; unsigned long long flags; int nice; unsigned priority; unsigned long long times[3]; };

static long set(const char *how, pid_t target)
{
	struct rlimit limit = { 64, 64 };
	struct sched_param none = { 0 };
	struct attributes attributes = { .size = sizeof attributes, .nice = LOWEST };
	cpu_set_t processors;

	sched_getaffinity(0, sizeof processors, &processors);
	if (!strcmp(how, "affinity"))
		return syscall(SYS_sched_setaffinity, target, sizeof processors, &processors);
	if (!strcmp(how, "scheduler"))
		return syscall(SYS_sched_setscheduler, target, SCHED_OTHER, &none);
	if (!strcmp(how, "param"))
		return syscall(SYS_sched_setparam, target, &none);
	if (!strcmp(how, "attr"))
		return syscall(SYS_sched_setattr, target, &attributes, 0);
	if (!strcmp(how, "limit"))
		return syscall(SYS_prlimit64, target, RLIMIT_NOFILE, &limit, NULL);
	if (!strcmp(how, "limit-read"))
		return syscall(SYS_prlimit64, target, RLIMIT_NOFILE, NULL, &limit);
	if (!strcmp(how, "priority"))
		return syscall(SYS_setpriority, PRIO_PROCESS, target, LOWEST);
	if (!strcmp(how, "group-priority"))
		return syscall(SYS_setpriority, PRIO_PGRP, target, LOWEST);
	if (!strcmp(how, "ioprio"))
		return syscall(SYS_ioprio_set, 1, target, 2 << 13 | 4);
	return -2;
}

static void answer(long result)
{
	printf("%s\n", result < 0 ? strerrorname_np(errno) : "ok");
	fflush(stdout);
}

static void group_signal(const char *how, int number)
{
	int ends[2], ready[2], status;
	char byte = '?';
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t mask, old;
	pid_t child, target = !strcmp(how, "group") ? 0 : !strcmp(how, "group-id") ? -getpgrp() : -1;

	sigaction(number, &action, NULL);
	sigemptyset(&mask);
	sigaddset(&mask, number);
	sigprocmask(SIG_BLOCK, &mask, &old);
	if (pipe(ends) || pipe(ready))
		stop("pipe");
	child = fork();
	if (!child) {
		alarm(20);
		(void)!write(ready[1], "r", 1);
		while (!received)
			sigsuspend(&old);
		(void)!write(ends[1], "s", 1);
		_exit(0);
	}
	(void)!read(ready[0], &byte, 1);
	answer(kill(target, number));
	close(ends[1]);
	(void)!read(ends[0], &byte, 1);
	sigprocmask(SIG_SETMASK, &old, NULL);
	waitpid(child, &status, 0);
	printf("child %c, self %d\n", byte, (int)received);
	received = 0;
	fflush(stdout);
}

static void perform(char *text)
{
	int count = 0;
	long result;
	pid_t target;

	for (char *word = strtok(text, ","); word && count < 4; word = strtok(NULL, ","))
		words[count++] = word;
	if (!strcmp(words[0], "chdir")) {
		answer(chdir(words[1]));
	} else if (!strcmp(words[0], "fchdir")) {
		answer(fchdir(open(words[1], O_RDONLY | O_DIRECTORY)));
	} else if (!strncmp(words[0], "group", 5) && count == 2 && strcmp(words[0], "group-priority")) {
		group_signal(words[0], atoi(words[1]));
	} else if (!strcmp(words[0], "everybody")) {
		group_signal(words[0], atoi(words[1]));
	} else {
		target = target_of(words[1]);
		errno = 0;
		result = count > 2 ? signal_it(words[0], target, atoi(words[2])) : look_at(words[0], target);
		if (result == -2)
			result = set(words[0], target);
		answer(result);
		thread_id = 0;
		if (!strcmp(words[1], "child") || !strcmp(words[1], "orphan"))
			kill(target, SIGKILL);
		if (!strcmp(words[1], "child"))
			waitpid(target, NULL, 0); /* nothing is to outlive the run */
	}
}

int main(int argc, char **argv)
{
	int status;

	signal(SIGURG, SIG_IGN);
	signal(SIGRTMIN + 9, SIG_IGN);
	for (int i = 1; i < argc; i++) {
		pid_t child = fork();
		if (!child) {
			alarm(30);
			perform(argv[i]);
			_exit(0);
		}
		waitpid(child, &status, 0);
		if (status) {
			printf("status %d\n", status);
			fflush(stdout);
		}
	}
	return 0;
}
