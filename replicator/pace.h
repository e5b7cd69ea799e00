/*
 * How much may be sent now, so that all streams together stay below a rate: a bucket of bytes that fills with time.  No clock of its own.
 *
 * In any span of t milliseconds at most t * rate / 1000 + pace_burst bytes are granted.
 */
#ifndef PACE_H
#define PACE_H

#include <stddef.h>
#include <stdint.h>

#define PACE_RATE_LEAST 65536 /* as FOLLOW_RATE_LEAST: a follower would take less for a dead source */
#define PACE_LEAST 16384      /* not granted in smaller pieces, but for the last of what is wanted */

struct pace {
	uint64_t rate; /* bytes a second, 0: all is granted */
	uint64_t kept; /* bytes that may be sent at once, times 1000 */
	uint64_t at_ms;
};

void pace_init(struct pace *, uint64_t rate, uint64_t now_ms);
/* The most that is granted at once after a rest. */
uint64_t pace_burst(const struct pace *);
/* How many of so many bytes may be sent now; 0: none before pace_due. */
size_t pace_take(struct pace *, size_t wanted, uint64_t now_ms);
/* What was granted and not sent after all. */
void pace_return(struct pace *, size_t bytes);
/* The instant from which PACE_LEAST bytes would be granted. */
uint64_t pace_due(const struct pace *);

#endif
