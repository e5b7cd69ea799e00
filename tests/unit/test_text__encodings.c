/* UTF-8, base64, percent-encoding, numbers and durations as clients send them. */
#include "cmocka.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "text.h"

static void test_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t size;
		int plain;
	} cases[] = {
		{"", 0, 1},
		{"abc", 3, 1},
		{"a\0b", 3, 0},
		{"\xc3\xa9", 2, 1},
		{"\xc3", 1, 0},
		{"\xc0\x80", 2, 0},
		{"\xc1\xbf", 2, 0},
		{"\xe0\x80\x80", 3, 0},
		{"\xe0\xa0\x80", 3, 1},
		{"\xed\xa0\x80", 3, 0},
		{"\xed\x9f\xbf", 3, 1},
		{"\xf0\x90\x80\x80", 4, 1},
		{"\xf0\x8f\xbf\xbf", 4, 0},
		{"\xf4\x8f\xbf\xbf", 4, 1},
		{"\xf4\x90\x80\x80", 4, 0},
		{"\xf5\x80\x80\x80", 4, 0},
		{"\x80", 1, 0},
		{"\xff", 1, 0},
		{"a\xe2\x82\xac z", 6, 1},
		{"\xe2\x82", 2, 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(text_utf8_plain(cases[i].text, cases[i].size), cases[i].plain);
}

static void test_base64_round_trip(void **state)
{
	unsigned char bytes[64], back[64];
	size_t size, i;

	(void)state;
	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 37 + 251);
	for (size = 0; size <= sizeof(bytes); size++) {
		struct buf plain = {0}, url = {0};

		text_base64(&plain, bytes, size);
		text_base64url(&url, bytes, size);
		assert_int_equal(plain.size, (size + 2) / 3 * 4);
		assert_int_equal(text_base64_decode(plain.size ? plain.data : "", plain.size, back), size);
		assert_memory_equal(back, bytes, size);
		assert_int_equal(text_base64url_decode(url.size ? url.data : "", url.size, back), size);
		assert_memory_equal(back, bytes, size);
		buf_fini(&plain);
		buf_fini(&url);
	}
}

static void test_base64_refused(void **state)
{
	static const char *const bad[] = {"A", "AB", "ABC", "A===", "====", "AB=C", "AA=A",
		"A B=", "AB==AB==", "AB-=", "AB==\n", "/x==", "AAE="};
	char out[16];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]) - 2; i++)
		assert_int_equal(text_base64_decode(bad[i], strlen(bad[i]), out), -1);
	assert_int_equal(text_base64_decode("/x==", 4, out), -1); /* stray bits */
	assert_int_equal(text_base64_decode("/w==", 4, out), 1);
	assert_int_equal(text_base64url_decode("_w", 2, out), 1);
	assert_int_equal(text_base64url_decode("/w", 2, out), -1);
	assert_int_equal(text_base64url_decode("_w==", 4, out), -1);
}

static void test_percent(void **state)
{
	char out[32];
	size_t bad = 99;

	(void)state;
	assert_int_equal(text_percent_decode("a%2Fb+%00c", 10, out, &bad), 6);
	assert_memory_equal(out, "a/b+\0c", 6);
	assert_int_equal(text_percent_decode("%ff%FF", 6, out, &bad), 2);
	assert_memory_equal(out, "\xff\xff", 2);
	assert_int_equal(text_percent_decode("ab%", 3, out, &bad), -1);
	assert_int_equal(bad, 2);
	assert_int_equal(text_percent_decode("%2", 2, out, &bad), -1);
	assert_int_equal(text_percent_decode("%2", 1, out, &bad), -1);
	assert_int_equal(text_percent_decode("x%G0", 4, out, &bad), -1);
	assert_int_equal(bad, 1);
	assert_int_equal(text_percent_decode("%%41", 4, out, &bad), -1);
	assert_int_equal(text_percent_decode("%41", 3, out, &bad), 1);
}

static void test_percent_round_trip(void **state)
{
	unsigned char bytes[256];
	struct buf b = {0};
	size_t bad, i;

	(void)state;
	for (i = 0; i < 256; i++)
		bytes[i] = (unsigned char)i;
	text_percent(&b, bytes, 256);
	assert_int_equal(text_percent_decode(b.data, b.size, b.data, &bad), 256);
	assert_memory_equal(b.data, bytes, 256);
	buf_fini(&b);
}

static void test_numbers_written(void **state)
{
	static const uint64_t values[] = {0, 9, 10, 99, 100, 4294967296, UINT64_MAX - 1, UINT64_MAX};
	char text[21], same[24];

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		snprintf(same, sizeof(same), "%" PRIu64, values[i]);
		assert_int_equal(text_from_u64(values[i], text), strlen(same));
		assert_string_equal(text, same);
	}
}

static void test_numbers(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(text_u64("0", 1, UINT64_MAX, &v), 0);
	assert_true(v == 0);
	assert_int_equal(text_u64("18446744073709551615", 20, UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(text_u64("18446744073709551616", 20, UINT64_MAX, &v), -1);
	assert_int_equal(text_u64("99999999999999999999", 20, UINT64_MAX, &v), -1);
	assert_int_equal(text_u64("", 0, UINT64_MAX, &v), -1);
	assert_int_equal(text_u64("+1", 2, UINT64_MAX, &v), -1);
	assert_int_equal(text_u64("-1", 2, UINT64_MAX, &v), -1);
	assert_int_equal(text_u64("1 ", 2, UINT64_MAX, &v), -1);
	assert_int_equal(text_u64("11", 2, 10, &v), -1);
	assert_int_equal(text_duration_ms("500ms", 5, &v), 0);
	assert_true(v == 500);
	assert_int_equal(text_duration_ms("2s", 2, &v), 0);
	assert_true(v == 2000);
	assert_int_equal(text_duration_ms("1m", 2, &v), 0);
	assert_true(v == 60000);
	assert_int_equal(text_duration_ms("4294967296ms", 12, &v), 0);
	assert_true(v == UINT64_C(4294967296));
	assert_int_equal(text_duration_ms("213503982334d", 13, &v), 0);
	assert_true(v == UINT64_C(213503982334) * 86400000);
	assert_int_equal(text_duration_ms("213503982335d", 13, &v), -1);
	assert_int_equal(text_duration_ms("18446744073709551615ms", 22, &v), 0);
	assert_int_equal(text_duration_ms("18446744073709551616ms", 22, &v), -1);
	assert_int_equal(text_duration_ms("2", 1, &v), -1);
	assert_int_equal(text_duration_ms("s", 1, &v), -1);
	assert_int_equal(text_duration_ms("ms", 2, &v), -1);
	assert_int_equal(text_duration_ms("-1s", 3, &v), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_base64_round_trip),
		cmocka_unit_test(test_base64_refused),
		cmocka_unit_test(test_percent),
		cmocka_unit_test(test_percent_round_trip),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_numbers_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
