// Virtual functions, a function template and a lambda, each called by address.
extern "C" {
#include "calls.h"
}

struct base { virtual int run(int) = 0; };
struct derived : base { int run(int value) override { return call(GETPID, value, 0, 0, 0); } };
template <typename T> static int made(T value) { return call(GETPPID, long(value), 0, 0, 0); }
static int not_called(char *) { return call(GETUID, 0, 0, 0, 0); }
extern "C" void __cxa_pure_virtual() {}

derived object;
base *volatile pointer = &object;
int (*volatile instance)(long) = made<long>;
int (*volatile lambda)(short) = [](short value) { return int(call(GETGID, value, 0, 0, 0)); };
int (derived::*volatile member)(int) = &derived::run;
int (*volatile kept)(char *) = not_called;

extern "C" int start()
{
	return pointer->run(1) + instance(2) + lambda(3) + (object.*member)(4) < 0 || !kept;
}
