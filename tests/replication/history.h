/*
 * A judge that knows no transaction numbers and no engine: clients append items to lists and read whole lists.  In one
 * history every read of a list is a beginning of the longest one, wherever it was read; at one place lists do not get
 * shorter; and what was acknowledged is in the last read of the primary.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#define HISTORY_LISTS 3u
#define HISTORY_ITEMS 512u
#define HISTORY_PLACES 5u

struct history {
	uint32_t items[HISTORY_LISTS][HISTORY_ITEMS]; /* the longest that was seen or acknowledged */
	uint32_t counts[HISTORY_LISTS];
	uint32_t acknowledged[HISTORY_LISTS];	      /* items of it */
	uint32_t seen[HISTORY_PLACES][HISTORY_LISTS]; /* the longest at each place */
};

/* Each returns NULL, or what is wrong. */
const char *history_acknowledge(struct history *, unsigned list, const uint32_t *items, uint32_t count);
const char *history_read(
	struct history *, unsigned place, unsigned list, const uint32_t *items, uint32_t count);
const char *history_last(
	struct history *, unsigned place, unsigned list, const uint32_t *items, uint32_t count);

#endif
