/*
 * Makes the system calls a script names, one a line, with raw arguments, and prints each result as a line of JSON:
 * [return value, errno, [bytes written to each out buffer, as hex]].
 *
 *   call NR ARG...     make it here            start NR ARG...    make it on a thread of its own: ["started"]
 *   running N          has N not returned?     join N             wait for the thread of line N and give its result
 *   interrupt N        SIGUSR1 to the thread of line N until its call has returned, then join
 *   spawn NR ARG...    make it in a child, an exec: its status (256 and more: a signal) and what it prints, or the errno
 *   fork               a child that waits to be killed; the value is its process id
 *   self               the value is this process's id
 *   begin PATH         go on in a forked copy, in the directory PATH (hex); lines count from 0 again
 *   end                leave that copy, and everything it opened and changed about itself
 *
 *   iNUMBER  integer   xHEX  bytes and a NUL   rLINE[+NUMBER]  return value of an earlier line, and a number added
 *   oSIZE[:HEX]  out buffer, which begins with these bytes; the rest is zero
 *   u  unmapped address   m  read-only page   eHEX  bytes at the end of a page that nothing follows
 *   pHEX  bytes and a NUL on a page that may not be read
 *   wCOUNT  zeroed pages
 *   [WORD,WORD…]  an array of eight-byte words
 *   fLINE:HEX  text in which %d is the value of an earlier line
 *
 * The script is argv[1], or standard input.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ARGS = 6, MAX_LINES = 4096, PATIENCE_MS = 20000, SPAWN_OUTPUT = 1 << 16 };

struct call {
	long number, arguments[MAX_ARGS], value;
	unsigned char *out[MAX_ARGS];
	size_t out_size[MAX_ARGS];
	int error, threaded;
	pthread_t thread;
};

static struct call calls[MAX_LINES];
static pid_t children[64];
static int child_count;

static void stop(const char *why)
{
	fprintf(stderr, "file_calls: %s\n", why);
	exit(99);
}

static void *pages(size_t count, int protection)
{
	void *found = mmap(NULL, count * 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (found == MAP_FAILED)
		stop("no memory");
	return found;
}

static int digit(char text)
{
	return text <= '9' ? text - '0' : text - 'a' + 10;
}

static unsigned char *unhex(const char *text, size_t *size)
{
	*size = strlen(text) / 2;
	unsigned char *bytes = calloc(*size + 1, 1);
	for (size_t i = 0; i < *size; i++)
		bytes[i] = digit(text[2 * i]) << 4 | digit(text[2 * i + 1]);
	return bytes;
}

static long formatted(const char *text)
{
	char *rest;
	size_t size;
	long line = strtol(text, &rest, 10);
	char *result = malloc(8192), *format = (char *)unhex(rest + 1, &size), *mark = strstr(format, "%d");
	if (!mark)
		stop("no %d");
	*mark = 0;
	snprintf(result, 8192, "%s%ld%s", format, calls[line].value, mark + 2);
	return (long)result;
}

static long at_page_end(const char *text)
{
	size_t size;
	unsigned char *bytes = unhex(text, &size), *place = pages(3, PROT_READ | PROT_WRITE);
	mprotect(place + 8192, 4096, PROT_NONE);
	memcpy(place + 8192 - size, bytes, size);
	return (long)(place + 8192 - size);
}

static long forbidden(const char *text)
{
	size_t size;
	unsigned char *bytes = unhex(text, &size), *place = pages(1, PROT_READ | PROT_WRITE);
	memcpy(place, bytes, size);
	mprotect(place, 4096, PROT_NONE);
	return (long)place;
}

static long earlier(const char *text)
{
	char *rest;
	long value = calls[strtol(text, &rest, 10)].value;
	return *rest ? value + strtol(rest, NULL, 10) : value;
}

static long array(char *words);

/* Returns what a word stands for; its end has been cut off. */
static long meaning(char *word)
{
	size_t size;
	switch (word[0]) {
	case 'i': return strtol(word + 1, NULL, 10);
	case 'x': return (long)unhex(word + 1, &size);
	case 'r': return earlier(word + 1);
	case 'u': return (long)pages(1, PROT_NONE);
	case 'm': return (long)pages(1, PROT_READ);
	case 'w': return (long)pages(atoi(word + 1), PROT_READ | PROT_WRITE);
	case 'p': return forbidden(word + 1);
	case 'e': return at_page_end(word + 1);
	case 'f': return formatted(word + 1);
	case '[': return array(word + 1);
	default: stop("unknown argument");
	}
	return 0;
}

static long array(char *words)
{
	long *found = calloc(strlen(words) + 1, sizeof *found);
	for (int count = 0, depth = 0, more = 1; more; count++) {
		char *end = words;
		for (; depth || (*end != ',' && *end != ']'); end++)
			depth += (*end == '[') - (*end == ']');
		more = *end == ',';
		*end = 0;
		found[count] = meaning(words);
		words = end + 1;
	}
	return (long)found;
}

