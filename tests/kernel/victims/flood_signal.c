/* flood_signal KIND RESTART WHO TARGET
 *
 * Makes a call that waits, of KIND, at TARGET; after 200 ms SIGALRM comes to the thread that waits. Its handler prints
 * "signal". RESTART says whether the call is to go on after it (SA_RESTART); then whoever runs this lets it complete.
 * WHO is `process`, which has one thread and an alarm, or `thread`, a second thread that is sent the signal.
 * Prints "returned OK", "returned some" for a message sent in part, or "returned ERRNO".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SIZE (4 << 20)

static const char *kind, *target;

static void handler(int number)
{
	(void)number;
	if (write(1, "signal\n", 7) != 7)
		_exit(3);
}

static long wait_for_it(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(target))};
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!strcmp(kind, "fifo"))
		return open(target, O_RDONLY);
	if (!strcmp(kind, "connect-tcp"))
		return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
	strncpy(name.sun_path, target, sizeof name.sun_path - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	long result = connect(fd, (struct sockaddr *)&name, sizeof name);
	if (!strcmp(kind, "connect-unix"))
		return result;
	struct iovec payload = {mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), SIZE};
	struct msghdr message = {.msg_iov = &payload, .msg_iovlen = 1};
	/* Whatever the buffer takes goes first, so that the call that waits has sent nothing yet. */
	while (sendmsg(fd, &message, MSG_DONTWAIT) > 0)
		;
	payload.iov_len = 1 << 16;
	return sendmsg(fd, &message, 0);
}

static void *call(void *unused)
{
	long result = wait_for_it();
	if (result < 0)
		printf("returned %s\n", errno == EINTR ? "EINTR" : strerror(errno));
	else
		printf("returned %s\n", strcmp(kind, "send") || result == 1 << 16 ? "OK" : "some");
	fflush(stdout);
	return unused;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	kind = argv[1];
	target = argv[4];
	struct sigaction action = {.sa_handler = handler, .sa_flags = atoi(argv[2]) ? SA_RESTART : 0};
	sigaction(SIGALRM, &action, NULL);
	if (!strcmp(argv[3], "process")) {
		struct itimerval soon = {.it_value = {.tv_usec = 200000}};
		setitimer(ITIMER_REAL, &soon, NULL);
		call(NULL);
		return 0;
	}
	pthread_t thread;
	pthread_create(&thread, NULL, call, NULL);
	usleep(200000);
	pthread_kill(thread, SIGALRM);
	pthread_join(thread, NULL);
	return 0;
}
