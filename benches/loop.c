/*
 * loop getppid|copy: prints the nanoseconds that one getppid takes, or a read of 4 KiB from /dev/zero and its write to
 * /dev/null; the median of 31 rounds.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 31, CALLS = 50000 };

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void parent(void)
{
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"((long)SYS_getppid) : "rcx", "r11", "memory");
}

static int zero, null;

static void copy(void)
{
	char page[4096];
	if (read(zero, page, sizeof page) != sizeof page || write(null, page, sizeof page) != sizeof page) {
		perror("loop");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	int is_copy = argc == 2 && !strcmp(argv[1], "copy");
	if (!is_copy && (argc != 2 || strcmp(argv[1], "getppid"))) {
		fputs("usage: loop getppid|copy\n", stderr);
		return 2;
	}
	zero = open("/dev/zero", O_RDONLY);
	null = open("/dev/null", O_WRONLY);
	static double times[ROUNDS];
	for (int round = 0; round < ROUNDS; round++) {
		struct timespec start, end;
		clock_gettime(CLOCK_MONOTONIC, &start);
		for (int call = 0; call < CALLS; call++) {
			if (is_copy) copy(); else parent();
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		times[round] = ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / CALLS;
	}
	qsort(times, ROUNDS, sizeof *times, ascending);
	printf("%.1f\n", times[ROUNDS / 2]);
	return 0;
}
