/* Times as a person writes them: what counts, what is refused, and that what is printed is read as the same. */
#include "cmocka.h"

#include "rng.h"
#include "when.h"

#define NOW UINT64_C(1900000000000) /* 2030-03-17T17:46:40Z */

static uint64_t seed;

static void read_as_meant(void **state)
{
	static const struct {
		const char *text, *means;
	} good[] = {
		{"2030-01-31T12:00:00Z", "2030-01-31T12:00:00.000Z"},
		{"2030-01-31T12:00:00.25+02:00", "2030-01-31T10:00:00.250Z"},
		{"2030-01-31 12:00:00-01:30", "2030-01-31T13:30:00.000Z"},
		{"2028-02-29T23:59:59.9999Z", "2028-02-29T23:59:59.999Z"},
		{"2h", "2030-03-17T15:46:40.000Z"},
		{"1500ms", "2030-03-17T17:46:38.500Z"},
		{"3d", "2030-03-14T17:46:40.000Z"},
		{"99999999999d", "1970-01-01T00:00:00.000Z"},
	};
	char text[WHEN_TEXT_SIZE];
	uint64_t ms;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_true(when_parse(good[i].text, NOW, &ms));
		when_text(ms, text);
		assert_string_equal(text, good[i].means);
	}
}

static void what_is_none_is_refused(void **state)
{
	static const char *const bad[] = {"", "5", "x", "h", "-2h", "2 h", "2030-01-31T12:00:00",
		"2030-02-30T12:00:00Z", "2030-01-31T12:00:00.Z", "2030-01-31T12:00:00+2:00",
		"2030-01-31T12:00:00+24:00", "2030-01-31T12:00:00Zx", "2030-01-31T12:00:00+02:00x",
		"2030-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "99999999999999999d"};
	uint64_t ms = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(when_parse(bad[i], NOW, &ms));
	assert_int_equal(ms, 7);
}

static void what_is_printed_is_read(void **state)
{
	char text[WHEN_TEXT_SIZE];
	uint64_t ms;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (int i = 0; i < 10000; i++) {
		uint64_t at = rng_below(&rng, UINT64_C(253402300800000));

		when_text(at, text);
		assert_true(when_parse(text, NOW, &ms));
		assert_int_equal(ms, at);
	}
	when_text(UINT64_MAX, text);
	assert_string_equal(text, "-");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_as_meant),
		cmocka_unit_test(what_is_none_is_refused),
		cmocka_unit_test(what_is_printed_is_read),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
