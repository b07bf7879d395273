/* The program that the policy of the race lets run. */
int main(void) { return 'g'; }
