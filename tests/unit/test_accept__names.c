/* Accept headers: which media types they name. */
#include "cmocka.h"

#include "accept.h"

static void test_names(void **state)
{
	static const struct {
		const char *header;
		int names;
	} cases[] = {
		{"application/x-ndjson", 1},
		{"Application/X-NDJSON", 1},
		{" application/x-ndjson ", 1},
		{"application/x-ndjson;q=0.001", 1},
		{"application/x-ndjson;charset=utf-8", 1},
		{"application/x-ndjson ; q=1", 1},
		{"text/html, application/x-ndjson;q=0.5", 1},
		{",, application/x-ndjson,", 1},
		{"text/html;q=0,application/x-ndjson", 1},
		{"a/b;x=\"\\\",;q=0\",application/x-ndjson", 1},
		{"application/x-ndjson;x=\",;q=0\"", 1},
		{"application/x-ndjson;q=0, application/x-ndjson", 1},
		{"application/x-ndjson;q=0", 0},
		{"application/x-ndjson;q=0.", 0},
		{"application/x-ndjson; Q=0.000", 0},
		{"application/x-ndjson;a=b;q=0 ", 0},
		{"application/x-ndjsonfoo", 0},
		{"xapplication/x-ndjson", 0},
		{"application/x-ndjso", 0},
		{"text/html;x=application/x-ndjson", 0},
		{"text/html;x=\",application/x-ndjson,\"", 0},
		{"text/html;x=\"", 0},
		{"text/html;x=\"\\", 0},
		{"text/html;", 0},
		{"*/*", 0},
		{"application/*", 0},
		{"", 0},
		{"application/json", 0},
	};
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (accept_names(cases[i].header, "application/x-ndjson") != cases[i].names)
			fail_msg("%s", cases[i].header);
	assert_int_equal(accept_names(NULL, "application/x-ndjson"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
