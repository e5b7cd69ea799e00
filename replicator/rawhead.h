/*
 * What the HTTP library has hidden of a request's head.
 *
 * It takes a bare line feed as the end of a line, joins folded lines, and ends a field's value and the target at a zero byte: three
 * ways in which a proxy in front may see another request than we do.  It does not tell, but it cuts the head into strings where it
 * stands in memory; so in a sound one each string lies exactly where the one before ended, and the last ends with the head.
 *
 * That is so in libmicrohttpd 0.9.75; later ones refuse such heads themselves and may place strings elsewhere.
 */
#ifndef RAWHEAD_H
#define RAWHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAWHEAD_LIBRARY "0.9.75" /* of MHD_get_version: for others nothing is said here */

struct rawhead {
	const char *next; /* where the next name has to be */
	bool odd;
};

/* target_size: of all of the target, as it came; url: where it begins. */
void rawhead_begin(struct rawhead *, const char *url, size_t target_size, const char *version);
void rawhead_field(
	struct rawhead *, const char *name, const char *value, size_t size); /* each, as they came */
/* After the last: is anything between, before or after them that should not be?  head_size: as the library counted. */
bool rawhead_is_odd(const struct rawhead *, const char *method, size_t head_size);

#endif
