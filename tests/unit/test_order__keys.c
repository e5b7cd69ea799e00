/*
 * order_keys against the definition: ascending, equal numbers as they came, nothing lost; of few and of many, near together and
 * anywhere, in order already and backwards.  Random, from a seed that is printed and taken as argument.
 */
#include "base/order.h"

#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MANY 3000u

static uint64_t seed;

static uint64_t random_next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void check(struct order_key *keys, size_t count, const uint64_t *numbers)
{
	struct order_key *room = malloc((count + 1) * sizeof(*room)); /* as large as promised, for who looks beyond it */
	uint8_t *seen = calloc(count + 1, 1);

	order_keys(keys, room, count);
	for (size_t i = 0; i < count; i++) {
		assert_true(keys[i].place < count);
		assert_int_equal(seen[keys[i].place]++, 0);
		assert_int_equal(keys[i].number, numbers[keys[i].place]);
		if (i == 0)
			continue;
		assert_true(keys[i - 1].number <= keys[i].number);
		if (keys[i - 1].number == keys[i].number)
			assert_true(keys[i - 1].place < keys[i].place);
	}
	free(room);
	free(seen);
}

static void in_order(void **state)
{
	static const unsigned shifts[] = { 0, 16, 40, 52, 60, 63 };
	uint64_t *numbers = malloc(MANY * sizeof(*numbers));
	struct order_key *keys = malloc(MANY * sizeof(*keys));

	(void)state;
	for (size_t round = 0; round < 400; round++) {
		size_t count = random_next() % (round % 4 == 0 ? MANY : 70);
		uint64_t base = random_next();

		for (size_t i = 0; i < count; i++) {
			numbers[i] = base + (random_next() >> shifts[round % 6]);
			if (round % 7 == 0)
				numbers[i] = base + i;
			if (round % 7 == 1)
				numbers[i] = base - i;
			keys[i] = (struct order_key){ numbers[i], i };
		}
		check(keys, count, numbers);
	}
	free(numbers);
	free(keys);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) | 1;
	printf("seed %llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
