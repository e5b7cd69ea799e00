/* Request targets taken apart: what is data, what divides, and what is refused. */
#include "cmocka.h"

#include <stdio.h>

#include "uri.h"

static void uri_is(const struct bts_slice *part, const char *text, size_t size)
{
	assert_non_null(part);
	assert_int_equal(part->size, size);
	assert_memory_equal(part->data, text, size);
}

static void test_segments(void **state)
{
	struct uri u;
	char problem[128];

	(void)state;
	assert_int_equal(uri_parse(&u, "/v1/buckets/a%2Fb/keys/x%00+y?limit=5", problem), URI_OK);
	assert_int_equal(u.segments, 5);
	uri_is(&u.segment[2], "a%2Fb", 5);
	assert_int_equal(uri_decode(&u, 2, 0, problem), URI_OK);
	uri_is(&u.segment[2], "a/b", 3);
	assert_int_equal(uri_decode(&u, 4, 0, problem), URI_OK);
	uri_is(&u.segment[4], "x\0+y", 4);
	assert_string_equal(u.target, "/v1/buckets/a%2Fb/keys/x%00+y?limit=5");
	uri_fini(&u);

	assert_int_equal(uri_parse(&u, "/", problem), URI_OK);
	assert_int_equal(u.segments, 1);
	assert_int_equal(u.segment[0].size, 0);
	uri_fini(&u);

	assert_int_equal(uri_parse(&u, "/a//b/", problem), URI_OK);
	assert_int_equal(u.segments, 4);
	assert_int_equal(u.segment[1].size, 0);
	assert_int_equal(u.segment[3].size, 0);
	uri_fini(&u);
}

static void test_base64url_segment(void **state)
{
	struct uri u;
	char problem[128];

	(void)state;
	assert_int_equal(uri_parse(&u, "/k/_wAv?enc=b64u", problem), URI_OK);
	assert_int_equal(uri_decode(&u, 1, 1, problem), URI_OK);
	uri_is(&u.segment[1], "\xff\0/", 3);
	uri_fini(&u);
	assert_int_equal(uri_parse(&u, "/k/a*b", problem), URI_OK);
	assert_int_equal(uri_decode(&u, 1, 1, problem), URI_MALFORMED);
	uri_fini(&u);

	assert_int_equal(uri_parse(&u, "/1/2/3/4/5/6/7/8?a=b", problem), URI_OK);
	assert_int_equal(u.segments, URI_SEGMENTS_MAX);
	uri_fini(&u);
	assert_int_equal(uri_parse(&u, "/1/2/3/4/5/6/7/8/?a=b", problem), URI_OK);
	assert_int_equal(u.segments, 0);
	uri_is(&uri_param(&u, "a")[0], "b", 1);
	uri_fini(&u);
}

static void test_params(void **state)
{
	struct uri u;
	char problem[128];

	(void)state;
	assert_int_equal(uri_parse(&u, "/x?a=1&b&c=%26%3d+&&d==e&=f", problem), URI_OK);
	assert_int_equal(u.params, 5);
	uri_is(uri_param(&u, "a"), "1", 1);
	uri_is(uri_param(&u, "b"), "", 0);
	uri_is(uri_param(&u, "c"), "&=+", 3);
	uri_is(uri_param(&u, "d"), "=e", 2);
	uri_is(uri_param(&u, ""), "f", 1);
	assert_null(uri_param(&u, "e"));
	uri_fini(&u);
	assert_int_equal(uri_parse(&u, "/x?", problem), URI_OK);
	assert_int_equal(u.params, 0);
	uri_fini(&u);
}

static void test_refused(void **state)
{
	static const struct {
		const char *target;
		enum uri_err err;
	} cases[] = {
		{"http://host/x", URI_NOT_ORIGIN_FORM},
		{"host:80", URI_NOT_ORIGIN_FORM},
		{"", URI_NOT_ORIGIN_FORM},
		{"*", URI_NOT_ORIGIN_FORM},
		{"/a#b", URI_MALFORMED},
		{"/a b", URI_MALFORMED},
		{"/a\x7f", URI_MALFORMED},
		{"/a?b=%", URI_MALFORMED},
		{"/a?%zz=1", URI_MALFORMED},
		{"/?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17", URI_PARAMS},
	};
	struct uri u;
	char problem[128];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(uri_parse(&u, cases[i].target, problem), cases[i].err);
		uri_fini(&u);
	}
	assert_int_equal(uri_parse(&u, "/ab/%4", problem), URI_OK);
	assert_int_equal(uri_decode(&u, 1, 0, problem), URI_MALFORMED);
	assert_string_equal(problem, "malformed percent-encoding at byte 4 of the target");
	uri_fini(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_base64url_segment),
		cmocka_unit_test(test_params),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
