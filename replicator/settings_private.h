/* What the files of settings share. */
#ifndef SETTINGS_PRIVATE_H
#define SETTINGS_PRIVATE_H

#include "settings.h"

/* The row of that name (of size bytes); NULL when there is none. */
const struct settings_row *settings_find(const struct settings *, const char *name, size_t size);
/* The variable that stands for a setting. */
#define SETTINGS_VARIABLE_SIZE 80
void settings_variable(const char *name, char out[SETTINGS_VARIABLE_SIZE]);

/* The text into the row's field.  0, or -1 with what would be right in why. */
int settings_value_parse(const struct settings_row *, const char *text, void *target, char *why, size_t size);
/* The i-th of words, "a|b|c"; its size, 0 when there is none. */
size_t settings_word(const char *words, unsigned i, const char **word);

/* The file's texts into given.  0, or -1 with why. */
int settings_file_read(struct settings *);
#endif
