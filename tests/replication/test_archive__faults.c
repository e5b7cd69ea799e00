/*
 * An archiver over a store that fails: nothing is acknowledged that cannot be restored, and what is there can be restored at any moment.
 *
 * A promise is held against the store by what it would be if everything ended now: first the acknowledgement is read, then the bucket is
 * copied, then the newest state of the copy is restored: it must be the acknowledged commit or a later one.
 */
#include "cmocka.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "acks.h"
#include "archive.h"
#include "archive_other.h"
#include "replica.h"
#include "restore.h"
#include "rng.h"
#include "store_mem.h"

static char dir[96];
static uint64_t seed;

/* The wall clock of the archiver can be set; all others run on. */
static _Atomic int64_t clock_off_s;

int clock_gettime(clockid_t id, struct timespec *out)
{
	int result = (int)syscall(SYS_clock_gettime, id, out);

	if (id == CLOCK_REALTIME)
		out->tv_sec += clock_off_s;
	return result;
}

static int setup(void **state)
{
	(void)state;
	replica_enter(dir, sizeof(dir));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	clock_off_s = 0;
	replica_leave(dir);
	return 0;
}

static struct bts *archived_db(void *arg)
{
	return arg;
}

static struct archive *start_with(struct bts *db, struct mem_bucket *bucket, struct archive_options options)
{
	struct archive *archive;
	struct bts_error error;

	options.db = archived_db;
	options.arg = db;
	options.store = mem_store(bucket);
	options.patience_ms = 1;
	if (archive_start(&options, &archive, &error))
		fail_msg("%s", error.text);
	return archive;
}

static struct archive *start(struct bts *db, struct mem_bucket *bucket)
{
	return start_with(db, bucket, (struct archive_options){.look_ms = 20});
}

static bts_txid acknowledged(struct bts *db)
{
	struct bts_position own;
	struct bts_ack ack;

	assert_int_equal(bts_ship_position(db, &own, NULL), BTS_OK);
	return acks_archive(db, &ack) && ack.epoch == own.epoch && ack.epoch_random == own.epoch_random
		       ? ack.txid
		       : 0;
}

static void await_archived(struct bts *db, bts_txid txid)
{
	for (unsigned i = 0; acknowledged(db) < txid; i++) {
		if (i == REPLICA_TIMEOUT_MS)
			fail_msg("commit %" PRIu64 " was not archived", (uint64_t)txid);
		usleep(1000);
	}
}

static void await_held(struct mem_bucket *bucket)
{
	for (unsigned i = 0; !mem_held(bucket); i++) {
		assert_true(i < REPLICA_TIMEOUT_MS);
		usleep(1000);
	}
}

static struct restore_wish newest_of(struct bts *db)
{
	struct restore_wish wish = {.boundary.kind = PLAN_NEWEST};
	struct bts_position own;

	assert_int_equal(bts_ship_position(db, &own, NULL), BTS_OK);
	memcpy(wish.database, own.database, sizeof(wish.database));
	return wish;
}

/* Where a restore of the newest state leads, made for good; empty: there is none. */
static struct bts_position restored(struct mem_bucket *bucket, const struct restore_wish *wish)
{
	struct store *store = mem_store(bucket);
	struct restore_choice choice;
	struct bts_position at = {.txid = 0};
	struct bts_error error;
	char path[160];
	struct restore_options options = {.path = path, .same_database = true};
	struct bts *db;
	enum bts_err err = restore_survey(store, wish, &choice, &error);

	replica_path(path, sizeof(path), dir, "restored.bts");
	if (!err)
		err = restore_choose(wish, &choice, &error);
	if (!err)
		err = restore_file(store, &choice, &options, &error);
	if (err && err != BTS_NOT_FOUND)
		fail_msg("restore: %s", error.text);
	restore_choice_fini(&choice);
	store_close(store);
	if (err)
		return at;
	db = replica_open(path, BTS_OPEN_READ_ONLY);
	assert_int_equal(bts_ship_position(db, &at, NULL), BTS_OK);
	bts_close(db);
	assert_int_equal(unlink(path), 0);
	strcat(path, "-lock");
	unlink(path);
	return at;
}

