/* URLs of stores and keys: what is taken, as what, and what is not. */
#include "cmocka.h"

#include <stdio.h>
#include <string.h>

#include "store_url.h"

static void test_file(void **state)
{
	struct store_url url;

	(void)state;
	assert_null(store_url_parse("file:///var/a b/c", &url));
	assert_false(url.s3);
	assert_string_equal(url.path, "/var/a b/c");
	assert_null(store_url_parse("file:///x%3F%25%2f//", &url));
	assert_string_equal(url.path, "/x?%/");
	assert_string_equal(url.name, "file:///x%3F%25%2f");
	assert_null(store_url_parse("file:///", &url));
	assert_string_equal(url.path, "/");
}

static void test_s3(void **state)
{
	struct store_url url;

	(void)state;
	assert_null(store_url_parse("s3://bucket", &url));
	assert_true(url.s3);
	assert_string_equal(url.bucket, "bucket");
	assert_string_equal(url.prefix, "");
	assert_string_equal(url.endpoint.host, "");
	assert_string_equal(url.region, "");
	assert_null(store_url_parse(
		"s3://my.bucket-1/a/B_c.d/?endpoint=http://127.0.0.1:9000/&region=eu-west-3", &url));
	assert_string_equal(url.bucket, "my.bucket-1");
	assert_string_equal(url.prefix, "a/B_c.d");
	assert_string_equal(url.endpoint.host, "127.0.0.1:9000");
	assert_false(url.endpoint.tls);
	assert_string_equal(url.region, "eu-west-3");
	assert_string_equal(url.name, "s3://my.bucket-1/a/B_c.d");
	assert_null(store_url_parse("s3://bucket/?endpoint=https%3A%2F%2F[::1]:443", &url));
	assert_string_equal(url.endpoint.host, "[::1]");
	assert_true(url.endpoint.tls);
	assert_string_equal(url.prefix, "");
	assert_null(store_url_parse("s3://bucket?endpoint=http://h:80", &url));
	assert_string_equal(url.endpoint.host, "h");
}

static const char *const wrong_urls[] = {
	"",
	"file",
	"file:",
	"file://",
	"file://host/dir",
	"file:/dir",
	"file:///a?b",
	"file:///a#b",
	"file:///a%",
	"file:///a%4",
	"file:///a%0g",
	"file:///a%00b",
	"http://h/b",
	"S3://bucket",
	"s3:",
	"s3://",
	"s3:///key",
	"s3://ab",
	"s3://Bucket",
	"s3://buc_ket",
	"s3://.bucket",
	"s3://bucket.",
	"s3://user:pass@bucket",
	"s3://bucket//a",
	"s3://bucket/a//b",
	"s3://bucket/../x",
	"s3://bucket/a/.b",
	"s3://bucket/a b",
	"s3://bucket/a%20b",
	"s3://bucket?",
	"s3://bucket?x=1",
	"s3://bucket?region=",
	"s3://bucket?region=a/b",
	"s3://bucket?region=A",
	"s3://bucket?endpoint=",
	"s3://bucket?endpoint=h:1",
	"s3://bucket?endpoint=ftp://h",
	"s3://bucket?endpoint=http://",
	"s3://bucket?endpoint=http:///",
	"s3://bucket?endpoint=http://h/path",
	"s3://bucket?endpoint=http://u@h",
	"s3://bucket?endpoint=http://u:p@h",
	"s3://bucket?endpoint=http://h:",
	"s3://bucket?endpoint=http://h:1x",
	"s3://bucket?endpoint=http://h:123456",
	"s3://bucket?endpoint=http://h%0d%0aX:1",
	"s3://bucket?endpoint=http://[::1",
	"s3://bucket?endpoint=http://[]",
	"s3://bucket?endpoint=http://h?x",
	"s3://bucket?endpoint=http://h%",
	"s3://bucket?region=a&&region=b",
	"s3://bucket?region=a&",
	"s3://a123456789012345678901234567890123456789012345678901234567890123",
	"s3://bucket?region=a12345678901234567890123456789012",
};

static void test_refused(void **state)
{
	struct store_url url;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(wrong_urls) / sizeof(wrong_urls[0]); i++) {
		if (!store_url_parse(wrong_urls[i], &url))
			fail_msg("taken: %s", wrong_urls[i]);
		assert_non_null(store_check_url(wrong_urls[i]));
	}
}

static void test_too_long(void **state)
{
	char text[STORE_URL_MAX + 2];
	struct store_url url;

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text, "file:///", 8);
	text[STORE_URL_MAX + 1] = '\0';
	assert_non_null(store_url_parse(text, &url));
	text[STORE_URL_MAX] = '\0';
	assert_null(store_url_parse(text, &url));
	memcpy(text, "s3://bkt", 8);
	text[8] = '/';
	text[9 + STORE_PREFIX_MAX] = '\0';
	assert_non_null(store_url_parse(text, &url)); /* a part too long */
	text[100] = '/';
	assert_null(store_url_parse(text, &url));
	text[9 + STORE_PREFIX_MAX] = 'a';
	text[9 + STORE_PREFIX_MAX + 1] = '\0';
	assert_non_null(store_url_parse(text, &url));
}

static void test_keys(void **state)
{
	static const char *const right[] = {"a", "A/b-c_d.e/0", "a..b", "a/b."};
	static const char *const wrong[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "a/../b", ".a",
		"a/.b", "a b", "a\nb", "a%b", "a\\b", "a\xc3\xa4", "a:b"};
	char key[STORE_KEY_MAX + 2];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(right) / sizeof(right[0]); i++)
		assert_true(store_url_is_key(right[i]));
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (store_url_is_key(wrong[i]))
			fail_msg("taken: %s", wrong[i]);
	memset(key, 'a', sizeof(key));
	key[STORE_PART_MAX] = '\0';
	assert_true(store_url_is_key(key));
	key[STORE_PART_MAX] = 'a';
	key[STORE_PART_MAX + 1] = '\0';
	assert_false(store_url_is_key(key));
	memset(key, 'a', sizeof(key));
	key[10] = '/';
	key[STORE_KEY_MAX] = '\0';
	key[211] = '/';
	assert_true(store_url_is_key(key));
	key[STORE_KEY_MAX] = 'a';
	key[STORE_KEY_MAX + 1] = '\0';
	assert_false(store_url_is_key(key));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_s3),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
