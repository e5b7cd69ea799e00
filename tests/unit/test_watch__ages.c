/* Ages of states and of silences of change feeds. */
#include "cmocka.h"

#include "watch_internal.h"

/* One that was kept after its round had looked at the clock was taken for older than all: the first bookmark of a feed was gone at once. */
static void test_ages(void **state)
{
	(void)state;
	assert_true(watch_is_past(1000, 300, 1301));
	assert_false(watch_is_past(1000, 300, 1300));
	assert_false(watch_is_past(1000, 300, 1000));
	assert_false(watch_is_past(1001, 300, 1000));
	assert_false(watch_is_past(UINT64_MAX, 0, 0));
	assert_true(watch_is_past(0, 0, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
