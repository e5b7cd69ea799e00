/*
 * A dependent cache miss: one chain through every line of a piece of memory in an order without a pattern,
 * each line holding the number of the next.  In pages of 4 KiB a miss far away also misses the processor's
 * table of pages (TLB) and walks the tables; in huge pages it does not, or seldom.
 */
#include "limits.h"

#define CHASE_LINE 64u
#define CHASE_SIZES 3

static const uint64_t chase_sizes[CHASE_SIZES] = {4u << 20, 128u << 20, 1u << 30};

struct chase_line {
	uint32_t next;
	uint8_t pad[CHASE_LINE - sizeof(uint32_t)];
};

/* By size, then of 4 KiB pages and of huge ones. */
static struct {
	struct chase_line *lines;
	uint32_t at;
} chase[CHASE_SIZES][2];

static void chase_free(void)
{
	for (int i = 0; i < CHASE_SIZES; i++)
		for (int huge = 0; huge < 2; huge++) {
			limits_unmap(chase[i][huge].lines, chase_sizes[i]);
			chase[i][huge].lines = NULL;
		}
}

/* A permutation of the numbers below 2^bits: each of its steps can be undone. */
static uint32_t chase_mix(uint32_t x, unsigned bits)
{
	const uint32_t mask = (uint32_t)((UINT64_C(1) << bits) - 1);

	x = x * 0x9e3779b1u & mask;
	x ^= x >> bits / 2;
	x = x * 0x85ebca6bu & mask;
	x ^= x >> bits / 2;
	return x * 0xc2b2ae35u & mask;
}

static void chase_link(struct chase_line *lines, uint64_t size)
{
	unsigned bits = (unsigned)__builtin_ctzll(size / CHASE_LINE);
	uint32_t count = (uint32_t)1 << bits, at = chase_mix(0, bits);

	for (uint32_t i = 1; i <= count; i++) {
		uint32_t next = chase_mix(i & (count - 1), bits);

		lines[at].next = next;
		at = next;
	}
}

static int chase_make(struct bench *bench)
{
	(void)bench;
	for (int i = 0; i < CHASE_SIZES; i++)
		for (int huge = 0; huge < 2; huge++) {
			chase[i][huge].lines = limits_map(chase_sizes[i], huge);
			if (!chase[i][huge].lines)
				return -1;
			chase_link(chase[i][huge].lines, chase_sizes[i]);
		}
	return 0;
}

static int chase_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	const struct chase_line *lines = chase[work->a][work->b].lines;
	double begin = bench_clock(), end;
	uint32_t at = chase[work->a][work->b].at;
	uint64_t count = 0;

	(void)lane;
	do {
		for (int i = 0; i < 4096; i++)
			at = lines[at].next;
		count += 4096;
		end = bench_clock();
	} while (end - begin < bench->options.seconds);
	chase[work->a][work->b].at = at;
	*sample = (end - begin) / (double)count * 1e9;
	return 0;
}

static const struct bench_work chase_works[] = {
	{.name = "dependent miss in 4 MiB, 4 KiB pages", .unit = "ns", .slice = chase_slice, .a = 0, .b = 0},
	{.name = "dependent miss in 4 MiB, huge pages", .unit = "ns", .slice = chase_slice, .a = 0, .b = 1},
	{.name = "dependent miss in 128 MiB, 4 KiB pages",
		.unit = "ns",
		.slice = chase_slice,
		.a = 1,
		.b = 0},
	{.name = "dependent miss in 128 MiB, huge pages", .unit = "ns", .slice = chase_slice, .a = 1, .b = 1},
	{.name = "dependent miss in 1 GiB, 4 KiB pages", .unit = "ns", .slice = chase_slice, .a = 2, .b = 0},
	{.name = "dependent miss in 1 GiB, huge pages", .unit = "ns", .slice = chase_slice, .a = 2, .b = 1},
};

const struct limits_part limits_chase = {chase_make, chase_free, chase_works, BENCH_COUNT(chase_works)};
