# The program of the golden texts: direct calls, a jump, a function behind a pointer in data, calls that are not reached.
	.text
	.globl	_start
	.type	_start, @function
_start:
	.cfi_startproc
	call	outer
	call	*table(%rip)
	xor	%edi,%edi
	mov	$231,%eax
	syscall
	.cfi_endproc
	.size	_start, .-_start

	.type	outer, @function
outer:
	.cfi_startproc
	call	middle
	ret
	.cfi_endproc
	.size	outer, .-outer

	.type	middle, @function
middle:
	.cfi_startproc
	jmp	inner
	.cfi_endproc
	.size	middle, .-middle

	.type	inner, @function
inner:
	.cfi_startproc
	mov	$110,%eax
	syscall
	ret
	.cfi_endproc
	.size	inner, .-inner

	.type	pointed, @function
pointed:
	.cfi_startproc
	mov	$39,%eax
	syscall
	ret
	.cfi_endproc
	.size	pointed, .-pointed

	.type	unused, @function
unused:
	.cfi_startproc
	mov	$59,%eax
	syscall
	ret
	.cfi_endproc
	.size	unused, .-unused

	.type	forgotten, @function
forgotten:
	.cfi_startproc
	call	hidden
	ret
	.cfi_endproc
	.size	forgotten, .-forgotten

	.type	hidden, @function
hidden:
	.cfi_startproc
	mov	$101,%eax
	syscall
	ret
	.cfi_endproc
	.size	hidden, .-hidden

	.data
	.type	table, @object
table:
	.quad	pointed
	.size	table, .-table
	.section .note.GNU-stack,"",@progbits
