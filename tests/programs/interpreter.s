# Takes the place of ld.so: fills every register, then goes to the program's entry point, which it finds in AT_ENTRY.
# The stack is left as the kernel made it. program.s tells what it finds.
	.globl _start
	.intel_syntax noprefix
_start:
	lea rdi, [rsp + 8]              # behind argc
1:	mov rax, [rdi]                  # argv, then its null
	add rdi, 8
	test rax, rax
	jnz 1b
2:	mov rax, [rdi]                  # envp, then its null
	add rdi, 8
	test rax, rax
	jnz 2b
3:	cmp qword ptr [rdi], 9          # AT_ENTRY
	je 4f
	add rdi, 16
	jmp 3b
4:	mov rax, [rdi + 8]
	lea rcx, [rip + target]
	mov [rcx], rax
	lea rcx, [rip + stack]
	mov [rcx], rsp
	pcmpeqd xmm0, xmm0
	pcmpeqd xmm15, xmm15
	psrldq xmm15, 3
	mov rcx, 0x1111111111110001
	mov rdx, 0x1111111111110002
	mov rbx, 0x1111111111110003
	mov rbp, 0x1111111111110005
	mov rsi, 0x1111111111110006
	mov rdi, 0x1111111111110007
	mov r8, 0x1111111111110008
	mov r9, 0x1111111111110009
	mov r10, 0x111111111111000a
	mov r11, 0x111111111111000b
	mov r12, 0x111111111111000c
	mov r13, 0x111111111111000d
	mov r14, 0x111111111111000e
	mov r15, 0x111111111111000f
	mov rax, 0x8d5                  # carry, parity, adjust, zero, sign, overflow; and not trap
	push rax
	popfq
	std                             # direction: no function may be called so
	mov rax, 0x1111111111110000
	jmp [rip + target]
	.data
target:	.quad 0
stack:	.quad 0
	.section .note.GNU-stack, "", @progbits
