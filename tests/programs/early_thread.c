/* A library for LD_PRELOAD: its constructor starts a thread, which runs before the stub. With OWN_FILTER in the
 * environment the thread puts itself under a filter that the stub's cannot be added to. The thread waits until the
 * program runs (getppid by main is what the tests look for), then calls getppid itself. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int ready;

static void *work(void *unused)
{
	struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog program = {1, allow};
	(void)unused;
	if (getenv("OWN_FILTER")) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
	}
	ready = 1;
	for (;;) {
		if (prctl(PR_GET_SECCOMP) == 2 && !getenv("OWN_FILTER"))
			syscall(SYS_getppid);
		usleep(1000);
	}
	return 0;
}

__attribute__((constructor)) static void begin(void)
{
	pthread_t thread;
	pthread_create(&thread, 0, work, 0);
	while (!ready)
		usleep(1000);
}
