/*
 * Repeatable random numbers for tests: xoshiro256** (Blackman and Vigna 2018), seeded by splitmix64.
 *
 * A random test calls rng_seed_from(argc, argv) first: it takes the seed from argv[1], else from BTS_SEED in
 * the environment, else fallback, and prints it, so that a failure can be run again.
 */
#ifndef SUPPORT_RNG_H
#define SUPPORT_RNG_H

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct rng {
	uint64_t s[4];
};

static inline uint64_t rng_splitmix(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static inline void rng_init(struct rng *r, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		r->s[i] = rng_splitmix(&seed);
}

static inline uint64_t rng_rotate(uint64_t v, int bits)
{
	return v << bits | v >> (64 - bits);
}

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t result = rng_rotate(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;

	r->s[2] ^= r->s[0];
	r->s[3] ^= r->s[1];
	r->s[1] ^= r->s[2];
	r->s[0] ^= r->s[3];
	r->s[2] ^= t;
	r->s[3] = rng_rotate(r->s[3], 45);
	return result;
}

/* Uniform in [0, limit); limit > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t limit)
{
	return (uint64_t)((unsigned __int128)rng_next(r) * limit >> 64);
}

/* True once in n times. */
static inline int rng_one_in(struct rng *r, uint64_t n)
{
	return rng_below(r, n) == 0;
}

static inline void rng_fill(struct rng *r, void *data, size_t size)
{
	uint8_t *p = data;

	for (; size > 0; size--)
		*p++ = (uint8_t)(rng_next(r) >> 56);
}

static inline uint64_t rng_seed_from(int argc, char **argv, uint64_t fallback)
{
	const char *text = argc > 1 ? argv[1] : getenv("BTS_SEED");
	uint64_t seed = text && *text ? strtoull(text, NULL, 0) : fallback;

	printf("seed %" PRIu64 " (again: %s %" PRIu64 ")\n", seed, argc > 0 ? argv[0] : "test", seed);
	return seed;
}

#endif
