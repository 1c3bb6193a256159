/* System calls of a program without a C library. */
static inline long call(long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return result;
}

enum { GETPID = 39, GETUID = 102, GETGID = 104, GETEUID = 107, GETEGID = 108, GETPPID = 110, GETPGRP = 111, SETSID = 112 };

int start(void);
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall start\n\tmov %eax, %edi\n\tmov $60, %eax\n\tsyscall\n");
