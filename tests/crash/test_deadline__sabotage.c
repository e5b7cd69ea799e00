/* Does test_deadline__random notice a check that is dropped?  And does it find nothing when none is (base/fault.h)? */
#include "cmocka.h"

#include <fault.h>
#include <stdio.h>

#include "deadline_run.h"

#define SEEDS 10u

unsigned fault_sabotage;

static unsigned findings(unsigned rule)
{
	unsigned sum = 0;

	fault_sabotage = rule;
	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		struct deadline_counts counts;

		deadline_run(seed, rule == FAULT_NONE, &counts);
		sum += counts.findings;
	}
	fault_sabotage = FAULT_NONE;
	return sum;
}

static void test_noticed(void **state)
{
	static const unsigned rules[] = {FAULT_R8_WRITE_LATE, FAULT_R8_TELL_LATE, FAULT_R8_ONE_TERM};

	(void)state;
	assert_int_equal(findings(FAULT_NONE), 0);
	for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		unsigned found = findings(rules[i]);

		printf("rule %u dropped: %u findings\n", rules[i], found);
		assert_true(found > 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_noticed)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
