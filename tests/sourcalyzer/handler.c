/* The kernel calls handlers of signals. */
#include "calls.h"

struct action { void (*handler)(int); unsigned long flags; void (*restorer)(void); unsigned long mask; };

void restore(void);
__asm__("restore:\n\tmov $15, %eax\n\tsyscall\n\tud2\n");

static void on_signal(int signal) { call(GETPPID, 0, 0, 0, 0); }
static void not_called(long a, long b) { call(GETUID, 0, 0, 0, 0); }
void (*volatile kept)(long, long) = not_called;

int start(void)
{
	struct action action = {on_signal, 0x04000000, restore, 0};
	if (call(13, 10, (long)&action, 0, 8)) return 1;
	call(62, call(GETPID, 0, 0, 0, 0), 10, 0, 0);
	return !kept;
}
