/*
 * Compaction beside everything else: data and key versions stay, the file becomes as small as what lives in it, never larger, and
 * snapshots keep what they saw.
 */
#include "bed.h"
#include "oracle.h"
#include "rng.h"

#define KEYS 3000u
#define BUCKETS 4u
#define SLACK_PAGES 96u /* what a small file keeps ready for the next commits, and what is not worth a step */
#define LARGE_PAGES 52u /* of the largest value: less than two of them may not be brought together */

static uint64_t seed;

struct pin {
	struct bts_txn *txn; /* NULL: none */
	struct oracle view;
};

struct world {
	struct bed bed;
	struct rng rng;
	struct oracle now;
	uint64_t identities;
	struct pin pins[3];
	uint8_t bytes[200000];
	bool large; /* values that go to extents too */
};

static void world_init(struct world *w, bool large)
{
	memset(w, 0, sizeof(*w));
	bed_init_memory(&w->bed);
	rng_init(&w->rng, seed++);
	w->large = large;
}

static void world_verify(struct world *w)
{
	struct bts_txn *txn = bed_begin(&w->bed, BTS_READ);

	oracle_verify(txn, &w->now);
	bts_abort(txn);
}

static void world_fini(struct world *w)
{
	world_verify(w);
	bed_fini(&w->bed);
	oracle_fini(&w->now);
}

static struct bts_slice world_name(unsigned bucket)
{
	static const char *const names[BUCKETS] = {"a", "bucket with a longer name", "c", "d"};

	return bed_text(names[bucket]);
}

static struct bts_slice world_key(unsigned key, char text[32])
{
	snprintf(text, 32, "key-%08x-%u", key * 2654435761u, key);
	return bed_text(text);
}

static struct bts_slice world_value(struct world *w)
{
	size_t size = rng_below(&w->rng, 300);

	if (w->large && rng_one_in(&w->rng, 12))
		size = 2000 + rng_below(&w->rng, rng_one_in(&w->rng, 10) ? sizeof(w->bytes) - 2000 : 20000);
	for (size_t i = 0; i < size; i += 64)
		w->bytes[i] = (uint8_t)rng_next(&w->rng);
	return (struct bts_slice){w->bytes, size};
}

static struct oracle_bucket *world_bucket(
	struct world *w, struct bts_txn *txn, unsigned b, struct bts_bucket **bucket)
{
	struct oracle_bucket *mine = oracle_bucket(&w->now, world_name(b));

	assert_int_equal(bts_bucket(txn, world_name(b), BTS_CREATE, bucket, NULL), BTS_OK);
	if (mine == NULL) {
		struct bts_bucket_info info;

		assert_int_equal(bts_bucket_info(txn, *bucket, &info), BTS_OK);
		mine = oracle_create(&w->now, world_name(b), w->now.txid + 1, ++w->identities);
	}
	return mine;
}

/* Puts, or with `gone` parts of 8 deletions, in one transaction. */
static void world_write(struct world *w, unsigned changes, unsigned gone)
{
	struct bts_txn *txn = bed_begin(&w->bed, BTS_WRITE);
	bts_txid txid;

	w->now.txid = bts_txn_id(txn);
	while (changes-- > 0) {
		unsigned b = (unsigned)rng_below(&w->rng, BUCKETS);
		struct bts_bucket *bucket;
		struct oracle_bucket *mine = world_bucket(w, txn, b, &bucket);
		char text[32];
		struct bts_slice key = world_key((unsigned)rng_below(&w->rng, KEYS), text), value;

		if (rng_below(&w->rng, 8) < gone) {
			assert_int_equal(
				bts_del(txn, bucket, key), oracle_del(mine, key) ? BTS_OK : BTS_NOT_FOUND);
			continue;
		}
		value = world_value(w);
		assert_int_equal(bts_put(txn, bucket, key, value, 0), BTS_OK);
		oracle_put(mine, key, value, w->now.txid + 1);
	}
	assert_int_equal(bts_commit_id(txn, &txid, &w->bed.error), BTS_OK);
	if (txid != w->now.txid + 1 && txid != w->now.txid)
		fail_msg("transaction %llu after %llu", (unsigned long long)txid,
			(unsigned long long)w->now.txid);
	w->now.txid = txid;
}

