extern int (*table_two)(char *);
extern int (*table_one)(int);
int other(void) { return table_two("") + (table_one ? 1 : 0); }
