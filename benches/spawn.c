/*
 * spawn ROUNDS PROGRAM... : starts each program ROUNDS times, in turns, and prints a line for each:
 * median and lower decile of the time from posix_spawn to its end in microseconds, greatest resident set in KiB, median
 * of the CPU time (user and system, its threads' too) in microseconds.
 * PROGRAM is one word: arguments are separated by blanks in it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double microseconds(struct timeval time)
{
	return time.tv_sec * 1e6 + time.tv_usec;
}

static double once(char *const *arguments, posix_spawn_file_actions_t *actions, long *memory, double *cpu)
{
	char *const environment[] = {"PATH=/usr/bin:/bin:/usr/sbin", "LC_ALL=C", 0};
	struct rusage usage;
	pid_t child;
	int status;
	double start = now();
	if (posix_spawn(&child, arguments[0], actions, 0, arguments, environment) || wait4(child, &status, 0, &usage) < 0 || status) {
		fprintf(stderr, "spawn: %s failed\n", arguments[0]);
		exit(1);
	}
	double time = now() - start;
	*cpu = microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
	if (usage.ru_maxrss > *memory) *memory = usage.ru_maxrss;
	return time;
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[1]) : 0, programs = argc - 2;
	if (rounds < 1) {
		fputs("usage: spawn ROUNDS PROGRAM...\n", stderr);
		return 2;
	}
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	char *words[programs][32];
	double *times[programs], *cpus[programs];
	long memory[programs];
	for (int p = 0; p < programs; p++) {
		int count = 0;
		for (char *word = strtok(argv[p + 2], " "); word && count < 31; word = strtok(0, " ")) words[p][count++] = word;
		words[p][count] = 0;
		times[p] = calloc(rounds, sizeof(double));
		cpus[p] = calloc(rounds, sizeof(double));
		memory[p] = 0;
	}
	for (int round = -1; round < rounds; round++)
		for (int p = 0; p < programs; p++) {
			double cpu, time = once(words[p], &actions, &memory[p], &cpu);
			if (round < 0) continue;
			times[p][round] = time;
			cpus[p][round] = cpu;
		}
	for (int p = 0; p < programs; p++) {
		qsort(times[p], rounds, sizeof(double), ascending);
		qsort(cpus[p], rounds, sizeof(double), ascending);
		printf("%.1f %.1f %ld %.1f\n", times[p][rounds / 2], times[p][rounds / 10], memory[p], cpus[p][rounds / 2]);
	}
	return 0;
}
