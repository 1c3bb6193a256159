/* Makes the system call whose number it is given: no analysis can know it. */
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	return argc > 1 ? (int)syscall(atol(argv[1])) : 0;
}
