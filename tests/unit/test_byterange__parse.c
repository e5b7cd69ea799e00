/* Range headers: what they ask for, and what is passed over. */
#include "cmocka.h"

#include "byterange.h"

static void expect(const char *text, uint64_t size, enum byterange kind, uint64_t from, uint64_t count)
{
	uint64_t f = 77, c = 77;

	if (byterange_parse(text, size, &f, &c) != kind)
		fail_msg("\"%s\" of %d", text ? text : "", (int)size);
	if (kind != BYTERANGE_PART)
		return;
	assert_int_equal(f, from);
	assert_int_equal(c, count);
}

static void test_parts(void **state)
{
	(void)state;
	expect("bytes=0-0", 10, BYTERANGE_PART, 0, 1);
	expect("bytes=0-", 10, BYTERANGE_PART, 0, 10);
	expect("bytes=3-5", 10, BYTERANGE_PART, 3, 3);
	expect("Bytes= 3-5 ", 10, BYTERANGE_PART, 3, 3);
	expect("bytes=9-", 10, BYTERANGE_PART, 9, 1);
	expect("bytes=9-10", 10, BYTERANGE_PART, 9, 1);
	expect("bytes=5-99999999999999999999999999", 10, BYTERANGE_PART, 5, 5);
	expect("bytes=0-18446744073709551615", 10, BYTERANGE_PART, 0, 10);
	expect("bytes=-3", 10, BYTERANGE_PART, 7, 3);
	expect("bytes=-10", 10, BYTERANGE_PART, 0, 10);
	expect("bytes=-99999999999999999999999999", 10, BYTERANGE_PART, 0, 10);
}

static void test_none(void **state)
{
	(void)state;
	expect("bytes=10-", 10, BYTERANGE_NONE, 0, 0);
	expect("bytes=99999999999999999999999999-", 10, BYTERANGE_NONE, 0, 0);
	expect("bytes=10-12", 10, BYTERANGE_NONE, 0, 0);
	expect("bytes=-0", 10, BYTERANGE_NONE, 0, 0);
	expect("bytes=0-", 0, BYTERANGE_NONE, 0, 0);
	expect("bytes=-5", 0, BYTERANGE_NONE, 0, 0);
}

static void test_passed_over(void **state)
{
	static const char *const texts[] = {"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5",
		"bytes=5-4", "bytes=1-2,4-5", "bytes=0-0,", "bytes=+1-2", "bytes=1- 2", "bytes =1-2",
		"lines=1-2", "bytes=0x1-2", "bytes=1--2", "bytes=--2"};
	unsigned i;

	(void)state;
	expect(NULL, 10, BYTERANGE_ALL, 0, 0);
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		expect(texts[i], 10, BYTERANGE_ALL, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
