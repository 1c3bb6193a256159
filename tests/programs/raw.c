/* Makes one call by its number and prints what the kernel says: raw HOW NUMBER, where HOW is syscall or int80. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	long result = 0;
	unsigned long number = argc == 3 ? strtoul(argv[2], 0, 0) : 0;
	if (argc == 3 && !strcmp(argv[1], "int80"))
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
	else
		__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(0), "S"(0), "d"(0) : "memory", "rcx", "r11");
	printf("%ld\n", result);
	return 0;
}
