/* Ways of a function to a call of another type, one a macro; all make getppid. `never` is taken and not called. */
#include <stdarg.h>
#include "calls.h"

struct a;
struct b;
static int by_a(struct a *a) { return call(GETPPID, 0, 0, 0, 0) < 0; }
static long never(short a, short b, short c) { return call(SETSID, 0, 0, 0, 0); }
long (*volatile kept)(short, short, short) = never;

#if defined STRUCT_CAST
struct base { struct base_calls { long tag; int (*run)(struct base *); } *calls; };
struct derived { struct derived_calls { long tag; int (*run)(struct derived *); } *calls; int more; };
static int run(struct derived *derived) { return by_a(0); }
static struct derived_calls calls = {1, run};
struct derived object = {&calls, 2};
int use(struct base *base) { return base->calls->run(base); }
static int begin(void) { return use((struct base *)&object); }

#elif defined TABLE_CAST
struct from { long tag; int (*run)(struct a *); } from = {1, by_a};
struct to { long tag; int (*run)(struct b *); } *volatile to = (struct to *)&from;
static int begin(void) { return to->run(0); }

#elif defined MEMBER
/* Clang knows the type of the member only behind the struct: `{}*`. */
struct node { int (*run)(struct node *, struct b *); };
int early(struct node *node, struct b *b) { return 1; }
static int run(struct node *node, struct a *a) { return by_a(a); }
struct node node;
static int begin(void)
{
	struct node *volatile now = &node;
	node.run = (int (*)(struct node *, struct b *))run;
	return now->run(now, 0);
}

#elif defined UNION_WITH_DATA
union { void *data; int (*run)(struct a *); } volatile both;
static int begin(void) { both.run = by_a; return ((int (*)(long, long))both.data)(1, 2); }

#elif defined UNION_OF_STRUCTS
union both { struct { long tag; int (*run)(struct a *); } one; struct { long tag; int (*run)(long, long); } other; };
union both both = {.one = {1, by_a}};
static int begin(void) { union both *volatile now = &both; return now->other.run(1, 2); }

#elif defined VARIADIC
static int (*run)(struct b *);
__attribute__((noinline)) void set(int option, ...)
{
	va_list list;
	va_start(list, option);
	run = va_arg(list, int (*)(struct b *));
	va_end(list);
}
static int begin(void) { set(1, by_a); return run(0); }

#elif defined LAUNDERED
static int begin(void)
{
	int (*from)(struct a *) = by_a;
	int (*to)(long);
	__asm__ volatile("" : "=r"(to) : "0"(from));
	return to(1);
}

#elif defined MACRO
__asm__(".macro invoke reg\n\tpush %rbx\n\tcall *\\reg\n\tpop %rbx\n.endm\n");
int (*volatile run)(struct a *) = by_a;
__attribute__((noinline)) int other(int x) { __asm__ volatile(""); return x; }
static int begin(void)
{
	int result;
	void *function = *(void *volatile *)&run;
	other(1);
	__asm__ volatile("sub $256, %%rsp; invoke %1; add $256, %%rsp" : "=a"(result) : "r"(function)
		: "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "memory");
	return other(result);
}

#elif defined NAME_IN_ASSEMBLY
__asm__(".globl also\n.set also, by_a\n");
int also(struct b *b);
int (*volatile one)(struct a *);
int (*volatile other)(struct b *);
static int begin(void) { one = by_a; other = also; return other(0); }

#elif defined ADDRESS_IN_ASSEMBLY
int (*volatile one)(struct a *);
static int begin(void)
{
	int (*other)(long, long);
	one = by_a;
	__asm__("lea by_a(%%rip), %0" : "=r"(other));
	return other(1, 2);
}

#elif defined STACK_SWITCH
void enter(void **from, void *to);
__asm__(".globl enter\n.type enter, @function\nenter:\n\tpush %rbx\n\tpush %rbp\n\tmov %rsp, (%rdi)\n\tmov %rsi, %rsp\n"
	"\tpop %rbp\n\tpop %rbx\n\tret\n");
static void *stack[1024], *mine, *its;
static void body(void) { by_a(0); enter(&its, mine); }
static int begin(void) { stack[1000] = (void *)body; its = &stack[998]; enter(&mine, its); return 0; }

#elif defined PUSHED
int enter(void *function);
__asm__(".globl enter\n.type enter, @function\nenter:\n\tpush %rdi\n\tret\n");
static int begin(void) { return enter((void *)by_a); }

#elif defined CONTEXT
struct context { void *stack, *entry; } context;
void load(struct context *);
__asm__(".globl load\n.type load, @function\nload:\n\tmov (%rdi), %rsp\n\tjmp *8(%rdi)\n");
static void *stack[1024];
static void body(void) { call(60, by_a(0), 0, 0, 0); }
static int begin(void) { context.stack = &stack[1001]; context.entry = (void *)body; load(&context); return 1; }

#elif defined WITHOUT_LIST
/* The other file has it with a list of parameters, and assembly calls it. */
extern int (*elsewhere)();
int enter(int (*function)());
__asm__(".type enter, @function\nenter:\n\tpush %rbp\n\tcall *%rdi\n\tpop %rbp\n\tret\n");
static int begin(void) { return enter(elsewhere); }

#elif defined WITHOUT_DECLARATION
static int begin(void) { return use(by_a); }

#elif defined ARRAYS
/* The other file has an array without a length. */
static int sized(int (*array)[3]) { return by_a(0); }
int (*elsewhere)(int (*)[3]) = sized;
int use(void);
static int begin(void) { return use(); }

#elif defined FOLDED
/* The linker keeps one of two functions with the same code. */
int one(struct a *a) { return call(GETPPID, 0, 0, 0, 0) < 0; }
int two(struct b *b) { return call(GETPPID, 0, 0, 0, 0) < 0; }
int (*volatile keeps)(struct a *);
int (*volatile calls)(struct b *);
static int begin(void) { keeps = one; calls = two; return calls(0); }

#elif defined FOLDED_CALLERS
/* The linker keeps one of two functions that call by types that look alike. */
struct a { int (*run)(struct a *); };
struct b { int (*run)(struct b *); };
static int run(struct b *b) { return by_a(0); }
__attribute__((noinline)) int call_a(struct a *a) { return a->run(a); }
__attribute__((noinline)) int call_b(struct b *b) { return b->run(b); }
struct a *volatile a;
struct b b = {run}, *volatile pointer = &b;
static int begin(void) { return a ? call_a(a) : call_b(pointer); }

#elif defined RETPOLINE
/* The other file has no notes, and calls by returning. */
int (*volatile elsewhere)(struct a *) = by_a;
int use(void);
static int begin(void) { return use(); }
#endif

int start(void) { return begin() + !kept; }
