/* The route table's rules, on a small table: paths, methods, Allow, parameters; and entity tags. */
#include "cmocka.h"

#include "etag.h"
#include "route.h"

static void match_nothing(struct request *r)
{
	(void)r;
}

static const struct route match_table[] = {
	{ROUTE_GET, "/", ROUTE_ADMIN, AUTH_NONE, {NULL}, match_nothing, NULL},
	{ROUTE_GET, "/v1/b", 0, AUTH_NONE, {"limit"}, match_nothing, NULL},
	{ROUTE_PUT, "/v1/b/{bucket}", 0, AUTH_NONE, {NULL}, match_nothing, NULL},
	{ROUTE_DELETE, "/v1/b/{bucket}", 0, AUTH_NONE, {NULL}, match_nothing, NULL},
	{ROUTE_GET, "/v1/b/{bucket}/k/{key}", 0, AUTH_NONE, {"a", "b"}, match_nothing, NULL},
	{ROUTE_GET, "/v1/s/named", 0, AUTH_NONE, {NULL}, match_nothing, NULL},
	{ROUTE_DELETE, "/v1/s/{id}", 0, AUTH_NONE, {NULL}, match_nothing, NULL},
};
#define MATCH_COUNT (sizeof(match_table) / sizeof(match_table[0]))

static struct route_match match_find(const char *target, unsigned method, unsigned needed)
{
	struct route_match match;
	char problem[128];
	struct uri u;

	assert_int_equal(uri_parse(&u, target, problem), URI_OK);
	match = route_find(match_table, MATCH_COUNT, &u, method, needed);
	uri_fini(&u);
	return match;
}

static void test_paths(void **state)
{
	(void)state;
	assert_ptr_equal(match_find("/", ROUTE_GET, 0).route, &match_table[0]);
	assert_ptr_equal(match_find("/v1/b?limit=1", ROUTE_GET, 0).route, &match_table[1]);
	assert_ptr_equal(match_find("/v1/b/x", ROUTE_PUT, 0).route, &match_table[2]);
	assert_ptr_equal(match_find("/v1/b/x", ROUTE_DELETE, 0).route, &match_table[3]);
	assert_ptr_equal(match_find("/v1/b/", ROUTE_PUT, 0).route, &match_table[2]);
	assert_ptr_equal(match_find("/v1/b/x/k/y", ROUTE_GET, 0).route, &match_table[4]);
	assert_int_equal(match_find("/v1/b/x/k", ROUTE_GET, 0).allowed, 0);
	assert_int_equal(match_find("/v1/b/x/k/y/z", ROUTE_GET, 0).allowed, 0);
	assert_int_equal(match_find("/v1", ROUTE_GET, 0).allowed, 0);
	assert_int_equal(match_find("/v1/%62", ROUTE_GET, 0).allowed, 0);
	assert_int_equal(match_find("/v1/b", ROUTE_GET, ROUTE_ADMIN).allowed, 0);
	assert_non_null(match_find("/", ROUTE_GET, ROUTE_ADMIN).route);
}

static void test_allow(void **state)
{
	struct route_match match = match_find("/v1/b/x", ROUTE_POST, 0);
	char text[64];

	(void)state;
	assert_null(match.route);
	route_allow(match.allowed, text);
	assert_string_equal(text, "PUT, DELETE, OPTIONS");
	/* A literal part is another resource than what one in braces may be. */
	match = match_find("/v1/s/named", ROUTE_DELETE, 0);
	assert_null(match.route);
	route_allow(match.allowed, text);
	assert_string_equal(text, "GET, HEAD, OPTIONS");
	assert_ptr_equal(match_find("/v1/s/other", ROUTE_DELETE, 0).route, &match_table[6]);
	route_allow(match_find("/v1/b", 0, 0).allowed, text);
	assert_string_equal(text, "GET, HEAD, OPTIONS");
	assert_int_equal(route_method("HEAD"), ROUTE_GET);
	assert_int_equal(route_method("get"), 0);
}

static void test_params(void **state)
{
	char problem[128];
	struct uri u;
	int twice;

	(void)state;
	assert_int_equal(uri_parse(&u, "/v1/b/x/k/y?a=1&b=2", problem), URI_OK);
	assert_null(route_bad_param(&match_table[4], &u, &twice));
	assert_int_equal(route_segment(&match_table[4], "bucket"), 2);
	assert_int_equal(route_segment(&match_table[4], "key"), 4);
	assert_int_equal(route_segment(&match_table[4], "ke"), -1);
	uri_fini(&u);
	assert_int_equal(uri_parse(&u, "/v1/b/x/k/y?a=1&c=2", problem), URI_OK);
	assert_memory_equal(route_bad_param(&match_table[4], &u, &twice)->data, "c", 1);
	assert_false(twice);
	uri_fini(&u);
	assert_int_equal(uri_parse(&u, "/v1/b/x/k/y?a=1&%61=2", problem), URI_OK);
	assert_non_null(route_bad_param(&match_table[4], &u, &twice));
	assert_true(twice);
	uri_fini(&u);
}

static void test_etags(void **state)
{
	static const char *const bad[] = {"", "12", "\"12", "\"1\" \"2\"", ",", " , ,", "*,", "\"1\",2", "*x", "W/12"};
	struct writer_tags tags;
	size_t i;

	(void)state;
	assert_int_equal(etag_parse(NULL, 0, &tags), 0);
	assert_false(tags.given);
	assert_int_equal(etag_parse(" * ", 0, &tags), 0);
	assert_true(tags.any);
	assert_int_equal(etag_parse("\"12\" , W/\"13\",\"other\"", 0, &tags), 0);
	assert_int_equal(tags.count, 1);
	assert_int_equal(tags.versions[0], 12);
	assert_int_equal(etag_parse(",\"12\",, ,\"13\" ,", 0, &tags), 0);
	assert_int_equal(tags.count, 2);
	assert_int_equal(etag_parse("\"12\", W/\"13\",\"012\"", 1, &tags), 0);
	assert_int_equal(tags.count, 2);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(etag_parse(bad[i], 0, &tags), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_allow),
		cmocka_unit_test(test_params),
		cmocka_unit_test(test_etags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
