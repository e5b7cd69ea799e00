/* Several sources: which is asked next, and when there is nobody left. */
#include "cmocka.h"

#include <stdio.h>
#include <string.h>

#include "sources.h"

static void test_lists(void **state)
{
	static const char *const bad[] = {"", ",", "http://a:1,", "http://", "ftp://a:1", "http://a:1,b:2", "http://a:1?x", "http://u@a:1",
		"http://a:1 ,http://b:2", "http://a:", "http://a:0", "http://a:65536", "http://a:1x", "http://a:123456", "http://:1", "http://[::1",
		"http://[::1]1", "http:///x"};
	struct sources sources = {.count = 0}, before;
	char many[SOURCES_MAX * 16 + 32] = "", longest[SOURCES_URL_MAX + 16] = "http://";
	size_t i;

	(void)state;
	assert_int_equal(sources_parse(&sources, "http://a:1/,https://b:2//,HTTP://c:3", NULL), BTS_OK);
	assert_int_equal(sources.count, 3);
	assert_string_equal(sources.urls[0], "http://a:1");
	assert_string_equal(sources.urls[1], "https://b:2");
	before = sources;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sources_parse(&sources, bad[i], NULL), BTS_INVALID);
	for (i = 0; i <= SOURCES_MAX; i++)
		sprintf(many + strlen(many), "%shttp://n:%zu", i ? "," : "", i + 1);
	assert_int_equal(sources_parse(&sources, many, NULL), BTS_INVALID);
	memset(longest + 7, 'x', SOURCES_URL_MAX + 1 - 7);
	assert_int_equal(sources_parse(&sources, longest, NULL), BTS_INVALID);
	assert_memory_equal(&before, &sources, sizeof(sources)); /* untouched by all of that */
	longest[SOURCES_URL_MAX] = '\0';
	assert_int_equal(sources_parse(&sources, longest, NULL), BTS_OK);
}

static void test_order(void **state)
{
	struct sources sources;

	(void)state;
	assert_int_equal(sources_parse(&sources, "http://a:1,http://b:2", NULL), BTS_OK);
	assert_string_equal(sources_current(&sources), "http://a:1");
	sources_next(&sources);
	assert_string_equal(sources_current(&sources), "http://b:2");
	assert_true(sources_refused(&sources));
	assert_string_equal(sources_current(&sources), "http://a:1");
	sources_answered(&sources); /* it does not refuse */
	assert_true(sources_refused(&sources));
	assert_false(sources_refused(&sources));
	assert_string_equal(sources_current(&sources), "http://b:2");
}

/* One that refuses for ever and one that cannot be reached: the first asked twice is not both. */
static void test_unreachable(void **state)
{
	struct sources sources;

	(void)state;
	assert_int_equal(sources_parse(&sources, "http://a:1,http://b:2", NULL), BTS_OK);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(sources_refused(&sources));
		assert_string_equal(sources_current(&sources), "http://b:2");
		sources_next(&sources); /* no answer */
		assert_string_equal(sources_current(&sources), "http://a:1");
	}
	sources_next(&sources);
	assert_false(sources_refused(&sources));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_unreachable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
