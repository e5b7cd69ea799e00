/*
 * crc32c: known answers, and the fast and the portable way against one bit at a time.
 */
#include "crc32c.h"
#include "rng.h"

#include "cmocka.h"

static uint64_t seed;

static uint32_t reference(uint32_t crc, const uint8_t *p, size_t size)
{
	crc = ~crc;
	for (; size > 0; p++, size--) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void known_answers(void **state)
{
	uint8_t block[32];

	(void)state;
	assert_int_equal(crc32c(0, "", 0), 0);
	assert_int_equal(crc32c(0, NULL, 0), 0);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	/* RFC 3720, B.4 */
	memset(block, 0, sizeof(block));
	assert_int_equal(crc32c(0, block, 32), 0x8a9136aa);
	memset(block, 0xff, sizeof(block));
	assert_int_equal(crc32c(0, block, 32), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		block[i] = (uint8_t)i;
	assert_int_equal(crc32c(0, block, 32), 0x46dd794e);
}

static void lengths_and_alignments(void **state)
{
	static uint8_t data[4096];
	uint32_t expected[8];
	struct rng r;

	(void)state;
	rng_init(&r, seed);
	rng_fill(&r, data, sizeof(data));
	for (size_t at = 0; at < 8; at++) {
		expected[at] = 7;
		for (size_t size = 0; size <= 1100; size++) {
			assert_int_equal(crc32c(7, data + at, size), expected[at]);
			assert_int_equal(crc32c_portable(7, data + at, size), expected[at]);
			expected[at] = reference(expected[at], data + at + size, 1);
		}
	}
}

static void long_input_and_continuation(void **state)
{
	static uint8_t data[70000];
	struct rng r;

	(void)state;
	rng_init(&r, seed + 1);
	rng_fill(&r, data, sizeof(data));
	for (int i = 0; i < 60; i++) {
		size_t at = rng_below(&r, 64);
		size_t size = rng_below(&r, i < 50 ? 9000 : sizeof(data) - 64);
		size_t cut = rng_below(&r, size + 1);
		uint32_t begin = (uint32_t)rng_next(&r);
		uint32_t expected = reference(begin, data + at, size);

		assert_int_equal(crc32c(begin, data + at, size), expected);
		assert_int_equal(crc32c_portable(begin, data + at, size), expected);
		assert_int_equal(
			crc32c(crc32c(begin, data + at, cut), data + at + cut, size - cut), expected);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(lengths_and_alignments),
		cmocka_unit_test(long_input_and_continuation),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
