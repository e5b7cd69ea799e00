/*
 * CRC32C: by the processor's instruction where there is one, else by tables, eight bytes at a time
 * (slicing-by-8, Kounavis and Berry 2005).
 *
 * The x86 instruction takes three cycles but one can start every cycle, so long input is cut into three lanes
 * of equal length that run interleaved.  The checksum is linear: that of a lane followed by n bytes is the
 * lane's state pushed through n zero bytes, xor the state of those n bytes alone.  Pushing through the zero
 * bytes of one lane is four look-ups in a table made for that length.
 *
 * Where there is carry-less multiplication four times two words at once, long input is folded instead (Gopal et al. 2009):
 * 16 bytes of state, D bytes before others, stand for the polynomial high * x^(8D + 64) + low * x^(8D); so each half is
 * multiplied by that power modulo the polynomial and both are added to the bytes that stand D further on.  What
 * is left in the end are 16 bytes with the same checksum as all of the input.
 *
 * Checksums are joined as zlib's crc32_combine does it (Adler): that of a is pushed through as many zero bytes as b has by
 * one multiplication with the power of x for that length.
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

/* a * b modulo the polynomial; the highest bit is the lowest power. */
static uint32_t crc32c_times_portable(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a != 0; a <<= 1) {
		product ^= b & -(a >> 31);
		b = b >> 1 ^ (CRC32C_POLYNOMIAL & -(b & 1));
	}
	return product;
}

uint32_t crc32c_join_portable(uint32_t a, uint32_t b, uint32_t shift)
{
	return crc32c_times_portable(a, shift) ^ b;
}

#if defined(__x86_64__)

#include <immintrin.h>

/* Three long lanes are a 4 KiB page less its own checksum, nearly; the short ones serve what remains. */
#define CRC32C_LONG 1360
#define CRC32C_SHORT 168

static uint32_t crc32c_push_long[4][256], crc32c_push_short[4][256];
static int crc32c_have_instruction, crc32c_have_product;

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

/* A product of 32 by 32 bits comes out one bit low of 64, and its later half stands 32 powers higher. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_times_instruction(uint32_t a, uint32_t b)
{
	__m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0);
	uint64_t wide = (uint64_t)_mm_cvtsi128_si64(product) << 1;

	return (uint32_t)(wide >> 32) ^ _mm_crc32_u32(0, (uint32_t)wide);
}

static uint32_t crc32c_times(uint32_t a, uint32_t b)
{
	return crc32c_have_product ? crc32c_times_instruction(a, b) : crc32c_times_portable(a, b);
}

#define CRC32C_WIDE __attribute__((target("avx512f,vpclmulqdq,sse4.2")))
#define CRC32C_FOLD 256 /* bytes of a step of folding */

static int crc32c_have_folding;
/* To fold 16 bytes by 256, 64, 48, 32 and 16 bytes: the multipliers of their halves. */
static uint64_t crc32c_by_256[2], crc32c_by_64[2], crc32c_by_48[2], crc32c_by_32[2], crc32c_by_16[2];

/* x^n modulo the polynomial, the highest power in the lowest bit of 64.  A product of such words comes out one bit low. */
static uint64_t crc32c_power(unsigned n)
{
	uint32_t state = 0x80000000u;

	for (; n > 0; n--)
		state = state >> 1 ^ (state & 1 ? CRC32C_POLYNOMIAL : 0);
	return (uint64_t)state << 32;
}

static void crc32c_make_fold(uint64_t by[2], unsigned bytes)
{
	by[0] = crc32c_power(8 * bytes + 64 - 1);
	by[1] = crc32c_power(8 * bytes - 1);
}

CRC32C_WIDE static inline __m512i crc32c_fold(__m512i state, __m512i by, __m512i next)
{
	__m512i high = _mm512_clmulepi64_epi128(state, by, 0x00), low = _mm512_clmulepi64_epi128(state, by, 0x11);

	return _mm512_ternarylogic_epi64(high, low, next, 0x96); /* the sum of all three */
}

CRC32C_WIDE static inline __m512i crc32c_by(const uint64_t by[2])
{
	return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)by));
}

