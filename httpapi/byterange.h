/* Which part of a value a Range header asks for (RFC 9110, 14). */
#ifndef HTTPAPI_BYTERANGE_H
#define HTTPAPI_BYTERANGE_H

#include <stdint.h>

enum byterange {
	BYTERANGE_ALL, /* no header, not one of bytes, malformed, or more than one range: to be passed over */
	BYTERANGE_PART, /* *from and *count are set, *count is not 0 */
	BYTERANGE_NONE, /* it does not touch the value: 416 */
};

/* text NULL: no header. */
enum byterange byterange_parse(const char *text, uint64_t size, uint64_t *from, uint64_t *count);
#endif