static void world_load(struct world *w, unsigned commits)
{
	for (unsigned i = 0; i < commits; i++)
		world_write(w, 60, 0);
}

static struct bts_compact_info world_step(struct world *w, uint64_t budget)
{
	struct bts_stat before = bed_stat(&w->bed), after;
	struct bts_compact_info info = {.size = sizeof(info)};

	if (bts_compact_step(w->bed.db, budget, &info, &w->bed.error))
		fail_msg("compact: %s", w->bed.error.text);
	after = bed_stat(&w->bed);
	assert_true(after.pages <= before.pages);
	assert_true(after.file_bytes <= before.file_bytes);
	assert_int_equal(after.pages, info.pages);
	assert_int_equal(after.file_bytes, info.file_bytes);
	w->now.txid = after.txid;
	return info;
}

/* Until nothing more is to be gained. */
static struct bts_compact_info world_compact(struct world *w, uint64_t budget)
{
	struct bts_compact_info info;
	unsigned steps = 0;

	do {
		info = world_step(w, budget);
		assert_true(++steps < 10000);
	} while (info.more);
	return info;
}

static void expect_small(struct world *w)
{
	struct bts_stat stat = bed_stat(&w->bed);
	uint64_t live = stat.pages - stat.first_page - stat.free_pages;

	if (stat.free_pages > 32 + live / 20 + (w->large ? 2 * LARGE_PAGES : 0))
		fail_msg("%llu of %llu pages are free", (unsigned long long)stat.free_pages,
			(unsigned long long)stat.pages);
	assert_true(stat.file_bytes / stat.page_size <= stat.pages + stat.pages / 16 + SLACK_PAGES);
}

static void shrinks(bool large, uint64_t budget)
{
	struct world w;
	struct bts_stat before;

	world_init(&w, large);
	world_load(&w, 60);
	for (int i = 0; i < 50; i++)
		world_write(&w, 150, 7);
	before = bed_stat(&w.bed);
	world_compact(&w, budget);
	bed_check(&w.bed);
	expect_small(&w);
	assert_true(bed_stat(&w.bed).file_bytes < before.file_bytes * 3 / 4);
	world_verify(&w);
	bed_reopen(&w.bed);
	world_load(&w, 5);
	world_fini(&w);
}

static void shrinks_to_what_lives(void **state)
{
	(void)state;
	shrinks(false, 1000);
	shrinks(false, 64);
	shrinks(false, 5);
}

static void large_values_move(void **state)
{
	(void)state;
	shrinks(true, 1000);
	shrinks(true, 100);
	shrinks(true, 1);
}

/* A file without waste stays as it is. */
static void dense_files_stay(void **state)
{
	struct world w;
	struct bts_stat before;
	unsigned steps = 0;

	(void)state;
	world_init(&w, true);
	world_load(&w, 30);
	world_compact(&w, 500);
	before = bed_stat(&w.bed);
	while (world_step(&w, 500).more)
		assert_true(++steps < 3);
	assert_true(bed_stat(&w.bed).txid <= before.txid + 2);
	world_fini(&w);
}

static void empty_buckets_and_reopening(void **state)
{
	struct world w;
	uint64_t largest = 0;

	(void)state;
	world_init(&w, true);
	for (unsigned cycle = 0; cycle < 40; cycle++) {
		struct bts_txn *txn = bed_begin(&w.bed, BTS_WRITE);
		char name[32];

		for (unsigned i = 0; i < 20; i++) {
			snprintf(name, sizeof(name), "empty-%u-%u", cycle % 3, i);
			if (oracle_bucket(&w.now, bed_text(name)) == NULL)
				oracle_create(&w.now, bed_text(name), bts_txn_id(txn) + 1, ++w.identities);
			bed_bucket(txn, name);
		}
		bed_commit(&w.bed, txn);
		for (unsigned i = 0; i < 4; i++) {
			world_write(&w, 30, 0);
			world_write(&w, 60, 7);
		}
		world_compact(&w, 1 + rng_below(&w.rng, 300));
		bed_check(&w.bed);
		world_verify(&w);
		expect_small(&w);
		if (cycle < 25 && bed_stat(&w.bed).file_bytes > largest)
			largest = bed_stat(&w.bed).file_bytes;
		if (cycle >= 25)
			assert_true(bed_stat(&w.bed).file_bytes <= largest * 3 / 2);
		bed_reopen(&w.bed);
	}
	world_fini(&w);
}

