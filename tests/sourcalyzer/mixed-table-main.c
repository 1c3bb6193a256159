#include "calls.h"

extern int (*table[1])(int);
int hidden(char *a, char *b) { return call(GETPPID, 0, 0, 0, 0); }
int start(void) { return table[0](1) < 0; }
