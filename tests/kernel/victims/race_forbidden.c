/* The program that the policy of the race forbids; it leaves a marker where it can. */
#include <unistd.h>
int main(void)
{
	ssize_t ignored = write(1, "FORBIDDEN\n", 10);
	(void)ignored;
	return 'b';
}
