/*
 * How fast bytes are copied and summed: memcpy and CRC32C, of a page that the first cache holds and of memory
 * that none does.
 */
#include "limits.h"

#include <crc32c.h>

#define MEMORY_PAGE 4096u
#define MEMORY_SIZE (512u << 20)

static uint8_t *memory_from, *memory_to;
static uint64_t memory_random;

static void memory_free(void)
{
	limits_unmap(memory_from, MEMORY_SIZE);
	limits_unmap(memory_to, MEMORY_SIZE);
	memory_from = memory_to = NULL;
}

static int memory_make(struct bench *bench)
{
	memory_random = bench->options.seed;
	memory_from = limits_map(MEMORY_SIZE, false);
	memory_to = limits_map(MEMORY_SIZE, false);
	return memory_from && memory_to ? 0 : -1;
}

static int memory_copy(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	double begin = bench_clock(), end;
	size_t size = (size_t)work->a;
	uint64_t count = 0;

	(void)lane;
	do {
		memcpy(memory_to, memory_from, size);
		limits_keep(memory_to[size - 1]);
		count++;
		end = bench_clock();
	} while (end - begin < bench->options.seconds);
	*sample = (double)count * (double)size / (end - begin) / 1e9;
	return 0;
}

/* Cold pages are taken at random from all memory, so that each comes from behind the caches. */
static int memory_sum(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	double begin = bench_clock(), end, each;
	bool cold = work->a != 0, rate = work->more;
	uint64_t count = 0;
	uint32_t sum = 0;

	(void)lane;
	do {
		for (int i = 0; i < 256; i++, count++) {
			uint64_t page = cold ? bench_random(&memory_random) % (MEMORY_SIZE / MEMORY_PAGE) : 0;

			sum ^= crc32c(sum, memory_from + page * MEMORY_PAGE, MEMORY_PAGE);
		}
		end = bench_clock();
	} while (end - begin < bench->options.seconds);
	limits_keep(sum);
	each = (end - begin) / (double)count;
	*sample = rate ? MEMORY_PAGE / each / 1e9 : each * 1e6;
	return 0;
}

static const struct bench_work memory_works[] = {
	{.name = "memcpy of 4 KiB, hot",
		.unit = "GB/s",
		.more = true,
		.slice = memory_copy,
		.a = MEMORY_PAGE},
	{.name = "memcpy of 512 MiB", .unit = "GB/s", .more = true, .slice = memory_copy, .a = MEMORY_SIZE},
	{.name = "CRC32C of 4 KiB, hot", .unit = "us", .slice = memory_sum},
	{.name = "CRC32C of 4 KiB, hot, rate", .unit = "GB/s", .more = true, .slice = memory_sum},
	{.name = "CRC32C of 4 KiB, cold", .unit = "us", .slice = memory_sum, .a = 1},
	{.name = "CRC32C of 4 KiB, cold, rate", .unit = "GB/s", .more = true, .slice = memory_sum, .a = 1},
};

const struct limits_part limits_memory = {memory_make, memory_free, memory_works, BENCH_COUNT(memory_works)};
