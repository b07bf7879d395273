/*
 * Every way to start a program and every way it fails, for comparison of a native run with a supervised one.
 * argv[1] is exec_report; the working directory is empty and ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *report;
static char *plain[] = { "plain", NULL };
static char *nothing[] = { NULL };
extern char **environ;

static void stop(const char *what)
{
	printf("cannot set up: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(99);
}

static void write_file(const char *path, const void *text, size_t size, int mode)
{
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (file < 0 || write(file, text, size) != (ssize_t)size || fchmod(file, mode) || close(file))
		stop(path);
}

static void script(const char *path, const char *text)
{
	write_file(path, text, strlen(text), 0755);
}

static void copy(const char *from, const char *to, int mode)
{
	static char buffer[1 << 20];
	int file = open(from, O_RDONLY | O_CLOEXEC);
	ssize_t size = read(file, buffer, sizeof buffer);

	if (size <= 0)
		stop(from);
	close(file);
	write_file(to, buffer, size, mode);
}

static void outcome(const char *step, int status)
{
	if (WIFSIGNALED(status))
		printf("%s: signal %d\n", step, WTERMSIG(status));
	else
		printf("%s: exit %d\n", step, WEXITSTATUS(status));
	fflush(stdout);
}

static void failed(void)
{
	printf("  %s\n", strerrorname_np(errno));
	fflush(stdout);
	_exit(9);
}

/* Run code in a child; when it comes back from the exec, say why. */
#define IN_CHILD(step, code) do { \
	int status_; \
	pid_t child_; \
	fflush(stdout); \
	child_ = fork(); \
	if (child_ < 0) \
		stop("fork"); \
	if (!child_) { \
		alarm(20); \
		code; \
		failed(); \
	} \
	waitpid(child_, &status_, 0); \
	outcome(step, status_); \
} while (0)

static void try(const char *step, const char *path)
{
	IN_CHILD(step, execve(path, plain, nothing));
}

static void arguments(void)
{
	char *many[] = { "name", "a", "", "b c", "\xff\xfe", "-x=\n", NULL };
	char *environment[] = { "K=V", "EMPTY=", "no equals sign", "K=again", NULL };
	char *large = malloc(200 << 10), **lots = calloc(4000, sizeof *lots);
	void *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *bad_inside[] = { "x", bad, NULL };

	memset(large, 'L', (200 << 10) - 1);
	IN_CHILD("arguments", execve(report, many, environment));
	IN_CHILD("no arguments", execve(report, nothing, nothing));
	IN_CHILD("null vectors", syscall(SYS_execve, report, NULL, NULL));
	IN_CHILD("bad vector", syscall(SYS_execve, report, bad, NULL));
	IN_CHILD("bad argument", execve(report, bad_inside, nothing));
	IN_CHILD("bad environment", syscall(SYS_execve, report, plain, bad));
	IN_CHILD("bad path", syscall(SYS_execve, bad, plain, nothing));
	lots[0] = "x";
	lots[1] = large;
	large[100 << 10] = 0;
	IN_CHILD("long argument", execve(report, lots, nothing));
	large[100 << 10] = 'L';
	IN_CHILD("too long argument", execve(report, lots, nothing));
	large[4000] = 0;
	for (int i = 1; i < 300; i++)
		lots[i] = large;
	IN_CHILD("many arguments", execve(report, lots, nothing));
	for (int i = 1; i < 3999; i++)
		lots[i] = large;
	IN_CHILD("too many arguments", execve(report, lots, nothing));
}

static void deep(void)
{
	char text[4200], name[16];

	snprintf(text, sizeof text, "#!%s first  second \n", report);
	script("s1", text);
	try("script", "./s1");
	try("script without slash", "s1");
	for (int i = 2; i <= 6; i++) {
		snprintf(text, sizeof text, "#!./s%d arg%d\n", i - 1, i);
		snprintf(name, sizeof name, "s%d", i);
		script(name, text);
		snprintf(text, sizeof text, "%d deep", i);
		try(text, name);
	}
	mkdir("sub", 0755);
	script("sub/relative", "#!s1\n");
	try("relative interpreter", "sub/relative");
	IN_CHILD("relative interpreter, elsewhere", (void)!chdir("sub"); execve("relative", plain, nothing));
}

/* A script whose first bytes are `text`, then `count` times `fill`, then `end`. */
static void header(const char *step, const char *text, size_t size, int fill, int count, const char *end)
{
	char whole[2048];

	memcpy(whole, text, size);
	memset(whole + size, fill, count);
	strcpy(whole + size + count, end);
	write_file("header", whole, size + count + strlen(end), 0755);
	try(step, "./header");
}

#define HEADER(step, text, fill, count, end) header(step, text, sizeof text - 1, fill, count, end)

