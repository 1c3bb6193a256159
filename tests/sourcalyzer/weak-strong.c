static inline long pid(void) { long r; __asm__ volatile("syscall" : "=a"(r) : "a"(39L) : "rcx", "r11", "memory"); return r; }
int replaced(int a) { return pid(); }
