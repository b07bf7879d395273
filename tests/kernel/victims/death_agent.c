/* death_agent DIRECTORY PORT PROGRAM SHAPE
 *
 * Opens, connects, executes and leaves daemons behind, without end, and leaves traces of each act that took effect:
 * a file with a name of its own in DIRECTORY, a connection to PORT, a line from PROGRAM on standard output. What
 * fails is told there as well: "failed CALL ERRNO". SHAPE is what makes it hard to end:
 *
 *   daemons    grandchildren in sessions of their own, more with each round
 *   headless   daemons whose first thread has ended while a second one goes on
 *   comets     processes that fork their successor and end, faster than anybody can list them
 *
 * Every process ends by itself after LIFETIME seconds, should nobody end it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIFETIME 40
#define MOST_DAEMONS 12
#define COMETS 24

static const char *directory, *program;
static struct sockaddr_in server;
static time_t end;

static void say(const char *format, ...)
{
	char line[200];
	va_list arguments;
	va_start(arguments, format);
	int size = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (write(1, line, size) != size)
		_exit(3);
}

static void failed(const char *call)
{
	say("failed %s %d\n", call, errno);
	usleep(2000); /* nothing gets better by hurrying */
}

static void create(long number)
{
	char path[512];
	snprintf(path, sizeof path, "%s/f-%d-%ld", directory, getpid(), number);
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0)
		failed("open");
	else
		close(fd);
}

static void reach(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server))
		failed("connect");
	if (fd >= 0)
		close(fd);
}

static void execute(long number)
{
	char nonce[64], *arguments[] = {(char *)program, nonce, NULL}, *environment[] = {NULL};
	snprintf(nonce, sizeof nonce, "%d-%ld", getpid(), number);
	pid_t child = fork();
	if (!child) {
		execve(program, arguments, environment);
		failed("exec");
		_exit(0);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}

static void act_for_ever(void)
{
	for (long number = 0; time(NULL) < end; number++) {
		create(number);
		if (number % 4 == 1)
			reach();
		if (number % 8 == 3)
			execute(number);
	}
	_exit(0);
}

static void *go_on(void *unused)
{
	act_for_ever();
	return unused;
}

static void leave_daemon(int headless)
{
	pid_t child = fork();
	if (child) {
		waitpid(child, NULL, 0);
		return;
	}
	setsid();
	if (fork())
		_exit(0);
	alarm(LIFETIME);
	if (headless) {
		pthread_t thread;
		if (!pthread_create(&thread, NULL, go_on, NULL))
			syscall(SYS_exit, 0); /* this thread alone */
	}
	act_for_ever();
}

static void leave_comets(void)
{
	for (int i = 0; i < COMETS; i++)
		if (!fork()) {
			setsid();
			while (time(NULL) < end)
				if (fork() > 0)
					_exit(0);
			_exit(0);
		}
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	directory = argv[1];
	server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	program = argv[3];
	end = time(NULL) + LIFETIME;
	alarm(LIFETIME);
	say("ready\n");
	if (!strcmp(argv[4], "comets"))
		leave_comets();
	for (int number = 0; number < MOST_DAEMONS; number++) {
		leave_daemon(!strcmp(argv[4], "headless"));
		create(1000000 + number);
		reach();
		execute(1000000 + number);
	}
	act_for_ever();
}
