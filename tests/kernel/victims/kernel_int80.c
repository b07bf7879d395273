/*
 * System calls of the 32-bit ABI from a 64-bit program, by `int $0x80`: prints `name result` for each. On a kernel
 * without that ABI the first one ends the program with SIGSEGV. Other machines have no such door.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __x86_64__
static long old_call(long number, long first, long second, long third)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory", "r8", "r9", "r10", "r11");
	return (int)result;
}

int main(int argc, char **argv)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (low == MAP_FAILED)
		return 99;
	strcpy(low, argc > 1 ? argv[1] : "/etc/hostname");
	printf("getpid %d\n", old_call(20, 0, 0, 0) == getpid());
	printf("open %ld\n", old_call(5, (long)low, O_RDONLY, 0));
	printf("unlink %ld\n", old_call(10, (long)low, 0, 0));
	return 0;
}
#else
int main(void)
{
	puts("no such ABI");
	return 98;
}
#endif
