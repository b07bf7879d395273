/* Somebody else's process: says what reaches it. Prints `ready`, then `signal NUMBER` for each; ends with its input. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

int main(void)
{
	struct signalfd_siginfo info;
	struct pollfd wait[2] = { { .fd = 0, .events = POLLIN } };
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	wait[1] = (struct pollfd){ .fd = signalfd(-1, &all, SFD_CLOEXEC), .events = POLLIN };
	puts("ready");
	fflush(stdout);
	while (poll(wait, 2, 120000) > 0) {
		if (wait[1].revents) {
			if (read(wait[1].fd, &info, sizeof info) != sizeof info)
				return 1;
			printf("signal %u\n", info.ssi_signo);
			fflush(stdout);
		} else if (wait[0].revents) {
			break;
		}
	}
	puts("end");
	return 0;
}
