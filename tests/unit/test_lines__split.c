/* Lines out of a stream, however it is cut into pieces. */
#include "cmocka.h"

#include "lines.h"

static const char split_text[] = "one\ntwo\r\n\nfour and more\n\r\nsix";
static const char *const split_lines[] = {"one", "two", "", "four and more", "", "six"};
#define SPLIT_LINES 6

static void split_with(size_t piece)
{
	struct lines l;
	struct bts_slice line;
	size_t at = 0, size = sizeof(split_text) - 1, n = 0, used;

	lines_init(&l, 100);
	while (at < size) {
		size_t have = size - at < piece ? size - at : piece, done = 0;

		while (done < have) {
			enum lines_got got =
				lines_next(&l, split_text + at + done, have - done, &used, &line);

			done += used;
			if (got == LINES_MORE)
				break;
			assert_int_equal(got, LINES_LINE);
			assert_int_equal(l.number, n + 1);
			assert_int_equal(line.size, strlen(split_lines[n]));
			assert_memory_equal(line.data, split_lines[n], line.size);
			n++;
		}
		assert_int_equal(done, have);
		at += have;
	}
	assert_int_equal(lines_last(&l, &line), LINES_LINE);
	assert_int_equal(line.size, 3);
	assert_memory_equal(line.data, split_lines[n], 3);
	assert_int_equal(l.number, SPLIT_LINES);
	assert_int_equal(lines_last(&l, &line), LINES_MORE);
	lines_fini(&l);
}

static void test_pieces(void **state)
{
	size_t piece;

	(void)state;
	for (piece = 1; piece <= sizeof(split_text); piece++)
		split_with(piece);
}

static void test_too_long(void **state)
{
	struct lines l;
	struct bts_slice line;
	size_t used;

	(void)state;
	lines_init(&l, 4);
	assert_int_equal(lines_next(&l, "abcd\n", 5, &used, &line), LINES_LINE);
	assert_int_equal(lines_next(&l, "abc", 3, &used, &line), LINES_MORE);
	assert_int_equal(lines_next(&l, "de\n", 3, &used, &line), LINES_TOO_LONG);
	assert_int_equal(l.number, 1);
	lines_fini(&l);
	lines_init(&l, 4);
	assert_int_equal(lines_next(&l, "abcde", 5, &used, &line), LINES_TOO_LONG);
	lines_fini(&l);
}

static void test_nothing(void **state)
{
	struct lines l;
	struct bts_slice line;

	(void)state;
	lines_init(&l, 4);
	assert_int_equal(lines_last(&l, &line), LINES_MORE);
	lines_fini(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