static void headers(void)
{
	char text[300];
	size_t length;

	symlink(report, "r");
	HEADER("blank before", "#! \t r", ' ', 1, "x\n");
	HEADER("tab after", "#!r\targ one\t\t \n", ' ', 0, "");
	HEADER("no newline", "#!r", ' ', 0, "");
	HEADER("no newline, argument", "#!r arg", ' ', 0, "");
	HEADER("only the mark", "#!", ' ', 0, "");
	HEADER("empty line", "#!\n", ' ', 0, "");
	HEADER("blank line", "#! \t \n", ' ', 0, "");
	HEADER("blanks to the end", "#!", ' ', 10, "");
	HEADER("nul", "#!\0r\n", ' ', 0, "");
	HEADER("blank and nul", "#! \0r\n", ' ', 0, "");
	HEADER("nul after the name", "#!r\0x\n", ' ', 0, "");
	HEADER("nul in the argument", "#!r a\0b\n", ' ', 0, "");
	HEADER("carriage return", "#!r\r\n", ' ', 0, "");
	for (int count = 250; count < 256; count++) {
		snprintf(text, sizeof text, "%d blanks after the name", count);
		HEADER(text, "#!r", ' ', count, "\n");
		snprintf(text, sizeof text, "%d blanks before the name", count);
		HEADER(text, "#!", ' ', count, "r\n");
		snprintf(text, sizeof text, "%d letters of argument", count);
		HEADER(text, "#!r ", 'a', count, "\n");
		snprintf(text, sizeof text, "%d letters of name", count);
		HEADER(text, "#!", 'n', count, "\n");
	}
	HEADER("long blank line", "#!", ' ', 300, "r\n");
	HEADER("long name, blank late", "#!", 'n', 300, " \n");
	HEADER("slashes", "#!", '/', 250, "r\n");
	length = snprintf(text, sizeof text, "#!%s", report);
	header("name and blanks", text, length, ' ', 290 - length, "end\n");
	HEADER("a missing interpreter", "#!/missing/interpreter\n", ' ', 0, "");
	HEADER("missing here", "#!missing\n", ' ', 0, "");
	HEADER("a directory", "#!/usr\n", ' ', 0, "");
	write_file("locked", "x", 1, 0644);
	HEADER("no permission", "#!locked\n", ' ', 0, "");
	HEADER("itself", "#!./header\n", ' ', 0, "");
	script("bad", "#! \n");
	HEADER("a bad script", "#!./bad\n", ' ', 0, "");
	script("garbage", "plain text\n");
	HEADER("garbage", "#!garbage\n", ' ', 0, "");
	HEADER("below a file", "#!garbage/x\n", ' ', 0, "");
}

static void errors(void)
{
	static char path[6000];
	int writer;

	try("missing", "nothing");
	try("missing directory", "nowhere/nothing");
	try("empty path", "");
	script("text", "no mark\n");
	write_file("empty", "", 0, 0755);
	try("text", "text");
	try("empty file", "empty");
	write_file("truncated", "\177ELF\2\1\1", 7, 0755);
	try("truncated", "truncated");
	try("below a file", "text/x");
	try("directory", "/usr");
	try("slash", "text/");
	copy(report, "copy", 0644);
	try("no permission", "copy");
	chmod("copy", 0755);
	try("permission", "copy");
	chmod("copy", 0611);
	try("others only", "copy");
	chmod("copy", 0755);
	mkdir("shut", 0755);
	copy(report, "shut/copy", 0755);
	chmod("shut", 0600);
	try("shut directory", "shut/copy");
	chmod("shut", 0755);
	writer = open("copy", O_WRONLY | O_CLOEXEC);
	try("busy", "copy");
	close(writer);
	try("busy no more", "copy");
	symlink("loop", "loop");
	try("loop", "loop");
	symlink("copy", "link");
	try("link", "link");
	symlink("nowhere", "dangling");
	try("dangling", "dangling");
	memset(path, 'p', 5999);
	try("long path", path);
	path[300] = 0;
	try("long name", path);
	try("device", "/dev/null");
	mkfifo("fifo", 0755);
	try("fifo", "fifo");
}

static void descriptors(void)
{
	int file = open(report, O_RDONLY | O_CLOEXEC), path = open(report, O_PATH | O_CLOEXEC);
	int here = open(".", O_RDONLY | O_DIRECTORY), quiet = open(".", O_PATH | O_CLOEXEC);
	int plain_script, closing_script;
	char text[64];

	script("via", "#!r via\n");
	plain_script = open("via", O_RDONLY);
	closing_script = open("via", O_RDONLY | O_CLOEXEC);
	IN_CHILD("fexecve", fexecve(file, plain, nothing));
	IN_CHILD("fexecve of a path", fexecve(path, plain, nothing));
	IN_CHILD("fexecve of a script", fexecve(plain_script, plain, nothing));
	IN_CHILD("fexecve of a closing script", fexecve(closing_script, plain, nothing));
	IN_CHILD("empty path without flag", syscall(SYS_execveat, file, "", plain, nothing, 0));
	IN_CHILD("directory by descriptor", syscall(SYS_execveat, here, "", plain, nothing, AT_EMPTY_PATH));
	IN_CHILD("relative", syscall(SYS_execveat, here, "copy", plain, nothing, 0));
	IN_CHILD("relative, closing", syscall(SYS_execveat, quiet, "./copy", plain, nothing, 0));
	IN_CHILD("relative script", syscall(SYS_execveat, here, "via", plain, nothing, 0));
	IN_CHILD("relative script, closing", syscall(SYS_execveat, quiet, "via", plain, nothing, 0));
	IN_CHILD("absolute", syscall(SYS_execveat, 1000, report, plain, nothing, 0));
	IN_CHILD("no directory", syscall(SYS_execveat, 1000, "copy", plain, nothing, 0));
	IN_CHILD("not a directory", syscall(SYS_execveat, file, "copy", plain, nothing, 0));
	IN_CHILD("no link", syscall(SYS_execveat, here, "link", plain, nothing, AT_SYMLINK_NOFOLLOW));
	IN_CHILD("no link, file", syscall(SYS_execveat, here, "copy", plain, nothing, AT_SYMLINK_NOFOLLOW));
	IN_CHILD("unknown flag", syscall(SYS_execveat, here, "copy", plain, nothing, 0x4000));
	IN_CHILD("working directory", syscall(SYS_execveat, AT_FDCWD, "copy", plain, nothing, 0));
	snprintf(text, sizeof text, "/proc/self/fd/%d", file);
	try("by its name in proc", text);
	snprintf(text, sizeof text, "/dev/fd/%d", file);
	try("by its name in dev", text);
	close(here);
	close(plain_script);
}

