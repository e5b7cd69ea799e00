/*
 * SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, and
 * its 128-bit variant).  A keyed hash over bytes that come in pieces.
 */
#ifndef SIPHASH_H
#define SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_KEY 16 /* bytes */
#define SIPHASH_OUT 16 /* bytes */

/* Caller's memory; holds no resources. */
struct siphash {
	uint64_t v[4];
	uint64_t total;	 /* bytes taken */
	uint8_t tail[8]; /* of these, the last total % 8 not yet mixed in */
};

void siphash_init(struct siphash *, const uint8_t key[SIPHASH_KEY]);
void siphash_update(struct siphash *, const void *data, size_t size);
/* Ends the computation; start again with siphash_init. */
void siphash_final(struct siphash *, uint8_t out[SIPHASH_OUT]);

/* All in one call. */
void siphash128(const uint8_t key[SIPHASH_KEY], const void *data, size_t size, uint8_t out[SIPHASH_OUT]);

#endif
