/* The other files of flows.c. */
#if defined WITHOUT_LIST
static inline long pid(void) { long r; __asm__ volatile("syscall" : "=a"(r) : "a"(110L) : "rcx", "r11", "memory"); return r; }
static int listed(long a) { return pid() < 0; }
int (*elsewhere)(long) = listed;
#elif defined WITHOUT_DECLARATION
struct b;
int use(int (*run)(struct b *)) { int (*volatile now)(struct b *) = run; return now(0); }
#elif defined ARRAYS
extern int (*elsewhere)(int (*)[]);
int use(void) { int (*volatile now)(int (*)[]) = elsewhere; return now(0); }
#elif defined RETPOLINE
struct a;
extern int (*volatile elsewhere)(struct a *);
int use(void) { return elsewhere(0); }
#endif
