/* One part of the program has no notes, and calls. */
#include "calls.h"

static int first(int a) { return call(GETPID, 0, 0, 0, 0); }
static int second(char *text) { return call(GETPPID, 0, 0, 0, 0); }
int (*table_one)(int) = first;
int (*table_two)(char *) = second;
int other(void);

int start(void) { return other() < 0; }
