/*
 * CRC32C: by the processor's instruction where there is one, else by tables, eight bytes at a time
 * (slicing-by-8, Kounavis and Berry 2005).
 *
 * The x86 instruction takes three cycles but one can start every cycle, so long input is cut into three lanes
 * of equal length that run interleaved.  The checksum is linear: that of a lane followed by n bytes is the
 * lane's state pushed through n zero bytes, xor the state of those n bytes alone.  Pushing through the zero
 * bytes of one lane is four look-ups in a table made for that length.
 *
 * The tables are made once, before main, so that no call has to ask.
 */
#include "crc32c.h"

#include "bytes.h"

#define CRC32C_POLYNOMIAL 0x82f63b78u

static uint32_t crc32c_slice[8][256];

static void crc32c_make_slices(void)
{
	for (uint32_t n = 0; n < 256; n++) {
		uint32_t state = n;

		for (int bit = 0; bit < 8; bit++)
			state = state >> 1 ^ (state & 1 ? CRC32C_POLYNOMIAL : 0);
		crc32c_slice[0][n] = state;
	}
	for (int k = 1; k < 8; k++)
		for (int n = 0; n < 256; n++) {
			uint32_t below = crc32c_slice[k - 1][n];

			crc32c_slice[k][n] = below >> 8 ^ crc32c_slice[0][below & 0xff];
		}
}

uint32_t crc32c_portable(uint32_t seed, const void *data, size_t size)
{
	const uint8_t *p = data;
	uint32_t state = ~seed;

	for (; size >= 8; p += 8, size -= 8) {
		uint64_t v = bytes_get_u64(p) ^ state;

		state = 0;
		for (int k = 0; k < 8; k++)
			state ^= crc32c_slice[7 - k][v >> 8 * k & 0xff];
	}
	for (; size > 0; p++, size--)
		state = state >> 8 ^ crc32c_slice[0][(state ^ *p) & 0xff];
	return ~state;
}

#if defined(__x86_64__)

#include <nmmintrin.h>

/* Three long lanes are a 4 KiB page less its own checksum, nearly; the short ones serve what remains. */
#define CRC32C_LONG 1360
#define CRC32C_SHORT 168

static uint32_t crc32c_push_long[4][256], crc32c_push_short[4][256];
static int crc32c_have_instruction;

__attribute__((target("sse4.2"))) static uint32_t crc32c_zeros(uint32_t state, size_t size)
{
	uint64_t wide = state;

	for (; size > 0; size -= 8)
		wide = _mm_crc32_u64(wide, 0);
	return (uint32_t)wide;
}

static void crc32c_make_push(uint32_t table[4][256], size_t size)
{
	for (int k = 0; k < 4; k++)
		for (int bit = 0; bit < 8; bit++) {
			uint32_t pushed = crc32c_zeros(1u << (8 * k + bit), size);

			for (int n = 0; n < 256; n++)
				if (n >> bit & 1)
					table[k][n] ^= pushed;
		}
}

static inline uint32_t crc32c_push(const uint32_t table[4][256], uint32_t state)
{
	return table[0][state & 0xff] ^ table[1][state >> 8 & 0xff] ^ table[2][state >> 16 & 0xff] ^
	       table[3][state >> 24];
}

/* 3 * lane bytes at p; lane is a multiple of 8 and the length that table was made for. */
__attribute__((target("sse4.2"))) static uint32_t crc32c_lanes(
	uint32_t state, const uint8_t *p, size_t lane, const uint32_t table[4][256])
{
	uint64_t a = state, b = 0, c = 0;

	for (const uint8_t *end = p + lane; p < end; p += 8) {
		a = _mm_crc32_u64(a, bytes_get_u64(p));
		b = _mm_crc32_u64(b, bytes_get_u64(p + lane));
		c = _mm_crc32_u64(c, bytes_get_u64(p + 2 * lane));
	}
	state = crc32c_push(table, (uint32_t)a) ^ (uint32_t)b;
	return crc32c_push(table, state) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(
	uint32_t seed, const uint8_t *p, size_t size)
{
	uint32_t state = ~seed;
	uint64_t wide;

	for (; size >= 3 * CRC32C_LONG; p += 3 * CRC32C_LONG, size -= 3 * CRC32C_LONG)
		state = crc32c_lanes(state, p, CRC32C_LONG, crc32c_push_long);
	for (; size >= 3 * CRC32C_SHORT; p += 3 * CRC32C_SHORT, size -= 3 * CRC32C_SHORT)
		state = crc32c_lanes(state, p, CRC32C_SHORT, crc32c_push_short);
	wide = state;
	for (; size >= 8; p += 8, size -= 8)
		wide = _mm_crc32_u64(wide, bytes_get_u64(p));
	state = (uint32_t)wide;
	for (; size > 0; p++, size--)
		state = _mm_crc32_u8(state, *p);
	return ~state;
}

__attribute__((constructor)) static void crc32c_prepare(void)
{
	crc32c_make_slices();
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("sse4.2"))
		return;
	crc32c_make_push(crc32c_push_long, CRC32C_LONG);
	crc32c_make_push(crc32c_push_short, CRC32C_SHORT);
	crc32c_have_instruction = 1;
}

uint32_t crc32c(uint32_t seed, const void *data, size_t size)
{
	if (crc32c_have_instruction)
		return crc32c_instruction(seed, data, size);
	return crc32c_portable(seed, data, size);
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

#include <arm_acle.h>

__attribute__((constructor)) static void crc32c_prepare(void)
{
	crc32c_make_slices();
}

uint32_t crc32c(uint32_t seed, const void *data, size_t size)
{
	const uint8_t *p = data;
	uint32_t state = ~seed;

	for (; size >= 8; p += 8, size -= 8)
		state = __crc32cd(state, bytes_get_u64(p));
	for (; size > 0; p++, size--)
		state = __crc32cb(state, *p);
	return ~state;
}

#else

__attribute__((constructor)) static void crc32c_prepare(void)
{
	crc32c_make_slices();
}

uint32_t crc32c(uint32_t seed, const void *data, size_t size)
{
	return crc32c_portable(seed, data, size);
}

#endif
