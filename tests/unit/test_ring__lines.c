/* Lines through bounded memory: whole, in order, none twice; what does not fit is counted; two threads at once. */
#include "cmocka.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "ring.h"

#define LINES 200000u

/* A line that tells its number and has a length of its own. */
static size_t make(char *line, unsigned i)
{
	size_t size = 4 + i * 7919u % 300;

	memset(line, 'a' + (int)(i % 26), size);
	memcpy(line, &i, sizeof(i));
	return size;
}

static void test_full(void **state)
{
	static char line[RING_RECORD_MAX], got[RING_RECORD_MAX];
	unsigned i, put = 0;
	struct ring r;
	uint8_t mark;

	(void)state;
	assert_int_equal(ring_init(&r), 0);
	assert_int_equal(ring_take(&r, &mark, got), 0);
	for (i = 0; i < 30; i++) {
		memset(line, (int)i, sizeof(line));
		put += !ring_put(&r, (uint8_t)i, line, sizeof(line));
	}
	assert_int_equal(put, RING_SIZE / (sizeof(line) + 5));
	assert_int_equal(r.dropped, 30 - put);
	for (i = 0; i < put; i++) {
		assert_int_equal(ring_take(&r, &mark, got), sizeof(line));
		assert_int_equal(mark, i);
		assert_int_equal(got[0], (int)i);
		assert_int_equal(got[sizeof(got) - 1], (int)i);
	}
	assert_int_equal(ring_take(&r, &mark, got), 0);
	assert_int_equal(ring_put(&r, 1, line, sizeof(line)), 0);
	ring_fini(&r);
}

static void *put_all(void *arg)
{
	struct ring *r = arg;
	char line[512];
	unsigned i;

	for (i = 0; i < LINES; i++)
		ring_put(r, (uint8_t)(i & 1), line, make(line, i));
	ring_put(r, 2, "end", 3);
	return NULL;
}

/* The reader is slower at times, so that some are dropped; those that come are right and in order. */
static void test_two_threads(void **state)
{
	static char got[RING_RECORD_MAX];
	unsigned i, taken = 0, next = 0;
	uint64_t before;
	char want[512];
	pthread_t thread;
	struct ring r;
	uint8_t mark = 0;
	size_t n;

	(void)state;
	assert_int_equal(ring_init(&r), 0);
	assert_int_equal(pthread_create(&thread, NULL, put_all, &r), 0);
	for (;;) {
		before = r.dropped;
		n = ring_take(&r, &mark, got);
		if (n && mark == 2)
			break;
		if (!n && r.dropped == before && r.dropped + taken == LINES + 1)
			break; /* the last was dropped */
		if (!n)
			continue;
		memcpy(&i, got, sizeof(i));
		assert_true(i >= next && i < LINES);
		assert_int_equal(n, make(want, i));
		assert_memory_equal(got, want, n);
		assert_int_equal(mark, i & 1);
		next = i + 1;
		taken++;
	}
	pthread_join(thread, NULL);
	assert_int_equal(taken + r.dropped + (mark == 2), LINES + 1);
	assert_true(taken > 0);
	ring_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
