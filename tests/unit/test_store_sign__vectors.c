/*
 * Signatures: the examples of "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)" in the Amazon S3
 * API Reference, and what has no room.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_sign.h"

#define NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct store_sign_key key = {
	"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1"};

static void expect(const struct store_sign_request *request, const char *names, const char *signature)
{
	char text[STORE_SIGN_ANSWER], wanted[STORE_SIGN_ANSWER];

	snprintf(wanted, sizeof(wanted),
		"AWS4-HMAC-SHA256 "
		"Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
		"aws4_request,SignedHeaders=%s,Signature=%s",
		names, signature);
	assert_true(store_sign_authorization(&key, request, text));
	assert_string_equal(text, wanted);
}

static struct store_sign_request bucket_request(const char *query)
{
	return (struct store_sign_request){
		.method = "GET",
		.path = "/",
		.query = query,
		.when = "20130524T000000Z",
		.sum = NOTHING,
		.header = {{"host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", NOTHING},
			{"x-amz-date", "20130524T000000Z"}},
		.headers = 3,
	};
}

static void test_get(void **state)
{
	struct store_sign_request request = bucket_request("");
	char text[STORE_SIGN_CANONICAL];

	(void)state;
	request.path = "/test.txt";
	memmove(request.header + 2, request.header + 1, 2 * sizeof(request.header[0]));
	request.header[1] = (struct store_sign_header){"range", "bytes=0-9"};
	request.headers = 4;
	assert_true(store_sign_canonical(&request, text));
	assert_string_equal(text,
		"GET\n/"
		"test.txt\n\nhost:examplebucket.s3.amazonaws.com\nrange:bytes=0-9\nx-amz-content-"
		"sha256:" NOTHING
		"\nx-amz-date:20130524T000000Z\n\nhost;range;x-amz-content-sha256;x-amz-date\n" NOTHING);
	expect(&request, "host;range;x-amz-content-sha256;x-amz-date",
		"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void test_put(void **state)
{
	char sum[STORE_SIGN_SUM];
	struct store_sign_request request = {
		.method = "PUT",
		.path = "/test%24file.text",
		.query = "",
		.when = "20130524T000000Z",
		.sum = sum,
		.header = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
			{"host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", sum},
			{"x-amz-date", "20130524T000000Z"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
		.headers = 5,
	};

	(void)state;
	assert_true(store_sign_sum((struct bts_slice){"Welcome to Amazon S3.", 21}, sum));
	assert_string_equal(sum, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
	expect(&request, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
		"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void test_queries(void **state)
{
	struct store_sign_request request = bucket_request("lifecycle=");

	(void)state;
	expect(&request, "host;x-amz-content-sha256;x-amz-date",
		"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	request.query = "max-keys=2&prefix=J";
	expect(&request, "host;x-amz-content-sha256;x-amz-date",
		"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void test_parts(void **state)
{
	char text[64], sum[STORE_SIGN_SUM], when[STORE_SIGN_TIME];

	(void)state;
	store_sign_time(1369353600, when);
	assert_string_equal(when, "20130524T000000Z");
	assert_true(store_sign_sum((struct bts_slice){NULL, 0}, sum));
	assert_string_equal(sum, NOTHING);
	assert_true(store_sign_encode("", text, sizeof(text)));
	assert_string_equal(text, "");
	assert_true(store_sign_encode("aZ09-._~ /+=\xc3\xa4%", text, sizeof(text)));
	assert_string_equal(text, "aZ09-._~%20%2F%2B%3D%C3%A4%25");
	assert_true(store_sign_encode("a/", text, 5));
	assert_false(store_sign_encode("a/", text, 4));
}

/* What is too long is refused, not shortened. */
static void test_no_room(void **state)
{
	struct store_sign_request request = bucket_request("");
	struct store_sign_key long_key = key;
	char text[STORE_SIGN_ANSWER], *value = calloc(1, STORE_SIGN_CANONICAL + 1);

	(void)state;
	assert_non_null(value);
	memset(value, 'a', STORE_SIGN_CANONICAL);
	request.header[2].value = value;
	assert_false(store_sign_authorization(&key, &request, text));
	value[STORE_SIGN_CANONICAL / 2] = '\0';
	assert_true(store_sign_authorization(&key, &request, text));
	long_key.secret = value;
	assert_false(store_sign_authorization(&long_key, &request, text));
	long_key.secret = key.secret;
	long_key.access = value;
	assert_false(store_sign_authorization(&long_key, &request, text));
	free(value);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_queries),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
