# Go's function table (of Go 1.20 and later) with two functions, one of which enters the kernel, and a type with a
# method.
	.text
	.globl	_start
_start:	mov	$60, %eax
	syscall
	.balign 32
first:	mov	8(%rsp), %rax
	syscall
	ret
	.balign 32
second:	lea	type(%rip), %rax
	movq	$39, (%rsp)
	call	first
	ret
	.balign 32
end:
	.section .gopclntab,"a"
	.balign 32
table:	.quad	0x08010000fffffff1
names:	.asciz	"a.first"
second_name:
	.asciz	"a.second"
	.balign 16
index:	.long	first-first, d1-index
	.long	second-first, d2-index
	.long	end-first
d1:	.long	0, 0, 8, 0, 9, 0, 0, 0, 0, 0, 0, 0
d2:	.long	second-first, second_name-names, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0
	.balign 16
table_end:
	.section .rodata
	.balign 16
type:	.quad	8, 0
	.long	1
	.byte	1, 8, 8, 2
	.zero	24
	.long	0
	.short	1, 1
	.long	16, 0
	.long	0, 0, second-first, second-first
	.data
	.balign 16
module:	.quad	table
	.quad	names, 32, 32
	.quad	0, 0, 0, 0, 0, 0, 0, 0, 0
	.quad	index, table_end-index, table_end-index
	.quad	index, 3, 3
	.quad	0, first, end, first, end
	.section .note.GNU-stack,"",@progbits
