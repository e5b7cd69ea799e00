/*
 * The last to close a large file that random batches have made sparse makes it small again: never at the cost of what is in it,
 * whatever fails or dies meanwhile, and not for those who wrote little, are not the last, or do not want it.
 */
#include "bed.h"
#include "rng.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#define KEYS 90000u
#define LOAD_BATCH 500u
#define LITTLE 400u /* puts that write more than a MiB, and far less than a quarter of the file */
#define VALUE 150u

static uint64_t seed;

/* A sparse file that was closed, for the tests that only want one. */
static uint8_t *sparse;
static uint64_t sparse_size;

static void open_with(struct bed *bed, uint64_t close_compact)
{
	struct bts_options options;

	bts_options_init(&options);
	options.close_compact = close_compact;
	options.map_bytes = bed->mem ? (uint64_t)ENV_MEM_RESERVE_DEFAULT : UINT64_C(1) << 34;
	options.env = bed->mem ? env_mem_env(bed->mem) : NULL;
	if (bts_open(bed->path, &options, &bed->db, &bed->error))
		fail_msg("open: %s", bed->error.text);
}

static void put_some(struct bed *bed, struct rng *rng, unsigned count, const uint32_t *order)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "b");
	uint8_t value[VALUE];

	for (unsigned i = 0; i < count; i++) {
		uint32_t number = order ? order[i] : (uint32_t)rng_below(rng, KEYS);
		char key[16];

		snprintf(key, sizeof(key), "%08x", number * 2654435761u);
		memset(value, (int)rng_below(rng, 256), sizeof(value));
		assert_int_equal(bts_put(txn, bucket, bed_text(key), (struct bts_slice){value, sizeof(value)}, 0), BTS_OK);
	}
	bed_commit(bed, txn);
}