static void pin(struct world *w, struct pin *p)
{
	p->txn = bed_begin(&w->bed, BTS_READ);
	oracle_copy(&p->view, &w->now);
	oracle_verify(p->txn, &p->view);
}

static void unpin(struct pin *p)
{
	if (p->txn == NULL)
		return;
	oracle_verify(p->txn, &p->view);
	bts_abort(p->txn);
	oracle_fini(&p->view);
	p->txn = NULL;
}

static void beside_a_reader(void **state)
{
	struct bts_compact_info info;
	struct world w;
	bts_txid snapshot;
	uint64_t pinned;

	(void)state;
	world_init(&w, true);
	world_load(&w, 100);
	pin(&w, &w.pins[0]);
	snapshot = bts_txn_id(w.pins[0].txn);
	for (int i = 0; i < 40; i++)
		world_write(&w, 150, 7);
	info = world_compact(&w, 200);
	assert_int_equal(info.reader, snapshot);
	pinned = info.file_bytes;
	for (int i = 0; i < 10; i++)
		world_write(&w, 50, 2);
	oracle_verify(w.pins[0].txn, &w.pins[0].view);
	unpin(&w.pins[0]);
	info = world_compact(&w, 200);
	assert_int_equal(info.reader, 0);
	assert_true(info.file_bytes < pinned);
	expect_small(&w);
	world_fini(&w);
}

/* G4: a snapshot that reaches nothing at the end still goes by its own mark, so the file is not cut below that. */
static void cutting_waits_for_readers(void **state)
{
	struct bts_compact_info info;
	struct bts_txn *txn;
	struct world w;
	bts_txid snapshot;
	bts_pgno mark;

	(void)state;
	world_init(&w, false);
	world_load(&w, 5);
	for (unsigned i = 0; i < 2; i++) {
		txn = bed_begin(&w.bed, BTS_WRITE);
		if (i == 1)
			assert_int_equal(bts_bucket_drop(txn, bed_text("z"), NULL), BTS_OK);
		for (unsigned k = 0; i == 0 && k < 30; k++) {
			char key[8] = {(char)('A' + k), 0};

			assert_int_equal(bts_put(txn, bed_bucket(txn, "z"), bed_text(key),
						 (struct bts_slice){w.bytes, sizeof(w.bytes)}, 0),
				BTS_OK);
		}
		bed_commit(&w.bed, txn);
	}
	w.now.txid = bed_stat(&w.bed).txid;
	pin(&w, &w.pins[0]);
	snapshot = bts_txn_id(w.pins[0].txn);
	mark = bed_stat(&w.bed).pages;
	info = world_compact(&w, 100);
	assert_true(info.pages < mark / 2);
	assert_true(info.file_bytes / 4096 >= mark);
	assert_int_equal(info.reader, snapshot);
	unpin(&w.pins[0]);
	info = world_compact(&w, 100);
	assert_true(info.file_bytes / 4096 < mark / 2);
	assert_int_equal(info.reader, 0);
	world_fini(&w);
}

/* Moving is no change of what is there: a transaction begun before does not conflict. */
static void moving_is_no_conflict(void **state)
{
	struct bts_txn *txn;
	struct world w;

	(void)state;
	world_init(&w, true);
	world_load(&w, 60);
	for (int i = 0; i < 30; i++)
		world_write(&w, 150, 7);
	txn = bed_begin(&w.bed, BTS_WRITE);
	for (unsigned k = 0; k < KEYS; k += 7) {
		struct bts_bucket *bucket;
		struct oracle_bucket *mine = world_bucket(&w, txn, k % BUCKETS, &bucket);
		char text[32];

		assert_int_equal(bts_put(txn, bucket, world_key(k, text), bed_text("x"), 0), BTS_OK);
		oracle_put(mine, world_key(k, text), bed_text("x"), 0);
	}
	world_compact(&w, 100);
	bed_commit(&w.bed, txn);
	for (unsigned k = 0; k < KEYS; k += 7) {
		char text[32];

		oracle_put(oracle_bucket(&w.now, world_name(k % BUCKETS)), world_key(k, text), bed_text("x"),
			bed_stat(&w.bed).txid);
	}
	world_fini(&w);
}