/* 64 bytes into one state: the quarters lie 48, 32, 16 and no bytes before the last. */
CRC32C_WIDE static uint32_t crc32c_fold_end(__m512i state)
{
	__m512i by = _mm512_castsi128_si512(_mm_loadu_si128((const void *)crc32c_by_48)), folded;
	__m128i sum;
	uint64_t wide;

	by = _mm512_inserti32x4(by, _mm_loadu_si128((const void *)crc32c_by_32), 1);
	by = _mm512_inserti32x4(by, _mm_loadu_si128((const void *)crc32c_by_16), 2);
	by = _mm512_inserti32x4(by, _mm_setzero_si128(), 3);
	folded = crc32c_fold(state, by, _mm512_setzero_si512());
	sum = _mm_xor_si128(_mm512_castsi512_si128(folded), _mm512_extracti32x4_epi32(folded, 1));
	sum = _mm_xor_si128(sum, _mm512_extracti32x4_epi32(folded, 2));
	sum = _mm_xor_si128(sum, _mm512_extracti32x4_epi32(state, 3));
	wide = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(sum));
	return (uint32_t)_mm_crc32_u64(wide, (uint64_t)_mm_extract_epi64(sum, 1));
}

/* The state after the bytes at p, a multiple of 64 and at least CRC32C_FOLD. */
CRC32C_WIDE static uint32_t crc32c_folded(uint32_t state, const uint8_t *p, size_t size)
{
	const uint8_t *end = p + size;
	__m512i by = crc32c_by(crc32c_by_256), begin = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state));
	__m512i a = _mm512_xor_si512(_mm512_loadu_si512(p), begin), b = _mm512_loadu_si512(p + 64);
	__m512i c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);

	for (p += CRC32C_FOLD; end - p >= CRC32C_FOLD; p += CRC32C_FOLD) {
		a = crc32c_fold(a, by, _mm512_loadu_si512(p));
		b = crc32c_fold(b, by, _mm512_loadu_si512(p + 64));
		c = crc32c_fold(c, by, _mm512_loadu_si512(p + 128));
		d = crc32c_fold(d, by, _mm512_loadu_si512(p + 192));
	}
	by = crc32c_by(crc32c_by_64);
	d = crc32c_fold(crc32c_fold(crc32c_fold(a, by, b), by, c), by, d);
	for (; p < end; p += 64)
		d = crc32c_fold(d, by, _mm512_loadu_si512(p));
	return crc32c_fold_end(d);
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(
	uint32_t seed, const uint8_t *p, size_t size)
{
	uint32_t state = ~seed;
	uint64_t wide;

	if (size >= CRC32C_FOLD && crc32c_have_folding) {
		state = crc32c_folded(state, p, size & ~(size_t)63);
		p += size & ~(size_t)63;
		size &= 63;
	}
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
	crc32c_have_product = __builtin_cpu_supports("pclmul");
	crc32c_make_fold(crc32c_by_256, 256);
	crc32c_make_fold(crc32c_by_64, 64);
	crc32c_make_fold(crc32c_by_48, 48);
	crc32c_make_fold(crc32c_by_32, 32);
	crc32c_make_fold(crc32c_by_16, 16);
	crc32c_have_folding = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
}

uint32_t crc32c(uint32_t seed, const void *data, size_t size)
{
	if (crc32c_have_instruction)
		return crc32c_instruction(seed, data, size);
	return crc32c_portable(seed, data, size);
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

#include <arm_acle.h>

#define crc32c_times crc32c_times_portable

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

#define crc32c_times crc32c_times_portable

__attribute__((constructor)) static void crc32c_prepare(void)
{
	crc32c_make_slices();
}

uint32_t crc32c(uint32_t seed, const void *data, size_t size)
{
	return crc32c_portable(seed, data, size);
}

#endif

uint32_t crc32c_shift(uint64_t size)
{
	uint32_t power = 0x80000000u; /* 1 */

	for (int bit = 63 - __builtin_clzll(size | 1); bit >= 0; bit--) {
		power = crc32c_times(power, power);
		if (size >> bit & 1)
			power = crc32c_times(power, 0x80000000u >> 8);
	}
	return power;
}

uint32_t crc32c_join(uint32_t a, uint32_t b, uint32_t shift)
{
	return crc32c_times(a, shift) ^ b;
}