static void load(struct bed *bed, struct rng *rng)
{
	uint32_t *order = malloc(KEYS * sizeof(*order));

	assert_non_null(order);
	for (uint32_t i = 0; i < KEYS; i++) {
		uint32_t j = (uint32_t)rng_below(rng, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (uint32_t i = 0; i < KEYS; i += LOAD_BATCH)
		put_some(bed, rng, LOAD_BATCH, order + i);
	free(order);
}

/* Of every entry of bucket b, in order, with its version. */
static uint64_t digest(struct bts *db)
{
	struct bts_slice key, value;
	struct bts_cursor *cursor;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	uint64_t sum = 1, count = 0;
	enum bts_err err;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
	for (err = bts_cursor_first(cursor, &key, &value); err == BTS_OK; err = bts_cursor_next(cursor, &key, &value)) {
		for (size_t i = 0; i < key.size; i++)
			sum = sum * 31 + ((const uint8_t *)key.data)[i];
		for (size_t i = 0; i < value.size; i += 37)
			sum = sum * 31 + ((const uint8_t *)value.data)[i];
		sum = (sum * 31 + value.size) * 31 + bts_cursor_version(cursor);
		count++;
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	assert_true(count >= KEYS);
	bts_abort(txn);
	return sum;
}

static uint64_t file_size(const struct bed *bed)
{
	struct stat stat;
	uint64_t size;

	if (bed->mem) {
		assert_non_null(env_mem_bytes(bed->mem, bed->path, &size));
		return size;
	}
	assert_int_equal(lstat(bed->path, &stat), 0);
	return (uint64_t)stat.st_size;
}

static uint64_t live_bytes(struct bed *bed)
{
	struct bts_stat stat = bed_stat(bed);

	return (stat.pages - stat.free_pages) * stat.page_size;
}

static uint64_t cuts(const struct bed *bed)
{
	return env_mem_point_hits(bed->mem, "compact.truncate");
}

/* The sparse file in memory, open; written: in this handle. */
static void init_sparse(struct bed *bed, uint64_t close_compact, bool written)
{
	struct rng rng;

	memset(bed, 0, sizeof(*bed));
	rng_init(&rng, seed + 1);
	bed->mem = env_mem_new(0);
	strcpy(bed->path, "/db");
	env_mem_put_file(bed->mem, bed->path, sparse, sparse_size);
	open_with(bed, close_compact);
	if (written)
		put_some(bed, &rng, LITTLE, NULL);
}

/* Open again, as it is on the disk now: the same contents, and sound. */
static void expect_whole(struct bed *bed, uint64_t contents)
{
	open_with(bed, 0);
	assert_true(digest(bed->db) == contents);
	bed_check(bed);
}

static int make_sparse(void **state)
{
	const uint8_t *bytes;
	struct bed bed = {.path = "/db"};
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	bed.mem = env_mem_new(0);
	open_with(&bed, 0);
	load(&bed, &rng);
	assert_true(bed_stat(&bed).file_bytes > live_bytes(&bed) * 3 / 2);
	assert_true(bed_stat(&bed).file_bytes > 17u << 20);
	bts_close(bed.db);
	assert_int_equal(cuts(&bed), 0);
	bytes = env_mem_bytes(bed.mem, bed.path, &sparse_size);
	sparse = malloc(sparse_size);
	assert_non_null(sparse);
	memcpy(sparse, bytes, sparse_size);
	env_mem_free(bed.mem);
	return 0;
}

static int drop_sparse(void **state)
{
	(void)state;
	free(sparse);
	return 0;
}

static void a_load_leaves_a_small_file(void **state)
{
	struct bed bed;
	struct rng rng;
	uint64_t contents, live;

	(void)state;
	rng_init(&rng, seed);
	bed_init_memory(&bed);
	load(&bed, &rng);
	contents = digest(bed.db);
	live = live_bytes(&bed);
	assert_true(file_size(&bed) > live * 3 / 2);
	bts_close(bed.db);
	assert_true(file_size(&bed) <= live * 23 / 20);
	expect_whole(&bed, contents);
	assert_int_equal(bed_stat(&bed).clean_open, 1);
	put_some(&bed, &rng, LITTLE, NULL);
	bed_fini(&bed);
}

static void not_when_not_wanted(void **state)
{
	struct bed bed;
	uint64_t contents;

	(void)state;
	init_sparse(&bed, 0, true);
	contents = digest(bed.db);
	bts_close(bed.db);
	assert_int_equal(cuts(&bed), 0);
	assert_true(file_size(&bed) >= sparse_size);
	expect_whole(&bed, contents);
	bed_fini(&bed);
}

static void write_and_close(struct bed *bed, struct rng *rng, unsigned puts)
{
	put_some(bed, rng, puts, NULL);
	bts_close(bed->db);
	open_with(bed, 64u << 20);
}

/* Whoever wrote little does not pay for others' slack, and nobody does again when it is gone. */
static void not_every_time(void **state)
{
	struct bed bed;
	struct rng rng;
	uint64_t before;

	(void)state;
	rng_init(&rng, seed + 2);
	init_sparse(&bed, 64u << 20, false);
	for (unsigned i = 0; i < 3; i++)
		write_and_close(&bed, &rng, 3);
	assert_int_equal(cuts(&bed), 0);
	write_and_close(&bed, &rng, LITTLE);
	assert_int_equal(cuts(&bed), 1);
	before = file_size(&bed);
	assert_true(before < sparse_size * 3 / 4);
	/* A batch replaces a tenth of all leaves. */
	for (unsigned i = 0; i < 20; i++)
		write_and_close(&bed, &rng, LITTLE);
	assert_in_range(cuts(&bed) - 1, 2, 20 / 2);
	assert_true(file_size(&bed) < before * 3 / 2);
	bed_fini(&bed);
}

static void no_more_than_allowed(void **state)
{
	struct bed bed;
	uint64_t contents, written;

	(void)state;
	init_sparse(&bed, 1u << 20, true);
	contents = digest(bed.db);
	written = env_mem_counters(bed.mem)->bytes_written;
	bts_close(bed.db);
	written = env_mem_counters(bed.mem)->bytes_written - written;
	/* With the way to each page, the free log and the slots. */
	assert_in_range(written, 1u << 19, 2u << 20);
	assert_int_equal(cuts(&bed), 1);
	expect_whole(&bed, contents);
	bed_fini(&bed);
}

static void not_beside_others(void **state)
{
	struct bts *other;
	struct bed bed;
	uint64_t contents;

	(void)state;
	init_sparse(&bed, 64u << 20, true);
	contents = digest(bed.db);
	if (bed_try_open(&bed, BTS_OPEN_READ_ONLY, &other))
		fail_msg("second handle: %s", bed.error.text);
	bts_close(bed.db);
	assert_int_equal(cuts(&bed), 0);
	assert_true(digest(other) == contents);
	bts_close(other); /* it only read */
	assert_int_equal(cuts(&bed), 0);
	expect_whole(&bed, contents);
	bed_fini(&bed);
}

struct visitor {
	struct bed *bed;
	uint64_t contents;
	_Atomic int stop;
};

static void *visit(void *arg)
{
	struct visitor *visitor = arg;
	struct bed bed = *visitor->bed;

	while (!visitor->stop) {
		open_with(&bed, 0);
		assert_true(digest(bed.db) == visitor->contents);
		bts_close(bed.db);
	}
	return NULL;
}

/* Who opens meanwhile finds what is there. */
static void opened_meanwhile(void **state)
{
	struct visitor visitor = {0};
	pthread_t thread;
	struct bed bed;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	bed_init_file(&bed);
	load(&bed, &rng);
	visitor.bed = &bed;
	visitor.contents = digest(bed.db);
	assert_int_equal(pthread_create(&thread, NULL, visit, &visitor), 0);
	for (unsigned i = 0; i < 5; i++) {
		bts_close(bed.db);
		open_with(&bed, 64u << 20);
	}
	visitor.stop = 1;
	pthread_join(thread, NULL);
	bts_close(bed.db);
	expect_whole(&bed, visitor.contents);
	bed_fini(&bed);
}

static void named_snapshots_and_large_values(void **state)
{
	static uint8_t large[300000];
	struct bed bed;
	struct rng rng;
	struct bts_txn *txn;
	uint64_t contents;
	char key[16];

	(void)state;
	rng_init(&rng, seed + 3);
	for (unsigned named = 0; named < 2; named++) {
		init_sparse(&bed, 64u << 20, true);
		for (unsigned i = 0; i < 40; i++) {
			txn = bed_begin(&bed, BTS_WRITE);
			snprintf(key, sizeof(key), "large-%u", (unsigned)rng_below(&rng, 20));
			memset(large, (int)i, sizeof(large));
			assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text(key),
						 (struct bts_slice){large, 5000 + rng_below(&rng, 290000)}, 0),
				BTS_OK);
			if (named && i == 35)
				assert_int_equal(bts_snapshot_create(txn, bed_text("kept"), NULL), BTS_OK);
			bed_commit(&bed, txn);
			put_some(&bed, &rng, 50, NULL);
		}
		contents = digest(bed.db);
		bts_close(bed.db);
		expect_whole(&bed, contents);
		if (!named)
			assert_true(file_size(&bed) < sparse_size);
		else if (bts_begin_at(bed.db, bed_text("kept"), &txn, &bed.error))
			fail_msg("snapshot: %s", bed.error.text);
		else
			bts_abort(txn);
		bed_fini(&bed);
	}
}

/* Whatever fails at closing: one call in some of each kind. */
static void failing(enum env_mem_op op, int err, unsigned flags, unsigned samples)
{
	uint64_t calls = 0, contents;

	for (unsigned i = 0; i <= samples; i++) {
		struct rng rng;
		struct bed bed;
		uint64_t nth;

		rng_init(&rng, seed * 1000 + op * 100 + i);
		init_sparse(&bed, 64u << 20, true);
		contents = digest(bed.db);
		if (i > 0) {
			assert_true(calls > 0);
			nth = calls * (i - 1) / samples + 1 + rng_below(&rng, calls / samples + 1);
			env_mem_fail(bed.mem, op, nth < calls ? nth : calls, err, flags);
		}
		if (i == 0)
			calls = env_mem_counters(bed.mem)->ops[op];
		bts_close(bed.db);
		if (i == 0)
			calls = env_mem_counters(bed.mem)->ops[op] - calls;
		else if (!env_mem_failed(bed.mem))
			fail_msg("nothing failed");
		env_mem_fail_clear(bed.mem);
		expect_whole(&bed, contents);
		bed_fini(&bed);
	}
}

static void any_call_fails(void **state)
{
	(void)state;
	failing(ENV_MEM_WRITE, EIO, ENV_MEM_PARTIAL, 6);
	failing(ENV_MEM_WRITE, ENOSPC, ENV_MEM_PARTIAL | ENV_MEM_STICKY, 4);
	failing(ENV_MEM_SYNC, EIO, ENV_MEM_DROP, 8);
	failing(ENV_MEM_TRUNCATE, EIO, 0, 1);
	failing(ENV_MEM_IDENTITY, EIO, 0, 4);
	failing(ENV_MEM_LOCK, EIO, 0, 4);
}

static void no_memory(void **state)
{
	uint64_t calls = 0, contents;

	(void)state;
	for (unsigned i = 0; i <= 8; i++) {
		struct rng rng;
		struct bed bed;

		rng_init(&rng, seed * 1000 + i);
		init_sparse(&bed, 64u << 20, true);
		contents = digest(bed.db);
		if (i > 0)
			env_mem_fail_memory(bed.mem, calls * (i - 1) / 8 + 1 + rng_below(&rng, calls / 8), 0);
		else
			calls = env_mem_counters(bed.mem)->allocations;
		bts_close(bed.db);
		if (i == 0)
			calls = env_mem_counters(bed.mem)->allocations - calls;
		env_mem_fail_clear(bed.mem);
		expect_whole(&bed, contents);
		bed_fini(&bed);
	}
}

struct power {
	struct rng rng;
	uint64_t contents;
	uint64_t events, every, images;
};

static struct env_mem_choice choose_any(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct power *power = arg;

	(void)index;
	return (struct env_mem_choice){.version = (unsigned)rng_below(&power->rng, unit->versions)};
}

/* The power goes here, the disk has some of what was not flushed: all of it opens with what was there. */
static void power_lost(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	env_mem_choose_fn *const choices[] = {env_mem_choose_durable, env_mem_choose_newest, choose_any};
	struct power *power = arg;

	(void)event;
	if (power->events++ % power->every != 0)
		return;
	for (unsigned i = 0; i < 3; i++) {
		struct bed image = {.path = "/db"};

		image.mem = env_mem_crash(mem, choices[i], power);
		assert_non_null(image.mem);
		expect_whole(&image, power->contents);
		power->images++;
		bed_fini(&image);
	}
}

static void power_goes_meanwhile(void **state)
{
	struct power power = {.every = UINT64_MAX};
	struct bed bed;

	(void)state;
	rng_init(&power.rng, seed);
	for (unsigned i = 0; i < 2; i++) {
		init_sparse(&bed, 64u << 20, true);
		power.contents = digest(bed.db);
		/* At first they are counted: only the first one is looked at. */
		power.every = i == 0 ? UINT64_MAX : power.events / 12 | 1;
		power.events = 0;
		env_mem_set_hook(bed.mem, power_lost, &power);
		bts_close(bed.db);
		env_mem_set_hook(bed.mem, NULL, NULL);
		assert_true(power.events > 20);
		assert_int_equal(cuts(&bed), 1);
		expect_whole(&bed, power.contents);
		bed_fini(&bed);
	}
	assert_true(power.images >= 36);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_load_leaves_a_small_file),
		cmocka_unit_test(not_when_not_wanted),
		cmocka_unit_test(not_every_time),
		cmocka_unit_test(no_more_than_allowed),
		cmocka_unit_test(not_beside_others),
		cmocka_unit_test(opened_meanwhile),
		cmocka_unit_test(named_snapshots_and_large_values),
		cmocka_unit_test(any_call_fails),
		cmocka_unit_test(no_memory),
		cmocka_unit_test(power_goes_meanwhile),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	print_message("seed %llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, make_sparse, drop_sparse);
}
