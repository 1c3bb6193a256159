/*
 * loop: prints the nanoseconds that one getppid takes, the median of 31 rounds.
 * With -DALLOW_EVERYTHING it puts itself under the smallest filter that there is: one that allows every call.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 31, CALLS = 200000 };

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(void)
{
#ifdef ALLOW_EVERYTHING
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = {1, &allow};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
		perror("seccomp");
		return 1;
	}
#endif
	static double times[ROUNDS];
	for (int round = 0; round < ROUNDS; round++) {
		struct timespec start, end;
		clock_gettime(CLOCK_MONOTONIC, &start);
		for (int call = 0; call < CALLS; call++) {
			long result;
			__asm__ volatile("syscall" : "=a"(result) : "a"((long)SYS_getppid) : "rcx", "r11", "memory");
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		times[round] = ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / CALLS;
	}
	qsort(times, ROUNDS, sizeof *times, ascending);
	printf("%.1f\n", times[ROUNDS / 2]);
	return 0;
}
