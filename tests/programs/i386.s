# A whole i386 program: getpid, getppid, exit(7), by the numbers of its own table.
	.globl _start
_start:
	mov $20, %eax
	int $0x80
	mov $64, %eax
	int $0x80
	mov $1, %eax
	mov $7, %ebx
	int $0x80
