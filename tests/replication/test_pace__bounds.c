/* A rate over all streams: never more than the rate and one burst in any span, and never much less when somebody always wants more. */
#include "cmocka.h"

#include "pace.h"
#include "rng.h"

#define STEPS 4000

static uint64_t seed;

static void all_is_granted_without_a_rate(void **state)
{
	struct pace pace;

	(void)state;
	pace_init(&pace, 0, 5);
	assert_int_equal(pace_take(&pace, 1 << 30, 5), 1 << 30);
	assert_int_equal(pace_due(&pace), 5);
}

/* As the loop does it: takes when it is due, sleeps until then when nothing comes. */
static void spans_are_bounded(void **state)
{
	static const uint64_t rates[] = {PACE_RATE_LEAST, 100000, 1 << 20, 250000000};
	static uint64_t sent[STEPS + 1], when[STEPS + 1];
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (size_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++) {
		struct pace pace;
		uint64_t now = 1000, total = 0;

		pace_init(&pace, rates[r], now);
		for (int i = 0; i < STEPS; i++) {
			size_t wanted = 1 + rng_below(&rng, 128 * 1024), got = pace_take(&pace, wanted, now);
			size_t unused = got && rng_below(&rng, 4) == 0 ? rng_below(&rng, got) : 0;

			assert_true(got <= wanted);
			assert_true(got == 0 || got == wanted || got >= PACE_LEAST);
			pace_return(&pace, unused);
			total += got - unused;
			sent[i] = total;
			when[i] = now;
			for (int k = 0; k < i; k += 1 + (int)rng_below(&rng, 500))
				assert_true(sent[i] - (k ? sent[k - 1] : 0) <=
					    (now - when[k]) * rates[r] / 1000 + pace_burst(&pace) + 1);
			if (!got)
				now = pace_due(&pace) > now ? pace_due(&pace) : now + 1;
			else if (rng_below(&rng, 50) == 0)
				now += rng_below(&rng, 3000);
		}
	}
}

static void the_rate_is_reached(void **state)
{
	struct pace pace;
	uint64_t now = 77, total = 0, naps = 0;

	(void)state;
	pace_init(&pace, 1000000, now);
	while (now < 77 + 60000) {
		size_t got = pace_take(&pace, 128 * 1024, now);

		total += got;
		assert_true(total <= 60000000 + pace_burst(&pace));
		if (!got) {
			assert_true(pace_due(&pace) > now); /* or the loop would spin */
			now = pace_due(&pace);
			naps++;
		}
	}
	assert_in_range(total, 59900000, 60000000 + pace_burst(&pace));
	assert_true(naps <= 60000000 / PACE_LEAST + 1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_is_granted_without_a_rate),
		cmocka_unit_test(spans_are_bounded),
		cmocka_unit_test(the_rate_is_reached),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
