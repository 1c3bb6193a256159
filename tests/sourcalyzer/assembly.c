/* Assembly calls what it is given: its callers say of which type that is. */
#include "calls.h"

int enter(int (*function)(char *), char *argument);
__asm__(".globl enter\n.type enter, @function\nenter:\n\tmov %rdi, %rax\n\tmov %rsi, %rdi\n\tpush %rbp\n\tcall *%rax\n\tpop %rbp\n\tret\n");

static int given(char *text) { return call(GETPID, 0, 0, 0, 0); }
static int not_called(long a, long b) { return call(GETUID, 0, 0, 0, 0); }
int (*volatile kept)(long, long) = not_called;

int start(void) { return enter(given, 0) < 0 || !kept; }
