/* Points in time as a person writes and reads them. */
#ifndef WHEN_H
#define WHEN_H

#include <stdbool.h>
#include <stdint.h>

#define WHEN_TEXT_SIZE 32

/* RFC 3339, in UTC, to the millisecond.  What lies beyond the year 9999 is "-". */
void when_text(uint64_t ms, char out[WHEN_TEXT_SIZE]);
/* RFC 3339 with its offset, or so long before now: 90s, 2h, 3d.  False: neither; out untouched. */
bool when_parse(const char *text, uint64_t now_ms, uint64_t *ms);
uint64_t when_now(void); /* milliseconds since 1970 */

#endif
