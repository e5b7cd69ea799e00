/*
 * bytes.h: byte order, every width, unaligned, and that a store touches nothing beyond its width.
 */
#include "bytes.h"

#include "cmocka.h"

static const uint8_t bytes[9] = {0xee, 0x01, 0x02, 0x83, 0x04, 0x85, 0x06, 0x07, 0xf8};

static void loads(void **state)
{
	(void)state;
	assert_int_equal(bytes_get_u16(bytes + 1), 0x0201);
	assert_int_equal(bytes_get_u32(bytes + 1), 0x04830201);
	assert_int_equal(bytes_get_u48(bytes + 1), UINT64_C(0x068504830201));
	assert_int_equal(bytes_get_u64(bytes + 1), UINT64_C(0xf807068504830201));
	assert_int_equal(bytes_get_be32(bytes + 1), 0x01028304);
	assert_int_equal(bytes_get_be64(bytes + 1), UINT64_C(0x01028304850607f8));
}

static void put(uint8_t *at, int width, uint64_t v)
{
	switch (width) {
	case 2:
		bytes_put_u16(at, (uint16_t)v);
		break;
	case 4:
		bytes_put_u32(at, (uint32_t)v);
		break;
	case 6:
		bytes_put_u48(at, v);
		break;
	default:
		bytes_put_u64(at, v);
	}
}

static void stores(void **state)
{
	const uint64_t v = UINT64_C(0xf807068504830201);

	(void)state;
	for (int width = 2; width <= 8; width += 2) {
		uint8_t to[12];

		memset(to, 0xaa, sizeof(to));
		put(to + 1, width, v);
		assert_memory_equal(to + 1, bytes + 1, (size_t)width);
		assert_int_equal(to[0], 0xaa);
		for (int i = 1 + width; i < 12; i++)
			assert_int_equal(to[i], 0xaa);
	}
}

static void big_endian_is_key_order(void **state)
{
	const uint64_t values[] = {0, 1, 255, 256, 65535, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX};
	uint8_t a[9] = {0}, b[9] = {0};

	(void)state;
	for (int i = 0; i + 1 < 8; i++) {
		bytes_put_be64(a + 1, values[i]);
		bytes_put_be64(b + 1, values[i + 1]);
		assert_true(memcmp(a, b, sizeof(a)) < 0);
		assert_int_equal(bytes_get_be64(a + 1), values[i]);
		bytes_put_be32(a + 1, (uint32_t)values[i]);
		assert_int_equal(bytes_get_be32(a + 1), (uint32_t)values[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads),
		cmocka_unit_test(stores),
		cmocka_unit_test(big_endian_is_key_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
