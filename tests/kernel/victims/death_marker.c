/* death_marker NONCE: says that it runs, in one write. */
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	char line[100];
	int size = snprintf(line, sizeof line, "ran %s\n", argc > 1 ? argv[1] : "");
	return write(1, line, size) == size ? 0 : 1;
}
