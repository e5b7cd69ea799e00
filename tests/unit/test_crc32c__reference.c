/*
 * crc32c: known answers, and the fast and the portable way against one bit at a time; joining sums.
 */
#include "bytes.h"
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

/* The sum of two pieces from theirs: of every short length, and of some that no buffer has. */
static void joined(void **state)
{
	static uint8_t data[70000];
	struct rng r;

	(void)state;
	rng_init(&r, seed + 2);
	rng_fill(&r, data, sizeof(data));
	for (size_t size = 0; size <= 300; size++) {
		size_t before = rng_below(&r, 5000);
		uint32_t begin = (uint32_t)rng_next(&r), a = crc32c(begin, data, before);
		uint32_t b = crc32c(0, data + before, size), expected = reference(a, data + before, size);

		assert_int_equal(crc32c_join(a, b, crc32c_shift(size)), expected);
		assert_int_equal(crc32c_join_portable(a, b, crc32c_shift(size)), expected);
	}
	for (int i = 0; i < 300; i++) {
		size_t size = rng_below(&r, sizeof(data) + 1), cut = rng_below(&r, size + 1);
		uint32_t begin = (uint32_t)rng_next(&r), a = crc32c(begin, data, cut);
		uint32_t b = crc32c(0, data + cut, size - cut), expected = crc32c_portable(begin, data, size);

		assert_int_equal(crc32c_join(a, b, crc32c_shift(size - cut)), expected);
		assert_int_equal(crc32c_join_portable(a, b, crc32c_shift(size - cut)), expected);
	}
	for (int i = 0; i < 1000; i++) { /* zero bytes behind x, in one step and in two */
		uint64_t first = rng_next(&r) >> rng_below(&r, 63), second = rng_next(&r) >> (1 + rng_below(&r, 62));
		uint32_t x = (uint32_t)rng_next(&r), both;

		first >>= 1;
		both = crc32c_join(crc32c_join(x, 0, crc32c_shift(first)), 0, crc32c_shift(second));
		assert_int_equal(crc32c_join(x, 0, crc32c_shift(first + second)), both);
		assert_int_equal(crc32c_join_portable(x, 0, crc32c_shift(first + second)), both);
	}
}

/* A run of pages, each begun by the sum of what follows in it (commit_manifest): from these words alone. */
static void joined_pages(void **state)
{
	static uint8_t data[4 * 65536];
	struct rng r;

	(void)state;
	rng_init(&r, seed + 3);
	rng_fill(&r, data, sizeof(data));
	for (uint32_t page_size = 4096; page_size <= 65536; page_size *= 2) {
		uint32_t crc = 0;

		for (uint8_t *page = data; page < data + 4 * page_size; page += page_size) {
			bytes_put_u32(page, crc32c(0, page + 4, page_size - 4));
			crc = crc32c_join(crc32c(crc, page, 4), bytes_get_u32(page), crc32c_shift(page_size - 4));
		}
		assert_int_equal(crc, crc32c(0, data, 4 * page_size));
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(lengths_and_alignments),
		cmocka_unit_test(long_input_and_continuation),
		cmocka_unit_test(joined),
		cmocka_unit_test(joined_pages),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
