/*
 * SipHash-2-4-128: two rounds a word of eight bytes, four rounds to finish each half of the output.
 */
#include "siphash.h"

#include "bytes.h"

#include <string.h>

static inline uint64_t siphash_rotate(uint64_t v, unsigned bits)
{
	return v << bits | v >> (64 - bits);
}

static inline void siphash_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = siphash_rotate(v[1], 13) ^ v[0];
	v[3] = siphash_rotate(v[3], 16) ^ v[2];
	v[0] = siphash_rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = siphash_rotate(v[1], 17) ^ v[2];
	v[3] = siphash_rotate(v[3], 21) ^ v[0];
	v[2] = siphash_rotate(v[2], 32);
}

static inline void siphash_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	siphash_round(v);
	siphash_round(v);
	v[0] ^= word;
}

void siphash_init(struct siphash *s, const uint8_t key[SIPHASH_KEY])
{
	uint64_t k0 = bytes_get_u64(key), k1 = bytes_get_u64(key + 8);

	/* The constants spell "somepseudorandomlygeneratedbytes"; 0xee marks the 128-bit variant. */
	s->v[0] = k0 ^ UINT64_C(0x736f6d6570736575);
	s->v[1] = k1 ^ UINT64_C(0x646f72616e646f6d) ^ 0xee;
	s->v[2] = k0 ^ UINT64_C(0x6c7967656e657261);
	s->v[3] = k1 ^ UINT64_C(0x7465646279746573);
	s->total = 0;
	memset(s->tail, 0, sizeof(s->tail));
}

void siphash_update(struct siphash *s, const void *data, size_t size)
{
	const uint8_t *p = data;
	size_t held = s->total % 8;

	if (size == 0)
		return;
	s->total += size;
	if (held > 0) {
		size_t take = size < 8 - held ? size : 8 - held;

		memcpy(s->tail + held, p, take);
		if (held + take < 8)
			return;
		siphash_word(s->v, bytes_get_u64(s->tail));
		p += take;
		size -= take;
	}
	for (; size >= 8; p += 8, size -= 8)
		siphash_word(s->v, bytes_get_u64(p));
	memcpy(s->tail, p, size);
}

void siphash_final(struct siphash *s, uint8_t out[SIPHASH_OUT])
{
	memset(s->tail + s->total % 8, 0, 8 - s->total % 8);
	siphash_word(s->v, bytes_get_u64(s->tail) | s->total << 56);
	s->v[2] ^= 0xee;
	for (int i = 0; i < 4; i++)
		siphash_round(s->v);
	bytes_put_u64(out, s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3]);
	s->v[1] ^= 0xdd;
	for (int i = 0; i < 4; i++)
		siphash_round(s->v);
	bytes_put_u64(out + 8, s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3]);
}

void siphash128(const uint8_t key[SIPHASH_KEY], const void *data, size_t size, uint8_t out[SIPHASH_OUT])
{
	struct siphash s;

	siphash_init(&s, key);
	siphash_update(&s, data, size);
	siphash_final(&s, out);
}
