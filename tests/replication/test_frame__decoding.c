/* Frames survive any split, and nothing damaged or cut short passes for a frame. */
#include "cmocka.h"

#include <stdlib.h>

#include "frame_build.h"

static void round_trip(void **state)
{
	struct frame_result result;
	struct frame_bytes bytes;

	(void)state;
	frame_build(&bytes, 600);
	assert_int_equal(bytes.chunks, 4);
	assert_int_equal(frame_take_apart(bytes.data, bytes.size, bytes.size, bytes.size, &result), BTS_OK);
	assert_int_equal(result.headers, 1);
	assert_int_equal(result.pieces, 5);
	assert_int_equal(result.pages, 602);
	assert_int_equal(result.ends, 1);
	free(bytes.data);
}

static void every_split(void **state)
{
	struct frame_result whole, parts;
	struct frame_bytes bytes;
	size_t at;

	(void)state;
	frame_build(&bytes, 2);
	assert_int_equal(frame_take_apart(bytes.data, bytes.size, bytes.size, bytes.size, &whole), BTS_OK);
	for (at = 1; at < bytes.size; at++) {
		assert_int_equal(frame_take_apart(bytes.data, bytes.size, at, bytes.size, &parts), BTS_OK);
		assert_true(parts.sum == whole.sum);
	}
	for (at = 1; at < 70; at++) {
		assert_int_equal(frame_take_apart(bytes.data, bytes.size, at, at, &parts), BTS_OK);
		assert_true(parts.sum == whole.sum);
	}
	free(bytes.data);
}

static void cut_short_anywhere(void **state)
{
	struct frame_result result;
	struct frame_bytes bytes;
	size_t size;

	(void)state;
	frame_build(&bytes, 2);
	for (size = 0; size < bytes.size; size++) {
		assert_int_equal(frame_take_apart(bytes.data, size, size, size, &result), BTS_CORRUPT);
		assert_int_equal(result.ends, 0);
		assert_non_null(strstr(result.error.text, "cut short"));
	}
	free(bytes.data);
}

static void every_bit_flipped(void **state)
{
	struct frame_result result;
	struct frame_bytes bytes;
	size_t at;
	int bit;

	(void)state;
	frame_build(&bytes, 1);
	for (at = 0; at < bytes.size; at++) {
		for (bit = 0; bit < 8; bit++) {
			/* All bits of what is not a page; pages are bytes of one sum: one bit each will do.
			 */
			if (at > bytes.index_at[0] + bytes.index_size[0] && at + 600 < bytes.size &&
				bit != (int)(at & 7))
				continue;
			bytes.data[at] ^= (uint8_t)(1 << bit);
			if (frame_take_apart(bytes.data, bytes.size, bytes.size, bytes.size, &result) ==
				BTS_OK)
				fail_msg("bit %d of byte %zu went unnoticed", bit, at);
			assert_int_equal(result.ends, 0);
			assert_true(result.error.text[0] != '\0');
			/* Nothing of a damaged chunk is given out. */
			if (at < bytes.index_at[1])
				assert_int_equal(result.pieces, 0);
			bytes.data[at] ^= (uint8_t)(1 << bit);
		}
	}
	free(bytes.data);
}

static void bytes_after_the_end(void **state)
{
	struct frame_result result;
	struct frame_bytes bytes;

	(void)state;
	frame_build(&bytes, 1);
	assert_int_equal(frame_take_apart(bytes.data, bytes.size + 1, bytes.size, 1, &result), BTS_CORRUPT);
	assert_int_equal(result.ends, 1);
	free(bytes.data);
}

static void of_another_database(void **state)
{
	struct frame_result result;
	struct frame_bytes bytes;

	(void)state;
	frame_build(&bytes, 1);
	/* A header that names another database, with a right sum: the digest, keyed by the id, tells at the
	 * end. */
	bytes.data[16] ^= 1;
	frame_reseal(&bytes, 0, FRAME_HEADER_SIZE);
	assert_int_equal(
		frame_take_apart(bytes.data, bytes.size, bytes.size, bytes.size, &result), BTS_CORRUPT);
	assert_non_null(strstr(result.error.text, "digest"));
	free(bytes.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(every_split),
		cmocka_unit_test(cut_short_anywhere),
		cmocka_unit_test(every_bit_flipped),
		cmocka_unit_test(bytes_after_the_end),
		cmocka_unit_test(of_another_database),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
