/*
 * Tries to start a program in the way argv[1] names; prints the error's name when it comes back.
 *
 *   path FILE [ARG...]     execve            memfd FILE             copy FILE to anonymous memory, fexecve it
 *   memfd-exec FILE        the same, created with MFD_EXEC          proc FILE   memfd by its name in /proc
 *   deleted FILE           a copy in the workspace, unlinked while it is open
 *   crowd COUNT FILE       COUNT children at once; prints how many ended with 42
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10
#endif

extern char **environ;

static void fail(const char *step)
{
	printf("%s %s\n", step, strerrorname_np(errno));
	fflush(stdout);
	_exit(9);
}

static void fill(int to, const char *path)
{
	static char buffer[1 << 20];
	int from = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = from < 0 ? -1 : read(from, buffer, sizeof buffer);

	if (size <= 0 || write(to, buffer, size) != size)
		fail("copy");
	close(from);
}

static int anonymous(const char *path, unsigned flags)
{
	int made = syscall(SYS_memfd_create, "program", flags);

	if (made < 0)
		fail("memfd_create");
	fill(made, path);
	return made;
}

static void crowd(int count, char **arguments)
{
	int ends[2], good = 0, status;
	char byte;

	if (pipe(ends))
		fail("pipe");
	for (int i = 0; i < count; i++) {
		pid_t child = fork();
		if (child < 0)
			fail("fork");
		if (!child) {
			close(ends[1]);
			(void)!read(ends[0], &byte, 1);
			execve(arguments[0], arguments, environ);
			_exit(9);
		}
	}
	close(ends[0]);
	close(ends[1]);
	while (wait(&status) > 0)
		good += WIFEXITED(status) && WEXITSTATUS(status) == 42;
	fprintf(stderr, "good %d\n", good);
}

int main(int argc, char **argv)
{
	char name[64];
	int made;

	alarm(100);
	if (!strcmp(argv[1], "crowd")) {
		crowd(atoi(argv[2]), argv + 3);
		return 0;
	}
	if (!strcmp(argv[1], "path")) {
		execve(argv[2], argv + 2, environ);
	} else if (!strcmp(argv[1], "deleted")) {
		made = open("copy", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
		fill(made, argv[2]);
		close(made);
		made = open("copy", O_RDONLY | O_CLOEXEC);
		unlink("copy");
		syscall(SYS_execveat, made, "", argv + 2, environ, AT_EMPTY_PATH);
	} else {
		made = anonymous(argv[2], !strcmp(argv[1], "memfd") ? MFD_CLOEXEC : MFD_CLOEXEC | MFD_EXEC);
		if (!strcmp(argv[1], "proc")) {
			snprintf(name, sizeof name, "/proc/self/fd/%d", made);
			execve(name, argv + 2, environ);
		} else {
			syscall(SYS_execveat, made, "", argv + 2, environ, AT_EMPTY_PATH);
		}
	}
	fail("exec");
}
