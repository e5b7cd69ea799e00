/*
 * Things put in order by a number: page numbers of a commit, which are few bytes apart.  What is moved is the number and where
 * its thing is; each byte in which the numbers differ is one pass without a comparison, so there is nothing to guess wrong.
 */
#ifndef ORDER_H
#define ORDER_H

#include <stddef.h>
#include <stdint.h>

struct order_key {
	uint64_t number;
	size_t place; /* the caller's */
};

/* Ascending, equal numbers as they came.  room: for as many more. */
void order_keys(struct order_key *keys, struct order_key *room, size_t count);

#endif
