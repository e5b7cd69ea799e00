/* The sources a follower may ask, in order of preference, and which one it asks now.  Pure. */
#ifndef SOURCES_H
#define SOURCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fail.h"

#define SOURCES_URL_MAX 255
#define SOURCES_PLACE_MAX 1023
#define SOURCES_MAX 16

struct sources {
	char urls[SOURCES_MAX][SOURCES_URL_MAX + 1]; /* without a slash at the end */
	size_t count, current;
	uint32_t refused; /* a bit for each that said it never will, since one answered */
};

/* "http://HOST:PORT,http://HOST:PORT,...".  BTS_INVALID names what is wrong; then *sources is as it was. */
BTS_MUST_CHECK enum bts_err sources_parse(struct sources *sources, const char *list, struct bts_error *error);
/* Whether text can be where clients are sent, or find this node: http or https, a host, a port if any, a path if any; nobody's password. */
bool sources_is_url(const char *text);
const char *sources_current(const struct sources *); /* borrowed */
void sources_next(struct sources *);
/*
 * The current one refuses for ever: go to the next.  false: so has each of them, there is nobody left to ask.  One that only
 * cannot be reached has not.
 */
bool sources_refused(struct sources *);
void sources_answered(struct sources *);

#endif
