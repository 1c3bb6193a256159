/* Nobody sees this cast: the part that calls has notes, this one has none. */
extern int hidden(char *, char *);
void *table[1] = {(void *)hidden};
