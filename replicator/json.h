/* A text as a JSON string. */
#ifndef JSON_H
#define JSON_H

#include <stdio.h>

/* Quotes and all.  What is not ASCII may be anything, as peers said it: each byte becomes the character of that number. */
void json_string(FILE *out, const char *text);

#endif