static void check_promise(struct bts *db, struct mem_bucket *bucket)
{
	bts_txid txid = acknowledged(db);
	struct mem_bucket *now = mem_copy(bucket);
	struct restore_wish wish = newest_of(db);

	assert_true(restored(now, &wish).txid >= txid);
	mem_bucket_free(now);
}

static void check_equal(struct bts *db, struct mem_bucket *bucket)
{
	struct restore_wish wish = newest_of(db);
	struct bts_position own, at = restored(bucket, &wish);

	assert_int_equal(bts_ship_position(db, &own, NULL), BTS_OK);
	assert_true(position_equal(&own, &at));
}

/* Commit, with that call failing in that way, until all is well again.  False: there were not as many calls. */
static bool fault(enum mem_fault kind, unsigned n)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct archive *archive;
	bool met;
	char name[160];

	mem_fail(bucket, kind, n);
	archive = start_with(db, bucket, (struct archive_options){.look_ms = 1});
	for (unsigned round = 0; round < 3; round++) {
		replica_put(db, round, 3, round, 500);
		for (unsigned i = 0;
			acknowledged(db) < replica_txid(db) && !(kind == MEM_STICKY && mem_failed(bucket));
			i++) {
			assert_true(i < REPLICA_TIMEOUT_MS);
			usleep(1000);
		}
	}
	check_promise(db, bucket);
	met = mem_failed(bucket) > 0;
	mem_heal(bucket);
	await_archived(db, replica_txid(db));
	archive_stop(archive);
	/* Another life of it. */
	archive = start(db, bucket);
	replica_put(db, 9, 1, 9, 50);
	await_archived(db, replica_txid(db));
	archive_stop(archive);
	check_equal(db, bucket);
	bts_close(db);
	mem_bucket_free(bucket);
	replica_path(name, sizeof(name), dir, "primary.bts");
	assert_int_equal(unlink(name), 0);
	strcat(name, "-lock");
	unlink(name);
	return met;
}

static void test_each_call_fails(void **state)
{
	(void)state;
	for (enum mem_fault kind = 0; kind < MEM_FAULTS; kind++) {
		unsigned met = 0;

		for (unsigned n = 1; n <= 11; n++)
			met += fault(kind, n);
		assert_true(met >= 8);
	}
}

