# Ends with status 0 if every register is as interpreter.s has filled it, else with the number of the first that is not.
	.globl _start
	.intel_syntax noprefix
	.macro check register, value, number
	mov byte ptr [rip + failed], \number
	push rax
	mov rax, \value
	cmp \register, rax
	pop rax
	jne fail
	.endm
_start:
	endbr64
	pushfq
	cld
	push rax
	mov rax, 0x1111111111110000
	cmp [rsp], rax
	pop rax
	mov byte ptr [rip + failed], 1
	jne fail
	check rcx, 0x1111111111110001, 2
	check rdx, 0x1111111111110002, 3
	check rbx, 0x1111111111110003, 4
	check rbp, 0x1111111111110005, 5
	check rsi, 0x1111111111110006, 6
	check rdi, 0x1111111111110007, 7
	check r8, 0x1111111111110008, 8
	check r9, 0x1111111111110009, 9
	check r10, 0x111111111111000a, 10
	check r11, 0x111111111111000b, 11
	check r12, 0x111111111111000c, 12
	check r13, 0x111111111111000d, 13
	check r14, 0x111111111111000e, 14
	check r15, 0x111111111111000f, 15
	pop rax                         # flags
	and rax, 0xcd5                  # those of interpreter.s, and direction
	mov byte ptr [rip + failed], 16
	cmp rax, 0xcd5
	jne fail
	mov byte ptr [rip + failed], 17
	pcmpeqd xmm1, xmm1
	pcmpeqb xmm0, xmm1
	pmovmskb eax, xmm0
	cmp eax, 0xffff
	jne fail
	mov byte ptr [rip + failed], 18
	psrldq xmm1, 3
	pcmpeqb xmm15, xmm1
	pmovmskb eax, xmm15
	cmp eax, 0xffff
	jne fail
	mov byte ptr [rip + failed], 19
	cmp qword ptr [rsp], 2          # argc, on a stack that is as the kernel made it
	jne fail
	mov byte ptr [rip + failed], 0
fail:	movzx edi, byte ptr [rip + failed]
	mov eax, 231
	syscall
	.data
failed:	.byte 0
	.section .note.GNU-stack, "", @progbits
