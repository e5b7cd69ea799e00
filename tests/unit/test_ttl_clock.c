/* The clock of times to live under clocks that are set on and back. */
#include "cmocka.h"

#include "ttl_clock.h"

#define S UINT64_C(1000000000)

static void test_follows_the_real_clock(void **state)
{
	struct ttl_clock c = {0};

	(void)state;
	assert_int_equal(ttl_clock_read(&c, 1000 * S, 5 * S), 1000 * S);
	assert_int_equal(ttl_clock_read(&c, 1010 * S, 15 * S), 1010 * S);
	assert_int_equal(ttl_clock_read(&c, 1010 * S, 15 * S), 1010 * S);
	assert_int_equal(ttl_clock_stepped(&c), 0);
}

static void test_a_step_on_is_obeyed_and_told_once(void **state)
{
	struct ttl_clock c = {0};

	(void)state;
	(void)ttl_clock_read(&c, 1000 * S, 5 * S);
	assert_int_equal(ttl_clock_read(&c, 4601 * S, 6 * S), 4601 * S);
	assert_int_equal(ttl_clock_stepped(&c), 3600000);
	assert_int_equal(ttl_clock_stepped(&c), 0);
}

static void test_a_step_back_is_caught_up_at_half_the_rate(void **state)
{
	struct ttl_clock c = {0};
	uint64_t before, now;
	unsigned i;

	(void)state;
	before = ttl_clock_read(&c, 1000 * S, 5 * S);
	assert_int_equal(ttl_clock_read(&c, 900 * S, 5 * S), before);
	assert_int_equal(ttl_clock_stepped(&c), -100000);
	assert_int_equal(ttl_clock_read(&c, 910 * S, 15 * S), 1005 * S);
	/* Readings close together must not lose the half. */
	for (i = 1; i <= 1000; i++)
		now = ttl_clock_read(&c, 910 * S + i * 1000, 15 * S + i * 1000);
	assert_int_equal(now, 1005 * S + 500000);
	/* 200 s after the step both are at 1100 s; from then on it is the real one. */
	assert_int_equal(ttl_clock_read(&c, 1100 * S, 205 * S), 1100 * S);
	assert_int_equal(ttl_clock_read(&c, 1101 * S, 206 * S), 1101 * S);
	assert_int_equal(ttl_clock_stepped(&c), 0);
}

static void test_never_back(void **state)
{
	struct ttl_clock c = {0};
	uint64_t x = 1, real = UINT64_C(1700000000) * S, boot = 77 * S, last = 0, now;
	unsigned i;

	(void)state;
	for (i = 0; i < 10000; i++) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		boot += (x >> 40) % (3 * S);
		real += (x >> 40) % (3 * S);
		if ((x >> 33) % 7 == 0)
			real -= (x >> 36) % (50 * S);
		now = ttl_clock_read(&c, real, boot);
		assert_true(now >= last);
		assert_true(now >= real);
		last = now;
	}
	assert_true(ttl_now_ms() > UINT64_C(1500000000000));
	assert_int_equal(ttl_stepped_ms(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follows_the_real_clock),
		cmocka_unit_test(test_a_step_on_is_obeyed_and_told_once),
		cmocka_unit_test(test_a_step_back_is_caught_up_at_half_the_rate),
		cmocka_unit_test(test_never_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
