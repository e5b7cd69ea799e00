/*
 * Commits that are not waited for (BTS_ASYNC): readers see them at once, the replicator does not, bts_sync or the delay makes
 * them durable, a crash before goes back to the last durable commit and no further.  And exclusive transactions, of which
 * nobody else can commit in between.
 */
#include "bed.h"

#include <btree_store/ship.h>
#include <pthread.h>

#define DELAY_NEVER 3600000u /* of the background flush, where the test decides when */

static void open_with_delay(struct bed *bed, unsigned delay_ms)
{
	struct bts_options options;

	bts_close(bed->db);
	bts_options_init(&options);
	options.map_bytes = bed->mem ? (uint64_t)ENV_MEM_RESERVE_DEFAULT : UINT64_C(1) << 34;
	options.env = bed->mem ? env_mem_env(bed->mem) : NULL;
	options.async_delay_ms = delay_ms;
	assert_int_equal(bts_open(bed->path, &options, &bed->db, &bed->error), BTS_OK);
}

static void set_async(struct bed *bed, const char *key, const char *value)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE | BTS_ASYNC);

	bed_put(txn, "b", key, value);
	bed_commit(bed, txn);
}

static bts_txid shipped(struct bed *bed)
{
	struct bts_position position;

	assert_int_equal(bts_ship_position(bed->db, &position, &bed->error), BTS_OK);
	return position.txid;
}

static void seen_but_not_shipped(void **state)
{
	struct bed bed;
	struct bts_stat before, after;

	(void)state;
	bed_init_file(&bed);
	open_with_delay(&bed, DELAY_NEVER);
	bed_set(&bed, "b", "k", "durable");
	before = bed_stat(&bed);
	for (unsigned i = 0; i < 50; i++) {
		char value[16];

		snprintf(value, sizeof(value), "%u", i);
		set_async(&bed, "k", value);
		bed_holds(&bed, "b", "k", value);
	}
	after = bed_stat(&bed);
	assert_int_equal(after.commits - before.commits, 50);
	assert_int_equal(after.flushes, before.flushes);
	assert_int_equal(after.durable_txid, before.durable_txid);
	assert_true(after.txid > before.txid);
	assert_int_equal(shipped(&bed), before.txid);
	assert_int_equal(bts_sync(bed.db, &bed.error), BTS_OK);
	assert_int_equal(bed_stat(&bed).durable_txid, after.txid);
	assert_int_equal(shipped(&bed), after.txid);
	/* A commit that waits brings along those before it. */
	set_async(&bed, "k", "again");
	bed_set(&bed, "b", "other", "1");
	assert_int_equal(bed_stat(&bed).durable_txid, bed_stat(&bed).txid);
	bed_fini(&bed);
}

static void the_delay_ends(void **state)
{
	struct bed bed;
	bts_txid txid, durable;

	(void)state;
	bed_init_file(&bed);
	open_with_delay(&bed, 20);
	set_async(&bed, "k", "v");
	txid = bed_stat(&bed).txid;
	assert_int_equal(bts_ship_wait(bed.db, txid - 1, 60000, &durable), BTS_OK);
	assert_true(durable >= txid);
	/* Closing waits for what is owed. */
	open_with_delay(&bed, DELAY_NEVER);
	set_async(&bed, "k", "w");
	bed_reopen(&bed);
	assert_int_equal(bed_stat(&bed).clean_open, 1);
	bed_holds(&bed, "b", "k", "w");
	bed_fini(&bed);
}

struct image {
	uint64_t bits[4];
};

static struct env_mem_choice choose_random(void *arg, size_t index, const struct env_mem_unit *unit)
{
	const struct image *image = arg;
	uint64_t word = image->bits[index / 64 % 4] >> index % 64;

	return (struct env_mem_choice){ .version = word & 1 ? unit->versions - 1 : 0 };
}

/* The machine stops with `count` commits not flushed: the last durable one, or any later one that was, opens. */
static void after_a_crash(void **state)
{
	uint64_t seed = 88172645463325252u;

	(void)state;
	for (unsigned round = 0; round < 60; round++) {
		struct env_mem *after;
		struct image image;
		struct bed bed, then;
		bts_txid low;

		bed_init_memory(&bed);
		open_with_delay(&bed, DELAY_NEVER);
		bed_set(&bed, "b", "k", "first");
		for (unsigned i = 0; i < round % 7; i++)
			set_async(&bed, "k", i % 2 ? "odd" : "even");
		if (round % 3 == 0)
			assert_int_equal(bts_sync(bed.db, &bed.error), BTS_OK);
		low = bed_stat(&bed).durable_txid;
		set_async(&bed, "k", "last");
		for (unsigned i = 0; i < 4; i++) {
			seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
			image.bits[i] = round < 2 ? 0 : round < 4 ? UINT64_MAX : seed;
		}
		after = env_mem_crash(bed.mem, choose_random, &image);
		memset(&then, 0, sizeof(then));
		then.mem = after;
		strcpy(then.path, bed.path);
		bed_open(&then);
		assert_true(bed_stat(&then).txid >= low);
		if (round % 3 == 0 && round % 7 > 0)
			bed_holds(&then, "b", "k", (round % 7 - 1) % 2 ? "odd" : "even");
		bed_set(&then, "b", "k", "goes on");
		bed_holds(&then, "b", "k", "goes on");
		bed_fini(&then);
		bed_fini(&bed);
	}
}

struct rival {
	struct bed *bed;
	pthread_t thread;
	unsigned commits;
};

static enum bts_err count_up(struct bts_txn *txn, void *arg)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	uint64_t count = 0;
	enum bts_err err = bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, NULL);

	(void)arg;
	if (err)
		return err;
	if (bts_get(txn, bucket, bed_text("n"), &value) == BTS_OK)
		memcpy(&count, value.data, sizeof(count));
	count++;
	return bts_put(txn, bucket, bed_text("n"), (struct bts_slice){ &count, sizeof(count) }, 0);
}

static void *rival_run(void *arg)
{
	struct rival *rival = arg;

	for (unsigned i = 0; i < 200; i++) {
		if (bts_update(rival->bed->db, count_up, NULL, NULL))
			abort();
		rival->commits++;
	}
	return NULL;
}

/* Read, think, write: no conflict, however many others commit. */
static void exclusive_never_conflicts(void **state)
{
	struct rival rivals[3];
	struct bts_txn *txn;
	struct bts_slice value;
	uint64_t count = 0;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	for (unsigned i = 0; i < 3; i++) {
		rivals[i] = (struct rival){ .bed = &bed };
		assert_int_equal(pthread_create(&rivals[i].thread, NULL, rival_run, &rivals[i]), 0);
	}
	for (unsigned i = 0; i < 200; i++) {
		txn = bed_begin(&bed, BTS_WRITE | BTS_EXCLUSIVE | (i % 2 ? BTS_ASYNC : 0));
		assert_int_equal(count_up(txn, NULL), BTS_OK);
		if (i % 10 == 9)
			bts_abort(txn);
		else
			bed_commit(&bed, txn);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(rivals[i].thread, NULL);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_get(txn, bed_find(txn, "b"), bed_text("n"), &value), BTS_OK);
	memcpy(&count, value.data, sizeof(count));
	bts_abort(txn);
	assert_int_equal(count, 3 * 200 + 180);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seen_but_not_shipped),
		cmocka_unit_test(the_delay_ends),
		cmocka_unit_test(after_a_crash),
		cmocka_unit_test(exclusive_never_conflicts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
