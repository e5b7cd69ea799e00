/* Figures of a transfer and ages of commits, by a clock of their own. */
#include "cmocka.h"

#include <stdlib.h>
#include <string.h>

#include "ages.h"
#include "jsontext.h"
#include "progress.h"

static void a_transfer(void **state)
{
	struct progress p = {0};

	(void)state;
	progress_came(&p, 10, 4096, 5); /* none is under way */
	assert_int_equal(p.done, 0);
	progress_begin(&p, 100 * 4096, 1000);
	progress_came(&p, 4096, 2 * 4096, 1500);
	assert_int_equal(p.done, 2 * 4096);
	assert_int_equal(p.total, 100 * 4096);
	assert_int_equal(p.rate, 0); /* not known yet */
	progress_came(&p, 4096, 50 * 4096, 3000);
	assert_int_equal(p.rate, 4096); /* two pages in two seconds */
	progress_came(&p, 8192, 60 * 4096, 4000);
	assert_int_equal(p.rate, 8192);
	progress_came(&p, 4096, 10 * 4096, 4001); /* it never goes back */
	assert_int_equal(p.done, 60 * 4096);
	progress_came(&p, 4096, 120 * 4096, 4002); /* the file has grown */
	assert_int_equal(p.total, 120 * 4096);
	progress_came(&p, 4096, 120 * 4096, 3000); /* nor does a clock that went back harm */
	progress_end(&p);
	assert_true(p.done == 0 && p.total == 0 && p.rate == 0);
	progress_begin(&p, 0, 5000);
	progress_came(&p, 4096, 4096, 5000);
	assert_int_equal(p.total, 0); /* not told */
}

static void ages_of_commits(void **state)
{
	struct ages *ages = calloc(1, sizeof(*ages));
	uint64_t now = 100000;

	(void)state;
	assert_non_null(ages);
	ages->since_ms = 90000;
	assert_int_equal(ages_after(ages, 5, now), 10000); /* nothing is known: since the start */
	for (bts_txid txid = 10; txid < 10 + 3 * AGES_MAX; txid++)
		ages_note(ages, txid, now += AGES_STEP_MS);
	assert_int_equal(ages_after(ages, 10 + 3 * AGES_MAX - 2, now), 0);
	assert_int_equal(ages_after(ages, 10 + 3 * AGES_MAX - 5, now), 3 * AGES_STEP_MS);
	assert_int_equal(ages_after(ages, 1, now), (AGES_MAX - 1) * AGES_STEP_MS); /* at least that old */
	ages_note(ages, 10 + 3 * AGES_MAX, now + 1); /* too soon for one of its own */
	ages_note(ages, 5, now + 1000);		     /* and an older one is none */
	assert_int_equal(ages_after(ages, 10 + 3 * AGES_MAX - 2, now + 7), 7);
	free(ages);
}

static void strings(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	(void)state;
	jsontext_string(out, "a\"b\\c\n\x7f\xff d");
	fclose(out);
	assert_string_equal(text, "\"a\\\"b\\\\c\\u000a\\u007f\\u00ff d\"");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_transfer),
		cmocka_unit_test(ages_of_commits),
		cmocka_unit_test(strings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
