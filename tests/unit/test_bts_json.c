/* Lines of dumps: what bts_json_parse takes and refuses, and that what the writer makes comes back. */
#include "cmocka.h"
#include "rng.h"
#include "tools/bts_json.h"
#include <stdio.h>
#include <stdlib.h>

#define LITERAL(chars) ((struct bts_slice){chars, sizeof(chars) - 1})

static void expect_slice(struct bts_slice got, struct bts_slice wanted)
{
	assert_int_equal(got.size, wanted.size);
	assert_memory_equal(got.data, wanted.data, wanted.size);
}

/* Parse a copy of exact size, so that a read behind the end is seen by the sanitizer. */
static char *parse(
	struct bts_slice line, struct bts_json_record *record, struct bts_json_error *error, bool *ok)
{
	char *copy = malloc(line.size ? line.size : 1);

	memcpy(copy, line.data, line.size);
	*ok = bts_json_parse(copy, line.size, record, error);
	return copy;
}

static void takes_strings_and_base64(void **state)
{
	static const struct {
		struct bts_slice line, key, value;
	} cases[] = {
		{LITERAL("{\"key\":\"a\",\"value\":\"b\"}"), LITERAL("a"), LITERAL("b")},
		{LITERAL(" { \"value\" : \"\" ,\t\"key\":\"k\" } \r"), LITERAL("k"), LITERAL("")},
		{LITERAL("{\"key_base64\":\"AP8=\",\"value_base64\":\"\"}"), LITERAL("\0\xff"), LITERAL("")},
		{LITERAL("{\"key\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"value\":\"\\u0041\\u00e9\\u20ac\"}"),
			LITERAL("\"\\/\b\f\n\r\t"), LITERAL("A\xc3\xa9\xe2\x82\xac")},
		{LITERAL("{\"key\":\"\\uD83D\\ude00\",\"value\":\"\xf0\x9f\x98\x80\"}"),
			LITERAL("\xf0\x9f\x98\x80"), LITERAL("\xf0\x9f\x98\x80")},
		{LITERAL("{\"k\\u0065y\":\"x\",\"value\":\"\xed\x9f\xbf\xf4\x8f\xbf\xbf\"}"), LITERAL("x"),
			LITERAL("\xed\x9f\xbf\xf4\x8f\xbf\xbf")},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bts_json_record record;
		struct bts_json_error error;
		bool ok;
		char *copy = parse(cases[i].line, &record, &error, &ok);

		assert_true(ok);
		expect_slice(record.key, cases[i].key);
		expect_slice(record.value, cases[i].value);
		assert_null(record.bucket.data);
		free(copy);
	}
}

