/* stop KIND: nanoseconds that a call costs which a tracer sees: `none` without one, `notify` by seccomp user notification
 * that lets it go on, `trace` by SECCOMP_RET_TRACE, `syscall` by PTRACE_SYSCALL, `filter` by a filter that lets it pass. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* linux/seccomp.h of Linux 6.6 */
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1
#endif

enum { CALLS = 100000, ROUNDS = 5 };

static void loop(void) {
	long best = -1;
	for (int round = 0; round < ROUNDS; round++) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		for (int i = 0; i < CALLS; i++) syscall(SYS_getppid);
		clock_gettime(CLOCK_MONOTONIC, &b);
		long each = ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec) / CALLS;
		if (best < 0 || each < best) best = each;
	}
	printf("%ld\n", best);
	fflush(stdout);
}

static int filter(unsigned action, unsigned flags) {
	struct sock_filter code[] = {
		{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0}, {BPF_JMP | BPF_JEQ, 0, 1, SYS_getppid}, {BPF_RET, 0, 0, action}, {BPF_RET, 0, 0, SECCOMP_RET_ALLOW}};
	struct sock_fprog program = {4, code};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int notify(void) {
	/* Shared with the child, so that both have the descriptor. */
	int listener, status;
	int ready[2];
	if (pipe(ready)) return 1;
	pid_t child = syscall(SYS_clone, SIGCHLD | 0x400 /* CLONE_FILES */, 0, 0, 0, 0);
	if (child == 0) {
		int fd = filter(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
		if (write(ready[1], &fd, sizeof fd) < 0) _exit(1);
		loop();
		_exit(0);
	}
	if (read(ready[0], &listener, sizeof listener) < 0) return 1;
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
	for (int i = 0; i < CALLS * ROUNDS; i++) {
		struct seccomp_notif request;
		memset(&request, 0, sizeof request);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) break;
		struct seccomp_notif_resp answer = {request.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE};
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
	return waitpid(child, &status, 0) < 0;
}

static int traced(int how, int with_filter) {
	int status;
	pid_t child = fork();
	if (child == 0) {
		raise(SIGSTOP);
		if (with_filter) filter(SECCOMP_RET_TRACE, 0);
		loop();
		_exit(0);
	}
	waitpid(child, &status, WUNTRACED);
	ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD);
	kill(child, SIGCONT);
	while (waitpid(child, &status, __WALL) > 0 && WIFSTOPPED(status)) {
		struct __ptrace_syscall_info { char bytes[88]; } info;
		ptrace(0x420e /* PTRACE_GET_SYSCALL_INFO */, child, sizeof info, &info);
		ptrace(how, child, 0, 0);
	}
	return 0;
}

int main(int count, char **words) {
	const char *kind = count > 1 ? words[1] : "";
	if (!strcmp(kind, "none")) return loop(), 0;
	if (!strcmp(kind, "filter")) return filter(SECCOMP_RET_ALLOW, 0), loop(), 0;
	if (!strcmp(kind, "notify")) return notify();
	if (!strcmp(kind, "trace")) return traced(PTRACE_CONT, 1);
	if (!strcmp(kind, "syscall")) return traced(PTRACE_SYSCALL, 0);
	return 2;
}
