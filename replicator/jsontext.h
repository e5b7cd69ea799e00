/* A text as a JSON string.  Not json_...: such names are the JSON library's, and would take the place of its own within a program. */
#ifndef JSONTEXT_H
#define JSONTEXT_H

#include <stdio.h>

/* Quotes and all.  What is not ASCII may be anything, as peers said it: each byte becomes the character of that number. */
void jsontext_string(FILE *out, const char *text);

#endif
