/* witness_load OPENS FORKS EXECS: do that much, for the witness to count. Forked children daemonise; execs are of
 * this program with three zeros. `witness_load storm N` waits for a byte, forks N children that end at once, and
 * says so, without a call that the supervisor decides; `witness_load thread` executes this program from a thread that is not the leader. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *self;

static void open_many(int count)
{
	for (int i = 0; i < count; i++) {
		int fd = open("data", O_RDONLY);
		if (fd < 0) {
			perror("open");
			exit(1);
		}
		close(fd);
	}
}

static void execute(void)
{
	execl(self, self, "0", "0", "0", (char *)0);
	perror("exec");
	_exit(1);
}

static void *execute_in_thread(void *unused)
{
	execute();
	return unused;
}

/* The grandchild leaves the session and is adopted; it opens one file where nobody waits for it. */
static void daemonise(int done)
{
	if (fork() == 0) {
		setsid();
		open_many(1);
		if (write(done, "!", 1) != 1)
			_exit(1);
		_exit(0);
	}
	_exit(0);
}

static void wait_for(pid_t child)
{
	int status;
	if (waitpid(child, &status, 0) < 0 || status) {
		fprintf(stderr, "a child failed\n");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	self = argv[0];
	if (argc == 3 && !strcmp(argv[1], "storm")) {
		char go;
		if (write(1, "ready\n", 6) != 6 || read(0, &go, 1) != 1)
			return 1;
		for (int i = atoi(argv[2]); i > 0; i--) {
			pid_t child = fork();
			if (child == 0)
				_exit(0);
			wait_for(child);
		}
		return write(1, "done\n", 5) != 5;
	}
	if (argc == 2 && !strcmp(argv[1], "thread")) {
		pthread_t thread;
		pthread_create(&thread, 0, execute_in_thread, 0);
		pthread_join(thread, 0);
		return 1;
	}
	if (argc != 4)
		return 2;
	open_many(atoi(argv[1]));
	int pipes[2];
	char byte;
	if (pipe(pipes))
		return 1;
	for (int i = atoi(argv[2]) / 2; i > 0; i--) { /* two processes a round */
		pid_t child = fork();
		if (child == 0)
			daemonise(pipes[1]);
		wait_for(child);
		if (read(pipes[0], &byte, 1) != 1)
			return 1;
	}
	for (int i = atoi(argv[3]); i > 0; i--) {
		pid_t child = vfork();
		if (child == 0)
			execute();
		wait_for(child);
	}
	return 0;
}
