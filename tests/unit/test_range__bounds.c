/* Ranges made of bounds, held against the definition on every short key over a few bytes, 0x00 and 0xff among them. */
#include "cmocka.h"

#include "range.h"

static const unsigned char alphabet[] = {0x00, 0x01, 'a', 0xfe, 0xff};
#define LETTERS (sizeof(alphabet))

/* All keys of 1 to 3 letters: number it from 0; size 0 beyond them. */
static struct bts_slice key(unsigned number, char text[3])
{
	size_t size, i, count = LETTERS;

	for (size = 1; size <= 3; size++, count *= LETTERS) {
		if (number < count)
			break;
		number -= (unsigned)count;
	}
	for (i = 0; i < size && size <= 3; i++, number /= LETTERS)
		text[i] = (char)alphabet[number % LETTERS];
	return (struct bts_slice){text, size <= 3 ? size : 0};
}

static int below(struct bts_slice a, struct bts_slice b)
{
	size_t n = a.size < b.size ? a.size : b.size;
	int order = memcmp(a.data, b.data, n);

	return order ? order < 0 : a.size < b.size;
}

static int begins(struct bts_slice k, struct bts_slice prefix)
{
	return k.size >= prefix.size && !memcmp(k.data, prefix.data, prefix.size);
}

static int inside(const struct range *range, struct bts_slice k)
{
	return !(range->low.size && range_compare(k, &range->low) < 0) &&
	       !(range->high.size && range_compare(k, &range->high) >= 0);
}

static void test_prefix(void **state)
{
	char a[3], b[3];
	unsigned i, k;

	(void)state;
	for (i = 0; key(i, a).size; i++) {
		struct range range = {0};

		range_prefix(&range, key(i, a));
		assert_false(range_empty(&range));
		for (k = 0; key(k, b).size; k++)
			assert_int_equal(inside(&range, key(k, b)), begins(key(k, b), key(i, a)));
	}
	assert_int_equal(i, 5 + 25 + 125);
}

static void test_past(void **state)
{
	struct range_bound past;

	(void)state;
	range_past((struct bts_slice){"a/", 2}, &past);
	assert_int_equal(past.size, 2);
	assert_memory_equal(past.bytes, "a0", 2);
	range_past((struct bts_slice){"a\xff\xff", 3}, &past);
	assert_int_equal(past.size, 1);
	assert_memory_equal(past.bytes, "b", 1);
	range_past((struct bts_slice){"\xff\xff", 2}, &past);
	assert_int_equal(past.size, 0);
}

/* A prefix, from and to together: what all three allow, and empty only when nothing is. */
static void test_together(void **state)
{
	char a[3], b[3], c[3], d[3];
	unsigned i, j, m, k;

	(void)state;
	for (i = 0; key(i, a).size; i += 3) {
		for (j = 0; key(j, b).size; j += 7) {
			for (m = 0; key(m, c).size; m += 11) {
				struct range range = {0};
				struct bts_slice prefix = key(i, a), from = key(j, b), to = key(m, c);

				range_to(&range, to);
				range_prefix(&range, prefix);
				range_from(&range, from);
				for (k = 0; key(k, d).size; k++) {
					struct bts_slice it = key(k, d);
					int want = begins(it, prefix) && !below(it, from) && below(it, to);

					assert_int_equal(inside(&range, it), want);
					assert_false(want && range_empty(&range));
				}
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_past),
		cmocka_unit_test(test_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
