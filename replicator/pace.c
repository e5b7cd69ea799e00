/* A rate over all streams: see pace.h. */
#include "pace.h"

#define PACE_SHARE 10 /* the burst is one part in so many of a second's bytes */

uint64_t pace_burst(const struct pace *pace)
{
	uint64_t burst = pace->rate / PACE_SHARE;

	return burst > PACE_LEAST ? burst : PACE_LEAST;
}

void pace_init(struct pace *pace, uint64_t rate, uint64_t now_ms)
{
	pace->rate = rate;
	pace->kept = pace_burst(pace) * 1000;
	pace->at_ms = now_ms;
}

static void pace_fill(struct pace *pace, uint64_t now_ms)
{
	uint64_t most = pace_burst(pace) * 1000, passed = now_ms > pace->at_ms ? now_ms - pace->at_ms : 0;

	/* Full after a second at the latest; and products stay small. */
	pace->kept += (passed < 1000 ? passed : 1000) * pace->rate;
	if (pace->kept > most)
		pace->kept = most;
	pace->at_ms = now_ms;
}

size_t pace_take(struct pace *pace, size_t wanted, uint64_t now_ms)
{
	uint64_t least = wanted < PACE_LEAST ? wanted : PACE_LEAST;

	if (!pace->rate)
		return wanted;
	pace_fill(pace, now_ms);
	if (pace->kept < least * 1000)
		return 0;
	if (wanted > pace->kept / 1000)
		wanted = (size_t)(pace->kept / 1000);
	pace->kept -= (uint64_t)wanted * 1000;
	return wanted;
}

void pace_return(struct pace *pace, size_t bytes)
{
	if (pace->rate)
		pace->kept += (uint64_t)bytes * 1000;
}

uint64_t pace_due(const struct pace *pace)
{
	uint64_t least = (uint64_t)PACE_LEAST * 1000;

	if (!pace->rate || pace->kept >= least)
		return pace->at_ms;
	return pace->at_ms + (least - pace->kept + pace->rate - 1) / pace->rate;
}
