/* usage: open_often FILE TIMES: open a file again and again; print how many descriptors were not that file. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	struct stat file, got;
	int wrong = 0, first = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (first < 0 || fstat(first, &file))
		return 1;
	for (int left = atoi(argv[2]); left; left--) {
		int number = open(argv[1], O_RDONLY | O_CLOEXEC);
		if (number < 0 || fstat(number, &got) || got.st_dev != file.st_dev || got.st_ino != file.st_ino)
			wrong++;
		else
			close(number);
	}
	printf("%d wrong\n", wrong);
	return 0;
}
