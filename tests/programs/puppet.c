/* puppet NUMBER: a child that stops itself, and a parent that has it make another call than it asks for: at the stop
 * before getpid() the parent writes NUMBER over the call's. Then the same with the child's instruction pointer set back
 * to its `syscall` and the number in rax. Prints the signal that the child died of, or "through". */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static int ended(pid_t child)
{
	int status;
	for (;;) {
		if (waitpid(child, &status, 0) < 0)
			return 0;
		if (WIFSIGNALED(status))
			return WTERMSIG(status);
		if (WIFEXITED(status))
			return -WEXITSTATUS(status);
		if (ptrace(PTRACE_CONT, child, 0, WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status)))
			return 0;
	}
}

int main(int argc, char **argv)
{
	long number = argc > 1 ? atol(argv[1]) : SYS_getpid;
	for (int way = 0; way < 2; way++) {
		pid_t child = fork();
		int status;
		if (!child) {
			ptrace(PTRACE_TRACEME, 0, 0, 0);
			raise(SIGSTOP);
			for (int i = 0; i < 8; i++)
				syscall(SYS_getpid);
			_exit(0);
		}
		waitpid(child, &status, 0);
		/* To the stop at the entry of a getpid(). */
		struct user_regs_struct registers;
		do {
			ptrace(PTRACE_SYSCALL, child, 0, 0);
			waitpid(child, &status, 0);
			if (!WIFSTOPPED(status) || ptrace(PTRACE_GETREGS, child, 0, &registers))
				return 2;
		} while (registers.orig_rax != SYS_getpid);
		if (way) {
			/* Through the call, then anew. */
			ptrace(PTRACE_SYSCALL, child, 0, 0);
			waitpid(child, &status, 0);
			ptrace(PTRACE_GETREGS, child, 0, &registers);
			registers.rip -= 2;
			registers.rax = (unsigned long)number;
			registers.orig_rax = (unsigned long)-1;
		} else {
			registers.orig_rax = (unsigned long)number;
		}
		ptrace(PTRACE_SETREGS, child, 0, &registers);
		ptrace(PTRACE_CONT, child, 0, 0);
		int end = ended(child);
		if (end > 0)
			printf("%d\n", end);
		else
			puts("through");
	}
	return 0;
}
