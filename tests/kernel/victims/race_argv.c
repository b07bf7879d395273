/* Run `PROGRAM x` COUNT times while another process flips x between "a" and "b" in memory that both share. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	volatile char *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int count = argc > 2 ? atoi(argv[2]) : 0;
	pid_t flipper;

	if (word == MAP_FAILED || !count)
		return 2;
	word[0] = 'a';
	flipper = fork();
	if (!flipper) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			word[0] ^= 'a' ^ 'b';
	}
	while (count--) {
		pid_t child = fork();
		if (!child) {
			char *args[] = { "cat", (char *)word, NULL };
			execv(argv[1], args);
			_exit(126);
		}
		waitpid(child, NULL, 0);
	}
	kill(flipper, SIGKILL);
	waitpid(flipper, NULL, 0);
	return 0;
}
