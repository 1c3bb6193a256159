/* A program for tests of the tracer: the first argument says what it does. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *thread(void *unused) {
	for (int i = 0; i < 20; i++) syscall(SYS_getppid);
	usleep(1000);
	return unused;
}

static int threads(void) {
	pthread_t all[200];
	for (int i = 0; i < 200; i++) if (pthread_create(&all[i], 0, thread, 0)) return 1;
	for (int i = 0; i < 200; i++) pthread_join(all[i], 0);
	return puts("200 threads") < 0;
}

/* Half of them by vfork, half of them another program. */
static int children(void) {
	int ended = 0;
	for (int i = 0; i < 2000; i++) {
		pid_t child = i % 2 ? fork() : vfork();
		if (child == 0) {
			if (i % 4 < 2) execl("/bin/true", "true", (char *)0);
			_exit(3);
		}
	}
	while (wait(0) > 0) ended++;
	printf("%d children\n", ended);
	return 0;
}

/* Traces a child of its own, both ways. */
static int tracer(void) {
	int status, stops = 0;
	pid_t child = fork();
	if (child == 0) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0)) _exit(9);
		raise(SIGSTOP);
		syscall(SYS_getppid);
		_exit(4);
	}
	for (;; stops++) {
		waitpid(child, &status, 0);
		if (!WIFSTOPPED(status) || ptrace(PTRACE_SYSCALL, child, 0, 0)) break;
	}
	printf("%s, exit %d\n", stops > 3 ? "stops" : "no stops", WEXITSTATUS(status));
	child = fork();
	if (child == 0) for (;;) pause();
	usleep(20000);
	printf("attach %ld\n", ptrace(PTRACE_ATTACH, child, 0, 0));
	waitpid(child, &status, 0);
	printf("stopped %d\n", WIFSTOPPED(status));
	ptrace(PTRACE_DETACH, child, 0, 0);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	printf("killed by %d\n", WTERMSIG(status));
	return 0;
}

/* A filter of its own, in the midst of many calls. */
static int own_filter(void) {
	struct sock_filter code[] = {
		{0x20, 0, 0, 0}, {0x15, 0, 1, SYS_getuid}, {6, 0, 0, SECCOMP_RET_ERRNO | EPERM}, {6, 0, 0, SECCOMP_RET_ALLOW}};
	struct sock_fprog program = {4, code};
	for (int i = 0; i < 20000; i++) syscall(SYS_getppid);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	printf("installed %d\n", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	for (int i = 0; i < 20000; i++) syscall(SYS_getppid);
	long result = syscall(SYS_getuid);
	printf("getuid %ld\n", result);
	return 0;
}

static volatile int caught;

static void count(int signal) {
	(void)signal;
	caught++;
}

/* All signals that can be caught, real-time ones among them; then a child that stops, goes on and ends when it may:
   one that has ended can no longer be seen to go on. */
static int signals(void) {
	int status, gate[2];
	char byte;
	for (int number = 1; number < 65; number++) signal(number, count);
	signal(SIGCHLD, SIG_DFL);
	for (int number = 1; number < 65; number++)
		if (number != SIGKILL && number != SIGSTOP && number != SIGCHLD && number != 32 && number != 33) raise(number);
	printf("%d signals\n", caught);
	if (pipe(gate)) return 1;
	pid_t child = fork();
	if (child == 0) {
		close(gate[1]);
		raise(SIGSTOP);
		_exit(read(gate[0], &byte, 1) ? 8 : 7);
	}
	waitpid(child, &status, WUNTRACED);
	printf("stopped by %d\n", WSTOPSIG(status));
	kill(child, SIGCONT);
	waitpid(child, &status, WCONTINUED);
	printf("continued %d\n", WIFCONTINUED(status));
	close(gate[1]);
	waitpid(child, &status, 0);
	printf("exit %d\n", WEXITSTATUS(status));
	signal(SIGTERM, SIG_DFL);
	fflush(stdout);
	return raise(SIGTERM);
}

/* One call so often that it becomes known, and then another one. */
static int late(void) {
	for (int i = 0; i < 300000; i++) syscall(SYS_getppid);
	syscall(SYS_getpgid, 0);
	return 0;
}

static void *often(void *unused) {
	for (int i = 0; i < 50000; i++) syscall(SYS_getppid);
	return unused;
}

/* Many calls in threads, then in a child, which makes a new one and becomes another program. */
static int heavy(void) {
	pthread_t all[8];
	for (int i = 0; i < 8; i++) if (pthread_create(&all[i], 0, often, 0)) return 1;
	for (int i = 0; i < 8; i++) pthread_join(all[i], 0);
	pid_t child = fork();
	if (child == 0) {
		often(0);
		syscall(SYS_getpgid, 0);
		execl("/bin/true", "true", (char *)0);
	}
	wait(0);
	return syscall(SYS_getsid, 0) < 0;
}

static void *other_program(void *unused) {
	execl("/bin/echo", "echo", "of a thread", (char *)0);
	return unused;
}

static void *sleeper(void *unused) {
	for (;;) pause();
	return unused;
}

/* A thread that is not the first becomes the process. */
static int thread_exec(void) {
	pthread_t one;
	for (int i = 0; i < 5; i++) if (pthread_create(&one, 0, sleeper, 0)) return 1;
	pthread_create(&one, 0, other_program, 0);
	for (;;) pause();
}

static int foreign(void) {
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
	return result != getpid();
}

/* Says what became of a call. */
static int parent(void) {
	for (int i = 0; i < 3; i++) {
		errno = 0;
		long result = syscall(SYS_getppid);
		printf("%s\n", result > 0 ? "made" : strerror(errno));
		fflush(stdout);
	}
	return 5;
}

static int stubborn(void) {
	signal(SIGTERM, SIG_IGN);
	puts("ready");
	fflush(stdout);
	usleep(700000);
	return 6;
}

/* Until SIGUSR1 comes, or a minute is over. */
static int busy(void) {
	signal(SIGUSR1, count);
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < 60000 && !caught; i++) {
		usleep(1000);
		syscall(SYS_getppid);
	}
	return 8;
}

int main(int count, char **words) {
	static const struct { const char *name; int (*run)(void); } all[] = {
		{"threads", threads}, {"children", children}, {"tracer", tracer}, {"own-filter", own_filter},
		{"signals", signals}, {"late", late}, {"foreign", foreign}, {"heavy", heavy}, {"thread-exec", thread_exec}, {"parent", parent},
		{"stubborn", stubborn}, {"busy", busy}};
	for (size_t i = 0; count > 1 && i < sizeof all / sizeof *all; i++)
		if (!strcmp(words[1], all[i].name)) return all[i].run();
	return 99;
}