static void test_emptied(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct archive *archive = start(db, bucket);

	(void)state;
	replica_put(db, 0, 5, 0, 100);
	await_archived(db, replica_txid(db));
	mem_empty(bucket);
	for (unsigned i = 0; !mem_count(bucket, "/manifest/"); i++) {
		assert_true(i < REPLICA_TIMEOUT_MS);
		usleep(1000);
	}
	check_equal(db, bucket);
	archive_stop(archive);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* What was pruned is built upon no more, though a manifest still names it. */
static void test_pruned(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct archive *archive = start(db, bucket);
	struct store *store = mem_store(bucket);
	struct archive_status status;
	struct bts_position own;

	(void)state;
	replica_put(db, 0, 5, 0, 100);
	await_archived(db, replica_txid(db));
	archive_stop(archive);
	assert_int_equal(bts_ship_position(db, &own, NULL), BTS_OK);
	other_prune(store, &own);
	store_close(store);
	replica_put(db, 0, 5, 1, 100);
	archive = start(db, bucket);
	await_archived(db, replica_txid(db));
	archive_status(archive, &status);
	assert_int_equal(status.fulls, 1);
	archive_stop(archive);
	check_equal(db, bucket);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* Parts of increments, which are but the last one's named. */
static enum bts_err prune_unnamed(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	struct manifest_part part;

	(void)size, (void)modified_ms;
	return manifest_part_key_parse(key, &part) && part.base ? store_delete(arg, key, error) : BTS_OK;
}

/* A frame waits for its manifest until its parts may have been pruned: then others are named. */
static void test_rests(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new(), *then;
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct store *store = mem_store(bucket), *seen;
	struct archive *archive;
	struct bts_error error;

	(void)state;
	replica_put(db, 0, 5, 0, 100);
	archive = start_with(db, bucket, (struct archive_options){.rest_ms = 50});
	await_archived(db, replica_txid(db));
	mem_fail(bucket, MEM_STICKY, 2); /* the manifest: the part is stored */
	replica_put(db, 0, 5, 1, 100);
	for (unsigned i = 0; !mem_failed(bucket); i++) {
		assert_true(i < REPLICA_TIMEOUT_MS);
		usleep(1000);
	}
	then = mem_copy(bucket);
	seen = mem_store(then);
	usleep(60000);
	mem_heal(bucket);
	if (store_list(seen, "", "", prune_unnamed, store, &error))
		fail_msg("%s", error.text);
	await_archived(db, replica_txid(db));
	archive_stop(archive);
	check_equal(db, bucket);
	store_close(seen);
	store_close(store);
	mem_bucket_free(then);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* All entries of the archive. */
static struct catalog read_catalog(struct bts *db, struct mem_bucket *bucket)
{
	struct restore_wish wish = newest_of(db);
	struct store *store = mem_store(bucket);
	struct catalog catalog;
	struct bts_error error;

	if (catalog_read(store, wish.database, &catalog, &error))
		fail_msg("%s", error.text);
	assert_int_equal(catalog.hole_count, 0);
	store_close(store);
	return catalog;
}

/* What a frame begins at is pruned while it is written, and another archiver is faster. */
static void test_base_pruned(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct store *store = mem_store(bucket);
	struct archive *archive;
	struct bts_position base;
	struct catalog catalog;

	(void)state;
	replica_put(db, 0, 5, 0, 100);
	archive = start_with(db, bucket, (struct archive_options){.db = NULL});
	await_archived(db, replica_txid(db));
	assert_int_equal(bts_ship_position(db, &base, NULL), BTS_OK);
	mem_hold(bucket, ".000000");
	replica_put(db, 0, 5, 1, 100);
	await_held(bucket);
	other_enter(store, &base);
	other_prune(store, &base);
	mem_heal(bucket);
	await_archived(db, replica_txid(db));
	archive_stop(archive);
	catalog = read_catalog(db, bucket);
	for (size_t i = 0; i < catalog.count; i++)
		assert_true(catalog.entries[i].from.txid == 0 || catalog.entries[i].from.txid > base.txid);
	catalog_fini(&catalog);
	check_equal(db, bucket);
	store_close(store);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* Two at once, on handles of their own, while somebody commits. */
static void test_two_archivers(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0),
		   *other = replica_open_in(dir, "primary.bts", BTS_OPEN_READ_ONLY);
	struct archive *first = start(db, bucket), *second = start(other, bucket);
	struct archive_status status;

	(void)state;
	for (unsigned round = 0; round < 60; round++) {
		replica_put(db, round % 7, 3, round, 300);
		if (round % 3 == 0)
			await_archived(db, replica_txid(db));
		if (round % 20 == 0)
			check_promise(db, bucket);
	}
	await_archived(db, replica_txid(db));
	archive_status(first, &status);
	assert_int_equal(status.failures, 0);
	archive_stop(first);
	archive_stop(second);
	check_equal(db, bucket);
	bts_close(other);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* Of one history, the later commit never has the lower time. */
static void check_times(const struct catalog *catalog)
{
	for (size_t i = 0; i < catalog->count; i++)
		for (size_t k = 0; k < catalog->count; k++)
			if (catalog->entries[i].to.txid < catalog->entries[k].to.txid)
				assert_true(catalog->entries[i].time_ms <= catalog->entries[k].time_ms);
}

/* Many increments: some begin where earlier ones did; full frames meanwhile, joined to them; the clock goes back. */
static void test_long(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct archive *archive = start_with(db, bucket, (struct archive_options){.look_ms = 50});
	struct catalog catalog;
	size_t fulls = 0, longer = 0, blocks;
	struct plan plan;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		if (round == 100)
			clock_off_s = -3600;
		if (round == 200) {
			archive_stop(archive);
			archive = start_with(
				db, bucket, (struct archive_options){.look_ms = 50, .full_ms = 30});
		}
		replica_put(db, round % 50, 3, round, 200);
		await_archived(db, replica_txid(db));
	}
	archive_stop(archive);
	check_equal(db, bucket);
	catalog = read_catalog(db, bucket);
	check_times(&catalog);
	for (size_t i = 0; i < catalog.count; i++) {
		fulls += !catalog.entries[i].from.txid;
		longer += catalog.entries[i].from.txid &&
			  catalog.entries[i].to.txid - catalog.entries[i].from.txid >= 64;
	}
	blocks = catalog.block_count;
	assert_true(fulls >= 2 && longer >= 3 && blocks >= 2);
	/* Nothing is there that cannot be used. */
	assert_int_equal(plan_init(&plan, catalog.entries, catalog.count, 0, 0, NULL), BTS_OK);
	for (size_t i = 0; i < plan.boundary_count; i++)
		assert_true(plan.boundaries[i].frames > 0 && plan.boundaries[i].frames < 140);
	plan_fini(&plan);
	catalog_fini(&catalog);
	bts_close(db);
	mem_bucket_free(bucket);
}

static void put_noise(struct bts *db, struct rng *rng, unsigned key)
{
	static uint8_t value[2 << 20];
	struct bts_bucket *b;
	struct bts_txn *txn;

	rng_fill(rng, value, sizeof(value));
	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"noise", 5}, BTS_CREATE, &b, NULL), BTS_OK);
	assert_int_equal(bts_put(txn, b, (struct bts_slice){&key, sizeof(key)},
				 (struct bts_slice){value, sizeof(value)}, 0),
		BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
}

/* A full frame of several parts: increments go on meanwhile, and are acknowledged. */
static void test_parts(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct archive *archive;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (unsigned i = 0; i < 20; i++)
		put_noise(db, &rng, i);
	archive = start(db, bucket);
	await_archived(db, replica_txid(db));
	assert_true(mem_count(bucket, ".000002") > 0);
	archive_stop(archive);
	replica_put(db, 0, 3, 0, 100);
	mem_hold(bucket, "-000000000000-"); /* the next full one */
	archive = start_with(db, bucket, (struct archive_options){.look_ms = 20, .full_ms = 1});
	await_held(bucket);
	/* It is stopped at once also while a put hangs. */
	archive_stop(archive);
	mem_heal(bucket);
	archive = start_with(db, bucket, (struct archive_options){.look_ms = 20, .full_ms = 1});
	for (unsigned round = 0; round < 20; round++) {
		replica_put(db, round, 3, round, 100);
		await_archived(db, replica_txid(db));
	}
	check_promise(db, bucket);
	archive_stop(archive);
	check_equal(db, bucket);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* Commits that nobody waits for. */
static void put_many(struct bts *db, unsigned count)
{
	struct bts_bucket *b;
	struct bts_txn *txn;

	for (unsigned i = 0; i < count; i++) {
		unsigned key = i % 100;

		assert_int_equal(bts_begin(db, BTS_WRITE | BTS_ASYNC, &txn, NULL), BTS_OK);
		assert_int_equal(bts_bucket(txn, (struct bts_slice){"many", 4}, BTS_CREATE, &b, NULL), BTS_OK);
		assert_int_equal(bts_put(txn, b, (struct bts_slice){&key, sizeof(key)}, (struct bts_slice){&i, sizeof(i)}, 0),
			BTS_OK);
		assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	}
	assert_int_equal(bts_sync(db, NULL), BTS_OK);
}

/*
 * A full frame that takes longer than positions are kept: it is gone on from all the same, and nothing is acknowledged before it.  They
 * are kept for 2^20 commits, which BTS_ARCHIVE_COMMITS=1200000 exceeds (a minute); without it, the same with few.
 */
static void test_slow_full(void **state)
{
	const char *many = getenv("BTS_ARCHIVE_COMMITS");
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct archive_status status;
	struct bts_ack ack = {.txid = 0};
	struct archive *archive;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (unsigned i = 0; i < 20; i++)
		put_noise(db, &rng, i);
	mem_hold(bucket, "-000000000000-"); /* parts of the full frame */
	archive = start(db, bucket);
	await_held(bucket);
	for (unsigned part = 0; part < 2; part++) {
		put_many(db, many ? (unsigned)strtoul(many, NULL, 10) / 2 : 300);
		mem_hold(bucket, part ? ".000002" : ".000001");
		await_held(bucket);
	}
	assert_int_equal(mem_count(bucket, "/manifest/"), 2); /* of two increments: nothing leads to them yet */
	assert_true(bts_ack_list(db, &ack, 1) == 0 || ack.txid == 0);
	mem_heal(bucket);
	await_archived(db, replica_txid(db));
	archive_status(archive, &status);
	archive_stop(archive);
	assert_int_equal(status.fulls, 1);
	check_equal(db, bucket);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* A store that is too slow for the writer: the frame is given up for what it keeps, and its parts go. */
static void test_pins(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0);
	struct archive_status status;
	struct archive *archive;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (unsigned i = 0; i < 20; i++)
		put_noise(db, &rng, i);
	mem_hold(bucket, ".000001");
	archive = start_with(db, bucket, (struct archive_options){.look_ms = 20, .pin_limit = 1 << 20});
	await_held(bucket);
	for (unsigned i = 0; i < 3; i++)
		put_noise(db, &rng, i);
	usleep(1100000); /* it is looked at once in a second */
	mem_heal(bucket);
	await_archived(db, replica_txid(db));
	archive_status(archive, &status);
	archive_stop(archive);
	assert_true(status.failures > 0);
	assert_non_null(strstr(status.last_error, "broken off"));
	assert_int_equal(mem_count(bucket, ".000001"), 1);
	check_equal(db, bucket);
	bts_close(db);
	mem_bucket_free(bucket);
}

/* Where the old primary went on alone is archived, and nothing is built upon it. */
static void test_other_history(void **state)
{
	struct mem_bucket *bucket = mem_bucket_new();
	struct bts *db = replica_open_in(dir, "primary.bts", 0), *heir;
	struct archive *archive = start(db, bucket);
	struct bts_position fork, dead, at;
	struct restore_wish wish;
	struct catalog catalog;
	size_t from_fork = 0;

	(void)state;
	replica_put(db, 0, 5, 0, 100);
	await_archived(db, replica_txid(db));
	archive_stop(archive);
	assert_int_equal(bts_ship_position(db, &fork, NULL), BTS_OK);
	bts_close(db);
	replica_copy(dir, "primary.bts", "heir.bts");
	db = replica_open_in(dir, "primary.bts", 0);
	archive = start(db, bucket);
	for (unsigned round = 0; round < 5; round++) {
		replica_put(db, 1, 3, 7 + round, 100);
		await_archived(db, replica_txid(db));
	}
	archive_stop(archive);
	assert_int_equal(bts_ship_position(db, &dead, NULL), BTS_OK);
	bts_close(db);

	heir = replica_open_in(dir, "heir.bts", BTS_OPEN_FOLLOWER | BTS_OPEN_FENCE);
	assert_int_equal(bts_promote(heir, NULL, NULL, NULL), BTS_OK);
	archive = start(heir, bucket);
	replica_put(heir, 2, 3, 1, 100);
	await_archived(heir, replica_txid(heir));
	archive_stop(archive);
	check_equal(heir, bucket);
	catalog = read_catalog(heir, bucket);
	for (size_t i = 0; i < catalog.count; i++) {
		const struct manifest_entry *entry = &catalog.entries[i];

		if (entry->to.epoch != fork.epoch) {
			assert_true(!entry->from.txid || entry->from.epoch != fork.epoch ||
				    entry->from.txid <= fork.txid);
			from_fork += entry->from.txid != 0;
		}
	}
	assert_true(from_fork > 0); /* it went on, and did not begin anew */
	catalog_fini(&catalog);
	/* The dead history is still there for who asks for it by name. */
	wish = newest_of(heir);
	wish.epoch = dead.epoch;
	wish.epoch_random = dead.epoch_random;
	at = restored(bucket, &wish);
	assert_true(position_equal(&at, &dead));
	bts_close(heir);
	mem_bucket_free(bucket);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_call_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_emptied, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pruned, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_base_pruned, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_archivers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_history, setup, teardown),
	};

	seed = rng_seed_from(argc, argv, (uint64_t)time(NULL));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