/* Two handles on the file write and compact by turns: each follows the other's lowered marks. */
static void two_writers(void **state)
{
	struct world w;
	struct bts *other;

	(void)state;
	world_init(&w, true);
	if (bed_try_open(&w.bed, 0, &other))
		fail_msg("second handle: %s", w.bed.error.text);
	for (unsigned i = 0; i < 200; i++) {
		struct bts *mine = w.bed.db;

		w.bed.db = rng_one_in(&w.rng, 2) ? other : mine;
		if (rng_one_in(&w.rng, 3))
			world_step(&w, 1 + rng_below(&w.rng, 300));
		else
			world_write(&w, 60, i / 25 % 2 ? 7 : 0);
		if (i % 20 == 0)
			bed_check(&w.bed);
		w.bed.db = mine;
	}
	world_compact(&w, 200);
	bts_close(other);
	world_compact(&w, 200);
	expect_small(&w);
	world_fini(&w);
}

static void name_snapshot(struct world *w, const char *name, bool delete)
{
	struct bts_txn *txn = bed_begin(&w->bed, BTS_WRITE);

	if (delete)
		assert_int_equal(bts_snapshot_delete(txn, bed_text(name), NULL), BTS_OK);
	else
		assert_int_equal(bts_snapshot_create(txn, bed_text(name), NULL), BTS_OK);
	bed_commit(&w->bed, txn);
	w->now.txid = bed_stat(&w->bed).txid;
}

/* Pages of a named snapshot cannot move; what is younger does. */
static void around_a_named_snapshot(void **state)
{
	struct bts_compact_info info;
	struct world w;
	uint64_t held;

	(void)state;
	world_init(&w, false);
	world_load(&w, 60);
	for (int i = 0; i < 60; i++)
		world_write(&w, 120, 7);
	name_snapshot(&w, "kept", false);
	for (int i = 0; i < 4; i++)
		world_write(&w, 50, 5);
	info = world_compact(&w, 300);
	held = info.file_bytes;
	bed_check(&w.bed);
	world_verify(&w);
	assert_true(info.stuck != 0);
	assert_true(info.snapshot != 0);
	name_snapshot(&w, "kept", true);
	info = world_compact(&w, 300);
	assert_int_equal(info.stuck, 0);
	assert_true(info.file_bytes < held);
	bed_check(&w.bed);
	expect_small(&w);
	world_fini(&w);
}

static void random_steps(void **state)
{
	struct world w;

	(void)state;
	for (int round = 0; round < 2; round++) {
		world_init(&w, round % 2);
		for (unsigned i = 0; i < 250; i++) {
			struct pin *p = &w.pins[rng_below(&w.rng, 3)];

			switch (rng_below(&w.rng, 8)) {
			case 0:
			case 1:
				world_step(&w, 1 + rng_below(&w.rng, 100));
				break;
			case 2:
				world_compact(&w, 1 + rng_below(&w.rng, 1000));
				break;
			case 3:
				unpin(p);
				pin(&w, p);
				break;
			case 4:
				unpin(p);
				break;
			default:
				world_write(&w, (unsigned)rng_below(&w.rng, 200), (i / 30) % 2 ? 7 : 1);
			}
			if (i % 10 == 0)
				bed_check(&w.bed);
			if (i % 50 == 49) {
				for (int k = 0; k < 3; k++)
					unpin(&w.pins[k]);
				bed_reopen(&w.bed);
				world_verify(&w);
			}
		}
		for (int k = 0; k < 3; k++)
			unpin(&w.pins[k]);
		world_compact(&w, 50);
		expect_small(&w);
		world_fini(&w);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shrinks_to_what_lives),
		cmocka_unit_test(large_values_move),
		cmocka_unit_test(dense_files_stay),
		cmocka_unit_test(empty_buckets_and_reopening),
		cmocka_unit_test(beside_a_reader),
		cmocka_unit_test(cutting_waits_for_readers),
		cmocka_unit_test(moving_is_no_conflict),
		cmocka_unit_test(two_writers),
		cmocka_unit_test(around_a_named_snapshot),
		cmocka_unit_test(random_steps),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	print_message("seed %llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