static void argument(struct call *call, int index, char *word)
{
	if (word[0] == 'o') {
		char *rest;
		size_t given = 0;
		call->out_size[index] = strtoul(word + 1, &rest, 10);
		call->out[index] = calloc(call->out_size[index] + 1, 1);
		if (*rest) {
			unsigned char *first = unhex(rest + 1, &given);
			memcpy(call->out[index], first, given < call->out_size[index] ? given : call->out_size[index]);
		}
		call->arguments[index] = (long)call->out[index];
	} else {
		call->arguments[index] = meaning(word);
	}
}

static void *make(void *given)
{
	struct call *call = given;
	long *a = call->arguments;
	errno = 0;
	call->value = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
	call->error = call->value == -1 ? errno : 0;
	return NULL;
}

static void print(const struct call *call)
{
	const char *comma = "";
	printf("[%ld, %d, [", call->value, call->error);
	for (int i = 0; i < MAX_ARGS; i++) {
		if (!call->out[i])
			continue;
		printf("%s\"", comma);
		for (size_t at = 0; at < call->out_size[i]; at++)
			printf("%02x", call->out[i][at]);
		printf("\"");
		comma = ", ";
	}
	printf("]]\n");
}

static int joined(struct call *call, long milliseconds)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += milliseconds * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	if (call->threaded && pthread_timedjoin_np(call->thread, NULL, &until) == 0)
		call->threaded = 0;
	return !call->threaded;
}

static void interrupt(struct call *call)
{
	for (long waited = 0; !joined(call, 20); waited += 20) {
		if (waited > PATIENCE_MS)
			stop("the interrupted call did not return");
		pthread_kill(call->thread, SIGUSR1);
	}
}

static pid_t child(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	if (child_count < 64)
		children[child_count++] = pid;
	return pid;
}

static void spawn(struct call *call)
{
	int output[2], failure[2], status = 0;
	if (pipe2(output, O_CLOEXEC) || pipe2(failure, O_CLOEXEC))
		stop("no pipe");
	pid_t pid = fork();
	if (pid == 0) {
		alarm(PATIENCE_MS / 1000);
		dup2(output[1], 1);
		make(call);
		(void)!write(failure[1], &call->error, sizeof call->error);
		_exit(98);
	}
	close(output[1]);
	close(failure[1]);
	unsigned char *bytes = malloc(SPAWN_OUTPUT);
	size_t size = 0;
	ssize_t part;
	while ((part = read(output[0], bytes + size, SPAWN_OUTPUT - size)) > 0)
		size += part;
	if (read(failure[0], &call->error, sizeof call->error) == 0)
		call->error = 0;
	close(output[0]);
	close(failure[0]);
	waitpid(pid, &status, 0);
	call->value = call->error ? -1 : WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
	printf("[%ld, %d, [\"", call->value, call->error);
	for (size_t at = 0; at < size; at++)
		printf("%02x", bytes[at]);
	printf("\"]]\n");
	free(bytes);
}

static void line(int index, char *text)
{
	struct call *call = &calls[index];
	char *word = strtok(text, " "), *number = strtok(NULL, " ");
	if (!strcmp(word, "fork") || !strcmp(word, "self")) {
		call->value = word[0] == 'f' ? child() : getpid();
	} else if (!strcmp(word, "running")) {
		call->value = !joined(&calls[atoi(number)], 0);
	} else if (!strcmp(word, "join") || !strcmp(word, "interrupt")) {
		struct call *other = &calls[atoi(number)];
		if (word[0] == 'i')
			interrupt(other);
		else if (!joined(other, PATIENCE_MS))
			stop("a call did not return");
		call->value = other->value;
		print(other);
		return;
	} else {
		call->number = atol(number);
		for (int i = 0; i < MAX_ARGS && (number = strtok(NULL, " ")); i++)
			argument(call, i, number);
		if (!strcmp(word, "start")) {
			call->threaded = 1;
			if (pthread_create(&call->thread, NULL, make, call))
				stop("no thread");
			printf("[0, 0, []]\n");
			return;
		}
		if (!strcmp(word, "spawn")) {
			spawn(call);
			return;
		}
		make(call);
	}
	print(call);
}

static void ignore(int number)
{
	(void)number;
}

/* Returns in the copy at once, in this process when the copy has ended. */
static void copy(const char *place)
{
	size_t size;
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		if (chdir((char *)unhex(place, &size)))
			stop("no such directory");
		return;
	}
	if (waitpid(pid, &status, 0) != pid || status)
		stop("the copy failed");
	printf("[0, 0, []]\n");
}

int main(int count, char **arguments)
{
	FILE *source = count > 1 ? fopen(arguments[1], "re") : stdin;
	char *text = NULL;
	size_t room = 0;
	ssize_t size;
	int index = 0;
	struct sigaction action = {.sa_handler = ignore};
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(source, NULL, _IONBF, 0); /* a copy reads on where this process stopped */
	while (index < MAX_LINES && (size = getline(&text, &room, source)) > 0) {
		text[size - (text[size - 1] == '\n')] = 0;
		if (!strncmp(text, "begin ", 6))
			copy(text + 6);
		else if (!strcmp(text, "end"))
			break;
		else if (*text)
			line(index++, text);
		else
			continue;
		fflush(stdout);
	}
	for (int i = 0; i < child_count; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	return 0;
}
