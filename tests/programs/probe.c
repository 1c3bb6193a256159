/* Uses what a wrong program header table, a wrong entry or a lost register would break: thread-local data, IFUNCs,
 * dl_iterate_phdr, exit handlers (rdx at the entry point), the heap behind the image, .bss, arguments, environment.
 * Ends with status 7. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef BSS
#define BSS 1
#endif

static __thread int thread_local_number = 42;
static char zeros[BSS];
static int destroyed;

__attribute__((constructor)) static void construct(void) { setenv("CONSTRUCTED", "yes", 1); }
__attribute__((destructor)) static void destruct(void) { destroyed = 1; write(1, "destructor\n", 11); }

static int first_object(struct dl_phdr_info *info, size_t size, void *data)
{
	int loads = 0;
	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++)
		loads += info->dlpi_phdr[i].p_type == PT_LOAD;
	*(int *)data = loads;
	return 1;
}

static void *in_thread(void *unused)
{
	(void)unused;
	return (void *)(long)(thread_local_number++ == 42 ? 5 : 6);
}

static void at_exit(void) { puts("exit handler"); }

int main(int argc, char **argv, char **envp)
{
	int loads = 0, before = 0;
	void *result = 0;
	pthread_t thread;
	atexit(at_exit);
	dl_iterate_phdr(first_object, &loads);
	for (int i = 0; i < (int)sizeof zeros; i += 4096)
		before |= zeros[i];
	memset(zeros, 1, sizeof zeros);
	char *block = malloc(100000);
	memset(block, 1, 100000);
	pthread_create(&thread, 0, in_thread, 0);
	pthread_join(thread, &result);
	fprintf(stderr, "%d %d\n", loads, prctl(PR_GET_SECCOMP));
	printf("%d %s %s %d %d %ld %d %d\n", argc, argv[argc - 1], getenv("CONSTRUCTED"), thread_local_number, before,
	       (long)result, loads > 0, envp[0] != 0);
	return 7;
}
