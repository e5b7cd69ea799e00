/*
 * How much does a file grow while a reader stands still?  A store is filled, its entries are overwritten at
 * random in batches of 1000, as many as it has or --overwrites, once beside nobody and once beside a
 * transaction that reads from before until after them; the file's size then, while the reader is still there,
 * to that before.  A slice is a whole such run, on a new file.
 */
#include "bench.h"
#include <stdlib.h>

#define READER_CHECKS 1000u

static uint64_t reader_overwrites;

static int reader_option(const char *name, const char *value)
{
	char *end;

	if (strcmp(name, "--overwrites") != 0)
		return 0;
	reader_overwrites = strtoull(value, &end, 10);
	return *value >= '0' && *value <= '9' && !*end && reader_overwrites
		       ? 1
		       : bench_fail("--overwrites: '%s' is no number", value);
}

static int reader_fill(struct bench *bench, struct bench_lane *lane)
{
	uint32_t *order = bench->options.fill_sorted ? NULL : bench_order(bench);
	int err = bench->options.fill_sorted || order ? bench_discard(bench, lane) : -1;

	if (!err)
		err = bench_open(bench, lane);
	if (!err)
		err = bench_load(bench, lane, order, 10000);
	if (!err && lane->store->settle)
		err = lane->store->settle(lane->handle);
	free(order);
	return err;
}

/* The reader sees what was there when it began. */
static int reader_check(struct bench *bench, struct bench_lane *lane, void *reader)
{
	uint64_t random = bench->round_seed;
	uint8_t key[BENCH_KEY_MAX];
	int err = 0;

	for (unsigned i = 0; i < READER_CHECKS && !err; i++) {
		uint64_t index = bench_random(&random) % bench->set.entries;
		struct bench_slice value;
		int found;

		bench_key(&bench->set, index, false, key);
		found = lane->store->get(reader, key, &value);
		if (found < 0)
			err = -1;
		else if (!found || value.size != bench->set.value_size ||
			 memcmp(value.data, bench_value(&bench->set, index, 0), value.size) != 0)
			err = bench_fail("%s showed a reader what was written after it began", lane->name);
	}
	return err;
}

static int reader_overwrite(struct bench *bench, struct bench_lane *lane, uint64_t *bytes)
{
	uint64_t updates = reader_overwrites ? reader_overwrites : bench->set.entries;
	int err = bench_age(bench, lane, updates, bench->round_seed);

	if (!err && lane->store->quiet)
		err = lane->store->quiet(lane->handle);
	return err ? err : bench_dir_bytes(lane->dir, bytes);
}

static int reader_beside(struct bench *bench, struct bench_lane *lane, uint64_t *bytes)
{
	void *reader = lane->store->reader(lane->handle);
	int err = reader ? lane->store->begin(reader, false) : -1;

	if (!err) {
		err = reader_check(bench, lane, reader);
		if (!err)
			err = reader_overwrite(bench, lane, bytes);
		if (!err)
			err = reader_check(bench, lane, reader);
		lane->store->end(reader);
	}
	if (reader)
		lane->store->reader_close(reader);
	return err;
}

/* a: beside a reader */
static int reader_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	uint64_t before = 1, after = 0;
	int err = reader_fill(bench, lane);

	if (!err)
		err = bench_dir_bytes(lane->dir, &before);
	if (!err)
		err = work->a ? reader_beside(bench, lane, &after) : reader_overwrite(bench, lane, &after);
	if (!err)
		err = bench_verify(bench, lane, READER_CHECKS);
	*sample = (double)after / (double)before;
	return err ? err : bench_discard(bench, lane);
}

static const struct bench_work works[] = {
	{.name = "file growth by overwrites", .unit = "ratio", .slice = reader_slice, .a = 0},
	{.name = "file growth by overwrites beside a reader", .unit = "ratio", .slice = reader_slice, .a = 1},
};

int main(int argc, char **argv)
{
	static const struct bench_program program = {.question = "reader",
		.about = "How much does a file grow while a reader stands still?",
		.rounds = 1,
		.option = reader_option,
		.option_help = "  --overwrites N random overwrites beside the reader (as many as entries)"};
	static struct bench bench;
	int err = bench_init(&bench, argc, argv, &program);

	if (!err)
		err = bench_run(&bench, works, BENCH_COUNT(works));
	return bench_end(&bench, err);
}
