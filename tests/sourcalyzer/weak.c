/* Another definition takes the place of the weak one, and an alias is a name of the same function. */
#include "calls.h"

__attribute__((weak)) int replaced(int a) { return call(GETUID, 0, 0, 0, 0); }
static int named(char *a) { return call(GETPPID, 0, 0, 0, 0); }
int alias(char *a) __attribute__((alias("named")));
int (*volatile one)(int) = replaced;
int (*volatile two)(char *) = alias;

int start(void) { return one(1) + two("") < 0; }
