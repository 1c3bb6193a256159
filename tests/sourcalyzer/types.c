/* Functions in tables are called through their own types only. */
#include "calls.h"

struct one { int (*run)(struct one *, int); };
struct two { int (*run)(struct two *, int); };

static int called(struct one *self, int value) { return call(GETPID, 0, 0, 0, 0) + value; }
static int not_called(struct two *self, int value) { return call(GETPPID, 0, 0, 0, 0) + value; }
static long taken_only(char *text) { return call(GETUID, 0, 0, 0, 0); }

struct one first = {called};
struct two second = {not_called};
long (*volatile kept)(char *) = taken_only;
void *volatile anywhere;

int start(void)
{
	anywhere = &second;
	if (!kept) return 1;
	return first.run(&first, 1) < 0;
}
