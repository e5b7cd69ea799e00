/* JSON written by hand and JSON taken apart: escapes, the base64 rule, bulk-load records, bucket bodies. */
#include "cmocka.h"

#include "buf.h"
#include "input.h"
#include "jsonout.h"

static void written_is(struct buf *b, const char *text)
{
	assert_false(b->failed);
	assert_int_equal(b->size, strlen(text));
	assert_memory_equal(b->data, text, b->size);
	buf_fini(b);
}

static void test_written(void **state)
{
	struct buf b = {0};

	(void)state;
	jsonout_string(&b, "a\"b\\c\n\t\x01\x7f/\xc3\xa9");
	written_is(&b, "\"a\\\"b\\\\c\\n\\t\\u0001\\u007f/\xc3\xa9\"");
	jsonout_string(&b, "x\xffy");
	written_is(&b, "\"x\xef\xbf\xbdy\"");
	jsonout_bytes(&b, "key", (struct bts_slice){"k\xe2\x82\xac", 4});
	written_is(&b, "\"key\":\"k\xe2\x82\xac\"");
	jsonout_bytes(&b, "key", (struct bts_slice){"\xff\0", 2});
	written_is(&b, "\"key_base64\":\"/wA=\"");
	jsonout_bytes(&b, "key", (struct bts_slice){"a\0", 2});
	written_is(&b, "\"key_base64\":\"YQA=\"");
	jsonout_bytes(&b, "value", (struct bts_slice){"", 0});
	written_is(&b, "\"value\":\"\"");
}

/* What is written is read back as it was: every byte, alone and in a row. */
static void test_round_trip(void **state)
{
	unsigned char bytes[256];
	size_t size;

	(void)state;
	for (size = 1; size <= 256; size++) {
		struct input_record record;
		struct buf b = {0};
		char why[160];

		bytes[size - 1] = (unsigned char)(256 - size);
		buf_str(&b, "{");
		jsonout_bytes(&b, "key", (struct bts_slice){bytes, size});
		buf_str(&b, ",");
		jsonout_bytes(&b, "value", (struct bts_slice){bytes + size - 1, 1});
		buf_str(&b, "}");
		assert_null(input_record_parse(&record, (struct bts_slice){b.data, b.size}, why));
		assert_int_equal(record.key.size, size);
		assert_memory_equal(record.key.data, bytes, size);
		assert_int_equal(record.value.size, 1);
		assert_memory_equal(record.value.data, bytes + size - 1, 1);
		input_record_fini(&record);
		buf_fini(&b);
	}
}

static void test_records_refused(void **state)
{
	static const struct {
		const char *line, *code;
	} cases[] = {
		{"", "malformed-json"},
		{"{", "malformed-json"},
		{"{\"key\":\"a\",\"value\":\"b\"} x", "malformed-json"},
		{"{\"key\":\"a\",\"key\":\"b\",\"value\":\"b\"}", "malformed-json"},
		{"{\"key\":\"a\\u0000\",\"value\":\"b\"}", "malformed-json"},
		{"{\"key\":\"\xff\",\"value\":\"b\"}", "malformed-json"},
		{"[\"key\"]", "malformed-json"},
		{"{\"value\":\"b\"}", "invalid-record"},
		{"{\"key\":\"a\"}", "invalid-record"},
		{"{\"key\":1,\"value\":\"b\"}", "invalid-record"},
		{"{\"key\":\"a\",\"value\":{}}", "invalid-record"},
		{"{\"key\":\"a\",\"value\":\"b\",\"x\":1}", "invalid-record"},
		{"{\"key\":\"a\",\"key_base64\":\"YQ==\",\"value\":\"b\"}", "invalid-record"},
		{"{\"key_base64\":\"Y\",\"value\":\"b\"}", "invalid-record"},
		{"{\"key\":\"\",\"value\":\"b\"}", "key-empty"},
	};
	struct input_record record;
	char why[160];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *code = input_record_parse(
			&record, (struct bts_slice){cases[i].line, strlen(cases[i].line)}, why);

		assert_non_null(code);
		assert_string_equal(code, cases[i].code);
	}
}

static void test_record_depth_and_length(void **state)
{
	struct input_record record;
	struct buf b = {0};
	char why[160];
	size_t i;

	(void)state;
	for (i = 0; i < 100000; i++)
		buf_str(&b, "[");
	assert_string_equal(
		input_record_parse(&record, (struct bts_slice){b.data, b.size}, why), "malformed-json");
	buf_fini(&b);
	buf_str(&b, "{\"value\":\"\",\"key\":\"");
	for (i = 0; i < BTS_KEY_MAX + 1; i++)
		buf_str(&b, "k");
	buf_str(&b, "\"}");
	assert_string_equal(
		input_record_parse(&record, (struct bts_slice){b.data, b.size}, why), "key-too-long");
	buf_fini(&b);
}

/* Refused before a tree many times its size is made; what stands in strings does not count. */
static void test_record_structure(void **state)
{
	struct input_record record;
	struct buf b = {0};
	char why[160];
	size_t i;

	(void)state;
	buf_str(&b, "{\"key\":\"a\",\"value\":[1");
	for (i = 0; i < 100; i++)
		buf_str(&b, ",1");
	buf_str(&b, "]}");
	assert_string_equal(
		input_record_parse(&record, (struct bts_slice){b.data, b.size}, why), "malformed-json");
	assert_non_null(strstr(why, "brackets"));
	buf_fini(&b);
	buf_str(&b, "{\"key\":\"a\",\"value\":\"");
	for (i = 0; i < 100; i++)
		buf_str(&b, ",[{\\\"\\\\");
	buf_str(&b, "\"}");
	assert_null(input_record_parse(&record, (struct bts_slice){b.data, b.size}, why));
	assert_int_equal(record.value.size, 500);
	input_record_fini(&record);
	buf_fini(&b);
}

static const char *bucket_body(const char *body, char *type)
{
	char why[160];

	return input_bucket_parse((struct bts_slice){body, strlen(body)}, type, why);
}

static void test_bucket_bodies(void **state)
{
	char type[INPUT_CONTENT_TYPE_MAX + 1];

	(void)state;
	assert_null(bucket_body("", type));
	assert_string_equal(type, "");
	assert_null(bucket_body("{}", type));
	assert_string_equal(type, "");
	assert_null(bucket_body("{\"content_type\":\"application/json\"}", type));
	assert_string_equal(type, "application/json");
	assert_string_equal(bucket_body("{\"content_type\":\"a\\r\\nX: y/z\"}", type), "invalid-body");
	assert_string_equal(bucket_body("{\"content_type\":\"json\"}", type), "invalid-body");
	assert_string_equal(bucket_body("{\"content_type\":7}", type), "invalid-body");
	assert_string_equal(bucket_body("{\"colour\":\"red\"}", type), "invalid-body");
	assert_string_equal(bucket_body("nonsense", type), "malformed-json");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_written),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_records_refused),
		cmocka_unit_test(test_record_depth_and_length),
		cmocka_unit_test(test_record_structure),
		cmocka_unit_test(test_bucket_bodies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