static void *exec_here(void *unused)
{
	char pid[32];
	char *environment[] = { pid, NULL };

	snprintf(pid, sizeof pid, "EXPECTED_PID=%d", getpid());
	execve(report, plain, environment);
	failed();
	return unused;
}

static void *wait_for_ever(void *unused)
{
	pause();
	return unused;
}

static void threads(void)
{
	pthread_t one, two;

	IN_CHILD("another thread", {
		pthread_create(&one, NULL, wait_for_ever, NULL);
		pthread_create(&two, NULL, exec_here, NULL);
		pthread_join(two, NULL);
	});
	IN_CHILD("with other threads", {
		pthread_create(&one, NULL, wait_for_ever, NULL);
		exec_here(NULL);
	});
	IN_CHILD("failure in a thread", {
		pthread_create(&one, NULL, wait_for_ever, NULL);
		execve("nothing", plain, nothing);
	});
}

static void children(void)
{
	int status;
	pid_t child = vfork();

	if (!child) {
		execve(report, plain, nothing);
		_exit(9);
	}
	waitpid(child, &status, 0);
	outcome("vfork", status);
	child = vfork();
	if (!child) {
		execve("nothing", plain, nothing);
		_exit(errno == ENOENT ? 8 : 9);
	}
	waitpid(child, &status, 0);
	outcome("vfork failure", status);
	if (posix_spawn(&child, report, NULL, NULL, plain, nothing))
		stop("posix_spawn");
	waitpid(child, &status, 0);
	outcome("posix_spawn", status);
	status = posix_spawn(&child, "nothing", NULL, NULL, plain, nothing);
	printf("posix_spawn of nothing %s\n", strerrorname_np(status));
	fflush(stdout);
	setenv("PATH", "nowhere:sub:.", 1);
	if (posix_spawnp(&child, "copy", NULL, NULL, plain, nothing))
		stop("posix_spawnp");
	waitpid(child, &status, 0);
	outcome("posix_spawnp", status);
	IN_CHILD("after chdir", (void)!chdir("sub"); execve("../copy", plain, nothing));
	IN_CHILD("itself", execve("/proc/self/exe", (char *[]){ "itself", "--again", (char *)report, NULL }, nothing));
}

static void on_signal(int number)
{
	(void)number;
}

static void signals(void)
{
	sigset_t mask;
	int status, ends[2];
	pid_t child;
	char byte;

	IN_CHILD("kept state", {
		sigemptyset(&mask);
		sigaddset(&mask, SIGTERM);
		sigprocmask(SIG_BLOCK, &mask, NULL);
		raise(SIGTERM);
		signal(SIGUSR1, SIG_IGN);
		signal(SIGUSR2, on_signal);
		dup2(1, 100);
		dup3(1, 101, O_CLOEXEC);
		execve(report, plain, nothing);
	});
	/* Ignored signals rain on a child that keeps failing to exec and in the end does. */
	if (pipe(ends))
		stop("pipe");
	fflush(stdout);
	child = fork();
	if (!child) {
		signal(SIGUSR1, on_signal);
		close(ends[0]);
		(void)!write(ends[1], "r", 1);
		for (int i = 0; i < 50; i++)
			execve("nothing", plain, nothing);
		signal(SIGUSR1, SIG_IGN);
		execve(report, plain, nothing);
		failed();
	}
	close(ends[1]);
	(void)!read(ends[0], &byte, 1);
	while (waitpid(child, &status, WNOHANG) == 0)
		kill(child, SIGUSR1);
	outcome("rain", status);
}

int main(int argc, char **argv)
{
	if (argc > 2) {
		printf("  again %s\n", argv[0]);
		return 43;
	}
	report = argv[1];
	arguments();
	deep();
	headers();
	errors();
	descriptors();
	threads();
	children();
	signals();
	puts("done");
	return 0;
}
