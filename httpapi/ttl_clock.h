/*
 * The clock that times to live are judged by: what CLOCK_REALTIME says, except that it never goes back.
 *
 * After the machine's clock was set back it goes on at half the rate until that has caught up, so a key that was
 * seen expired is never seen again, and what is set meanwhile lives at most twice as long as it should.  A step forward
 * is obeyed at once.  A process that starts anew begins at what the machine's clock says.
 */
#ifndef HTTPAPI_TTL_CLOCK_H
#define HTTPAPI_TTL_CLOCK_H

#include <stdint.h>

struct ttl_clock {
	uint64_t now_ns, real_ns, boot_ns; /* at the last reading; all 0 before the first */
	int64_t stepped_ns; /* what the machine's clock was set on or back by, in all that was not told yet */
};

/* Takes a reading of the machine's two clocks; returns the time, nanoseconds since 1970. */
uint64_t ttl_clock_read(struct ttl_clock *, uint64_t real_ns, uint64_t boot_ns);
/* How far the machine's clock was set since the last call, in milliseconds; 0 when by less than a second. */
int64_t ttl_clock_stepped(struct ttl_clock *);

/* The process's own, by the machine's clocks.  Any thread. */
uint64_t ttl_now_ms(void);
int64_t ttl_stepped_ms(void);
#endif
