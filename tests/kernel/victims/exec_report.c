/* Prints what an exec gave this program: arguments, environment, name, signals, descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;

/* One argument: its beginning, in ASCII, and its length. */
static void show(const char *text)
{
	putchar('[');
	for (int i = 0; i < 60 && text[i]; i++)
		printf(text[i] > 31 && text[i] < 127 ? "%c" : "\\x%02x", (unsigned char)text[i]);
	printf("]%zu ", strlen(text));
}

int main(int argc, char **argv)
{
	sigset_t blocked, pending;
	struct sigaction first, second;
	const char *expected = getenv("EXPECTED_PID");

	printf("  argc %d ", argc);
	for (int i = 0; i < argc && i < 16; i++)
		show(argv[i]);
	printf("\n  env ");
	for (char **each = environ; *each; each++)
		if (strncmp(*each, "EXPECTED_PID", 12))
			show(*each);
	printf("\n  name %.100s\n", (const char *)getauxval(AT_EXECFN));
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	sigpending(&pending);
	sigaction(SIGUSR1, NULL, &first);
	sigaction(SIGUSR2, NULL, &second);
	printf("  blocked %d pending %d ignored %d default %d secure %lu\n", sigismember(&blocked, SIGTERM),
	       sigismember(&pending, SIGTERM), first.sa_handler == SIG_IGN, second.sa_handler == SIG_DFL,
	       getauxval(AT_SECURE));
	printf("  kept %d closed %d\n", fcntl(100, F_GETFD) >= 0, fcntl(101, F_GETFD) < 0);
	if (expected)
		printf("  same process %d\n", atoi(expected) == getpid());
	return fflush(stdout) ? 1 : 42;
}
