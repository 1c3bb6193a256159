# A small program with what analyses look at: numbers from constants, a switch, a parameter, data, another library's
# function; jump table, pointers in data, thread-local data, exceptions, constructors.
	.text
	.globl	_start
	.type	_start, @function
_start:
	.cfi_startproc
	endbr64
	mov	%rsp, %rdi
	and	$-16, %rsp
	call	choose
	mov	$110, %edi
	call	wrapper
	lea	table(%rip), %rbx
	call	*8(%rbx)
	lea	path(%rip), %rdi
	xor	%esi, %esi
	mov	$59, %eax
	syscall
#ifdef DYNAMIC
	call	outside@PLT
	mov	inside@GOTPCREL(%rip), %rax
	mov	(%rax), %rdi
#endif
	mov	$231, %eax
	syscall
	hlt
	.cfi_endproc
	.size	_start, .-_start

	.type	wrapper, @function
wrapper:
	.cfi_startproc
	push	%rbp
	.cfi_adjust_cfa_offset 8
	mov	%rsp, %rbp
	movslq	%edi, %rax
	syscall
	pop	%rbp
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size	wrapper, .-wrapper

	.globl	choose
	.type	choose, @function
choose:
	.cfi_startproc
	.cfi_personality 0x9b, personality_slot
	.cfi_lsda 0x1b, exceptions
	mov	(%rdi), %eax
	cmp	$3, %eax
	ja	.Lend
	lea	jumps(%rip), %rdx
	movslq	(%rdx,%rax,4), %rax
	add	%rdx, %rax
	notrack jmp *%rax
.Lcase0:	mov	$39, %eax
	jmp	.Lcall
.Lcase1:	mov	$102, %eax
	jmp	.Lcall
.Lcase2:	mov	%fs:0, %eax
	lea	numbers(%rip), %rdx
	mov	(%rdx,%rax,4), %eax
.Lcall:	syscall
.Lend:	ret
.Lpad:	call	wrapper
	ret
	.cfi_endproc
	.size	choose, .-choose

	.type	personality, @function
personality:
	ret
	.size	personality, .-personality

	.type	pointed, @function
pointed:
	mov	number(%rip), %eax
	syscall
	ret
	.size	pointed, .-pointed

	.section .init_array,"aw"
	.quad	personality

	.section .gcc_except_table,"a"
exceptions:
	.byte	0xff, 0xff, 1
	.uleb128 2f-1f
1:	.uleb128 0
	.uleb128 8
	.uleb128 .Lpad-choose
	.uleb128 0
2:
	.section .rodata
	.balign 16
numbers:
	.long	1, 2, 3, 4
jumps:
	.long	.Lcase0-jumps, .Lcase1-jumps, .Lcase2-jumps, .Lend-jumps
path:	.asciz	"/bin/true"
name:	.asciz	"libx.so"
	.data
	.balign 16
table:
	.quad	wrapper, pointed, choose, path
	.globl	number
	.type	number, @object
	.size	number, 4
number:	.long	12
	.balign 8
personality_slot:
	.quad	personality
	.section .tdata,"awT"
	.quad	5
	.section .tbss,"awT",@nobits
	.zero	8
	.section .bss
	.zero	64
	.section .note.GNU-stack,"",@progbits
