# A library with versions, an indirect function, a weak symbol, and system calls.
	.text
	.globl	outside
	.type	outside, @function
outside:
	.cfi_startproc
	mov	$186, %eax
	syscall
	jmp	helper@PLT
	.cfi_endproc
	.size	outside, .-outside
	.globl	old
	.type	old, @function
old:
	.cfi_startproc
	mov	$24, %eax
	syscall
	ret
	.cfi_endproc
	.size	old, .-old
	.symver	old, helper@V1
	.globl	new
	.type	new, @function
new:
	.cfi_startproc
	mov	%edi, %eax
	syscall
	ret
	.cfi_endproc
	.size	new, .-new
	.symver	new, helper@@V2
	.globl	chosen
	.type	chosen, @gnu_indirect_function
chosen:
	.cfi_startproc
	lea	old(%rip), %rax
	ret
	.cfi_endproc
	.size	chosen, .-chosen
	.weak	dlopen
	.data
	.globl	inside
	.type	inside, @object
	.size	inside, 16
inside:	.quad	old, dlopen
	.section .note.GNU-stack,"",@progbits
