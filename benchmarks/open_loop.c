/* Times open+read+close of the file named by argv[1], argv[2] times; prints the median and the 99th percentile in ns. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    char block[1024];
    int rounds = argc > 2 ? atoi(argv[2]) : 0;
    if (rounds < 100) return 2;
    long *taken = calloc(rounds, sizeof *taken);
    for (int i = 0; i < rounds; i++) {
        long start = now();
        int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, block, sizeof block) != sizeof block) return 1;
        close(fd);
        taken[i] = now() - start;
    }
    qsort(taken, rounds, sizeof *taken, ascending);
    printf("%ld %ld\n", taken[rounds / 2], taken[rounds * 99 / 100]);
    return 0;
}