static void refuses_with_the_column(void **state)
{
	static const struct {
		struct bts_slice line;
		size_t column;
		const char *text;
	} cases[] = {
		{LITERAL(""), 1, "object"},
		{LITERAL("[]"), 1, "object"},
		{LITERAL("{}"), 1, "neither"},
		{LITERAL("{"), 2, "string"},
		{LITERAL("{\"key\":\"a\"}"), 1, "without a value"},
		{LITERAL("{\"bucket\":\"b\",\"value\":\"a\"}"), 1, "without a key"},
		{LITERAL("{\"key\":\"a\",\"value\":\"b\",\"meta\":\"c\"}"), 1, "meta"},
		{LITERAL("{\"key\":\"a\",\"value\":\"b\"} x"), 25, "follows"},
		{LITERAL("{\"key\":\"a\",\"value\":\"b\",}"), 24, "string"},
		{LITERAL("{\"key\":\"a\" \"value\":\"b\"}"), 12, "comma"},
		{LITERAL("{\"key\" \"a\"}"), 8, "colon"},
		{LITERAL("{\"key\":1,\"value\":\"b\"}"), 8, "string"},
		{LITERAL("{\"key\":\"a\",\"value\":null}"), 20, "string"},
		{LITERAL("{\"key\":\"a\",\"key\":\"b\",\"value\":\"c\"}"), 12, "twice"},
		{LITERAL("{\"key\":\"a\",\"key_base64\":\"YQ==\",\"value\":\"c\"}"), 12, "twice"},
		{LITERAL("{\"key\":\"a\",\"value\":\"b\",\"ttl\":\"c\"}"), 24, "unknown"},
		{LITERAL("{\"key\":\"a"), 8, "does not end"},
		{LITERAL("{\"key\":\"a\\"), 10, "does not end"},
		{LITERAL("{\"key\":\"\\x\",\"value\":\"\"}"), 9, "escape"},
		{LITERAL("{\"key\":\"\\u12\",\"value\":\"\"}"), 9, "hex"},
		{LITERAL("{\"key\":\"\\u000"), 9, "hex"},
		{LITERAL("{\"key\":\"\\u0000\",\"value\":\"\"}"), 9, "U+0000"},
		{LITERAL("{\"key\":\"\\ud800\",\"value\":\"\"}"), 9, "surrogate"},
		{LITERAL("{\"key\":\"\\udc00\",\"value\":\"\"}"), 9, "surrogate"},
		{LITERAL("{\"key\":\"\\ud800\\u0041\",\"value\":\"\"}"), 9, "surrogate"},
		{LITERAL("{\"key\":\"a\nb\",\"value\":\"\"}"), 10, "control"},
		{LITERAL("{\"key\":\"a\0b\",\"value\":\"\"}"), 10, "control"},
		{LITERAL("{\"key\":\"\xff\",\"value\":\"\"}"), 9, "UTF-8"},
		{LITERAL("{\"key\":\"\xc0\x80\",\"value\":\"\"}"), 9, "UTF-8"},
		{LITERAL("{\"key\":\"\xe0\x80\x80\",\"value\":\"\"}"), 9, "UTF-8"},
		{LITERAL("{\"key\":\"\xed\xa0\x80\",\"value\":\"\"}"), 9, "UTF-8"},
		{LITERAL("{\"key\":\"\xf4\x90\x80\x80\",\"value\":\"\"}"), 9, "UTF-8"},
		{LITERAL("{\"key\":\"\xe2\x82"), 9, "UTF-8"},
		{LITERAL("{\"key_base64\":\"YQ=\",\"value\":\"\"}"), 15, "base64"},
		{LITERAL("{\"key_base64\":\"Y===\",\"value\":\"\"}"), 15, "base64"},
		{LITERAL("{\"key_base64\":\"YR==\",\"value\":\"\"}"), 15, "base64"},
		{LITERAL("{\"key_base64\":\"YWJ-\",\"value\":\"\"}"), 15, "base64"},
		{LITERAL("{\"key_base64\":\"YQ==YQ==\",\"value\":\"\"}"), 15, "base64"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bts_json_record record;
		struct bts_json_error error = {0};
		bool ok;
		char *copy = parse(cases[i].line, &record, &error, &ok);

		if (ok || error.column != cases[i].column || !strstr(error.text, cases[i].text))
			fail_msg("%s: taken %d, column %zu, %s", (const char *)cases[i].line.data, ok,
				error.column, error.text);
		free(copy);
	}
}

static struct bts_slice random_bytes(struct rng *rng, uint8_t bytes[64])
{
	static const char plain[] = "ab\"\\\n\t\x7f\x01/z";
	size_t size = rng_below(rng, 64);
	bool text = rng_below(rng, 2);

	for (size_t i = 0; i < size; i++)
		bytes[i] = text ? (uint8_t)plain[rng_below(rng, sizeof(plain) - 1)]
				: (uint8_t)rng_below(rng, 256);
	return (struct bts_slice){bytes, size};
}

static void comes_back_as_written(void **state)
{
	struct rng rng;

	rng_init(&rng, *(const uint64_t *)*state);
	for (int round = 0; round < 20000; round++) {
		uint8_t bytes[3][64];
		struct bts_slice key = random_bytes(&rng, bytes[0]), value = random_bytes(&rng, bytes[1]);
		struct bts_slice bucket = random_bytes(&rng, bytes[2]);
		struct bts_json_text text = {0};
		struct bts_json_record record;
		struct bts_json_error error;
		bool ok;
		char *copy;

		bts_json_raw(&text, "{");
		bts_json_member(&text, "bucket", bucket);
		bts_json_raw(&text, ",");
		bts_json_member(&text, "key", key);
		bts_json_raw(&text, ",");
		bts_json_member(&text, "value", value);
		bts_json_raw(&text, "}");
		assert_false(text.failed);
		assert_null(memchr(text.data, '\n', text.size));
		copy = parse((struct bts_slice){text.data, text.size}, &record, &error, &ok);
		assert_true(ok);
		expect_slice(record.key, key);
		expect_slice(record.value, value);
		expect_slice(record.bucket, bucket);
		free(copy);
		bts_json_free(&text);
	}
}

/* Any line, cut or with bytes changed, is taken or refused: nothing else happens (the sanitizers watch). */
static void survives_damaged_lines(void **state)
{
	static const char line[] = "{\"bucket\":\"b\\u00e9\\ud83d\\ude00\",\"key_base64\":\"AP8B\",\"value\":"
				   "\"x\\n\xe2\x82\xac\"}";
	struct rng rng;

	rng_init(&rng, *(const uint64_t *)*state);
	for (int round = 0; round < 50000; round++) {
		char damaged[sizeof(line)];
		struct bts_slice cut = {damaged, rng_below(&rng, sizeof(line))};
		struct bts_json_record record;
		struct bts_json_error error;
		bool ok;

		memcpy(damaged, line, sizeof(line));
		for (uint64_t n = rng_below(&rng, 3); n && cut.size; n--)
			damaged[rng_below(&rng, cut.size)] = (char)rng_below(&rng, 256);
		free(parse(cut, &record, &error, &ok));
	}
}

int main(int argc, char **argv)
{
	uint64_t seed = rng_seed_from(argc, argv, 1);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_strings_and_base64),
		cmocka_unit_test(refuses_with_the_column),
		cmocka_unit_test_prestate(comes_back_as_written, &seed),
		cmocka_unit_test_prestate(survives_damaged_lines, &seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
