/* What the source casts counts as both types; so does what goes through pointers to data, unions and functions
 * without parameter lists. */
#include "calls.h"

struct s { int x; };
union both { int (*one)(struct s *); int (*other)(long, long); };

static int by_cast(struct s *s) { return call(GETPID, 0, 0, 0, 0); }
static int by_data(struct s *s, int a) { return call(GETPPID, 0, 0, 0, 0); }
static int by_number(struct s *s, int a, int b) { return call(GETUID, 0, 0, 0, 0); }
static long by_value(struct s *s, int a, int b, int c) { return call(GETGID, 0, 0, 0, 0); }
static short by_list(long a) { return call(GETEUID, 0, 0, 0, 0); }
static int by_union(struct s *s) { return call(GETEGID, 0, 0, 0, 0); }
static void never(struct s *s, long a) { call(SETSID, 0, 0, 0, 0); }

int (*volatile cast)(void *) = (int (*)(void *))by_cast;
void *volatile data = (void *)by_data;
volatile unsigned long number = (unsigned long)by_number;
long (*volatile value)(struct s *, int, int, int) = by_value;
short (*volatile list)() = by_list;
union both both = {.one = by_union};
void (*volatile kept)(struct s *, long) = never;

int start(void)
{
	long result = cast(0);
	result += ((int (*)(void *, int))data)(0, 0);
	result += ((int (*)(void *, int, int))number)(0, 0, 0);
	result += ((long (*)(void *, int, int, int))value)(0, 0, 0, 0);
	result += list(1L);
	result += both.other(0, 0);
	return result < 0 || !kept;
}
