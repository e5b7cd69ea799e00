/*
 * Large values that are written before their commit: once, to pages that nobody else gets meanwhile and that come back when
 * the transaction does not end well.
 */
#include "lease_bed.h"

#include <errno.h>
#include <pthread.h>
#include <rng.h>

static uint64_t written(struct bed *bed)
{
	return env_mem_counters(bed->mem)->bytes_written;
}

static void init(struct bed *bed)
{
	bed_init_memory(bed);
	bts_close(bed->db);
	lease_open(bed, NULL, UINT64_C(1) << 20, &bed->db); /* less than a value has */
	bed_set(bed, "b", "small", "v");
}

static void small_commit(struct bts *db, const char *key)
{
	struct bts_error error = {0};
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	bed_put(txn, "b", key, "v");
	if (bts_commit(txn, &error))
		fail_msg("commit: %s", error.text);
}

enum how { PLAIN, RIVAL, EXCLUSIVE, GROUP, ASYNC, HOWS };

static void written_once(void **state)
{
	struct bed bed;

	(void)state;
	init(&bed);
	for (unsigned round = 0; round < 6 * HOWS; round++) {
		enum how how = round % HOWS;
		unsigned flags = BTS_WRITE | (how == EXCLUSIVE	    ? BTS_EXCLUSIVE
						     : how == ASYNC ? BTS_ASYNC
								    : 0);
		uint64_t size = LEASE_SIZE + round * 65536 / 3, before, open;
		struct bts_group *group = NULL;
		struct bts_txn *txn;

		if (how == GROUP) { /* where nothing can be raised: into what was free before */
			lease_store(bed.db, "room", size + 65536, 1);
			txn = bed_begin(&bed, BTS_WRITE);
			assert_int_equal(bts_del(txn, bed_find(txn, "b"), bed_text("room")), BTS_OK);
			bed_commit(&bed, txn);
			assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
			assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		} else {
			txn = bed_begin(&bed, flags);
		}
		before = written(&bed);
		lease_stream(txn, "large", size, 2 + round);
		assert_int_equal(lease_count(txn), 1);
		open = written(&bed);
		assert_true(open - before >= size);
		assert_int_equal(lease_salt(txn, "large", size, 99), 2 + round);
		if (how == RIVAL)
			small_commit(bed.db, "rival");
		bed_commit(&bed, txn);
		if (group != NULL)
			assert_int_equal(bts_group_commit(group, &bed.error), BTS_OK);
		assert_true(written(&bed) - before <= size + 120000);
		lease_holds(bed.db, "large", size, 2 + round);
		bed_check(&bed);
	}
	bed_reopen(&bed);
	lease_holds(bed.db, "large", LEASE_SIZE + (6 * HOWS - 1) * 65536 / 3, 1 + 6 * HOWS);
	bed_fini(&bed);
}

/* Ways in which a value does not come about. */
enum end { ABORT, PUT_ABORT, ROLLBACK, CONFLICT, REPLACED, REFRESH, NO_SPACE, GROUP_ABORT, ENDS };

static void end_badly(struct bed *bed, enum end end)
{
	struct bts_group *group = NULL;
	struct bts_txn *txn;
	struct bts_stream *stream;
	uint32_t point;

	if (end == GROUP_ABORT) {
		assert_int_equal(bts_group_begin(bed->db, &group, NULL), BTS_OK);
		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
	} else {
		txn = bed_begin(bed, BTS_WRITE);
	}
	assert_int_equal(bts_savepoint(txn, &point, NULL), BTS_OK);
	bed_put(txn, "b", "small", "other");
	stream = lease_begin(txn, "large", LEASE_SIZE);
	assert_int_equal(lease_pour(stream, 0, LEASE_SIZE, 3), BTS_OK);
	assert_true(lease_count(txn) == 1 ||
		    end == GROUP_ABORT); /* that can not raise the mark when space is in pieces */
	if (end == PUT_ABORT) {
		bts_put_abort(stream);
		assert_int_equal(lease_count(txn), 0);
	} else if (end != ABORT) {
		assert_int_equal(bts_put_end(stream, NULL), BTS_OK);
	}
	if (end == ROLLBACK)
		assert_int_equal(bts_savepoint_rollback(txn, point, NULL), BTS_OK);
	if (end == REPLACED)
		bed_put(txn, "b", "large", "small now");
	if (end == CONFLICT) {
		small_commit(bed->db, "small");
		assert_int_equal(bts_commit(txn, NULL), BTS_CONFLICT);
		assert_int_equal(lease_count(txn), 1);
	}
	if (end == REFRESH) {
		assert_int_equal(bts_refresh(txn, NULL), BTS_OK);
		assert_int_equal(lease_count(txn), 0);
	}
	if (end == NO_SPACE) {
		env_mem_fail(bed->mem, ENV_MEM_WRITE, 1, ENOSPC, 0);
		assert_int_equal(bts_commit(txn, NULL), BTS_FULL);
		env_mem_fail_clear(bed->mem);
	} else if (end == REPLACED || end == PUT_ABORT || end == ROLLBACK) {
		bed_put(txn, "b", "small", "v");
		bed_commit(bed, txn);
	} else {
		bts_abort(txn);
	}
	bts_group_abort(group);
}

static void pages_come_back(void **state)
{
	struct bed bed;

	(void)state;
	for (enum end end = 0; end < ENDS; end++) {
		struct bts_stat first = {0}, last;
		struct bts *second; /* follows */

		init(&bed);
		lease_open(&bed, NULL, 0, &second);
		small_commit(second, "follows");
		lease_store(bed.db, "room", LEASE_SIZE + 800000, 1); /* for who can not raise the mark */
		bed_set(&bed, "b", "room", "gone");
		bed_set(&bed, "b", "large", "here");
		for (unsigned i = 0; i < 50; i++) {
			end_badly(&bed, end);
			bed_set(&bed, "b", "small", "v");
			if (i == 3)
				first = bed_stat(&bed);
		}
		lease_none_lost(bed.db);
		lease_none_lost(second);
		last = bed_stat(&bed);
		/* history and free log grow by a page now and then */
		assert_true(last.file_bytes <= last.pages * 4096 + (UINT64_C(1) << 19));
		assert_true(last.pages - last.free_pages <= first.pages - first.free_pages + 8);
		/* a run, and what small commits leave of another */
		assert_true(last.pages < 3 * LEASE_SIZE / 4096);
		bed_holds(&bed, "b", "large", end == REPLACED ? "small now" : "here");
		bts_close(second);
		bed_fini(&bed);
	}
}

static void erase(struct bts *db, const char *key)
{
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_del(txn, bed_find(txn, "b"), bed_text(key)), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
}

/* The free log is written anew, from what the allocator has and what is leased. */
static void condense(struct bts *db)
{
	struct bts_error error = {0};
	struct bts_group *group;
	struct bts_txn *txn;

	assert_int_equal(bts_group_begin(db, &group, NULL), BTS_OK);
	assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
	bed_put(txn, "b", "condensed", "v");
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	group->state.condense = true;
	if (bts_group_commit(group, &error))
		fail_msg("commit: %s", error.text);
}

/* Others commit, compact, load their allocator, while pages are leased; with and without a commit in the end. */
static void others_keep_off(void **state)
{
	struct bed bed;

	(void)state;
	for (unsigned round = 0; round < 8; round++) {
		struct bts_compact_info info = {.size = sizeof(info)};
		struct bts *second, *third;
		struct bts_stream *open;
		struct bts_txn *txn;
		struct bts_stat stat;
		char key[16];

		init(&bed);
		lease_open(&bed, NULL, 0, &second);
		lease_store(second, "gone", 3 * LEASE_SIZE, 1);
		erase(second, "gone");
		small_commit(second,
			"mine"); /* keys that were never deleted conflict with no deletion beside them */
		small_commit(second, "half");
		txn = bed_begin(&bed, BTS_WRITE);
		lease_stream(txn, "mine", LEASE_SIZE, 2);
		open = lease_begin(txn, "half", LEASE_SIZE);
		assert_int_equal(lease_pour(open, 0, LEASE_SIZE / 2, 3), BTS_OK);
		assert_int_equal(lease_count(txn), 2);
		for (unsigned i = 0; i < 12; i++) {
			snprintf(key, sizeof(key), "%u", i);
			lease_store(second, key, LEASE_SIZE, 10 + i);
			if (i == 4) {
				lease_open(&bed, NULL, 0, &third);
				lease_store(third, "third", LEASE_SIZE, 4);
			}
			if (i % 4 == 2)
				erase(i % 8 == 2 ? second : third, key);
			if (i == 6)
				condense(second);
			if (round & 1)
				assert_int_equal(bts_compact_step(second, 300, &info, &bed.error), BTS_OK);
			bed_check(&bed);
		}
		assert_int_equal(lease_pour(open, LEASE_SIZE / 2, LEASE_SIZE, 3), BTS_OK);
		assert_int_equal(bts_put_end(open, NULL), BTS_OK);
		assert_int_equal(lease_salt(txn, "mine", LEASE_SIZE, 9), 2);
		if (round & 2)
			bts_abort(txn);
		else
			bed_commit(&bed, txn);
		if (round & 2) {
			bed_holds(&bed, "b", "mine", "v");
		} else {
			lease_holds(third, "mine", LEASE_SIZE, 2);
			lease_holds(second, "half", LEASE_SIZE, 3);
		}
		lease_store(third, "third", LEASE_SIZE, 5);
		lease_store(second, "second", LEASE_SIZE, 6);
		for (unsigned i = 0; i < 12; i++) {
			snprintf(key, sizeof(key), "%u", i);
			lease_holds(bed.db, key, LEASE_SIZE, i % 4 == 2 ? 0 : 10 + i);
		}
		lease_none_lost(bed.db);
		lease_none_lost(second);
		stat = bed_stat(&bed);
		assert_true(stat.pages < 22 * (LEASE_SIZE / 4096 + 2) + 400);
		bts_close(third);
		bts_close(second);
		bed_fini(&bed);
	}
}

/* Half-way there is no room, or the device fails: this value is not to be had, all else is. */
static void a_write_fails(void **state)
{
	static uint8_t all[LEASE_SIZE];
	struct bed bed;

	(void)state;
	for (int os = ENOSPC; os != 0; os = os == ENOSPC ? EIO : 0) {
		enum bts_err want = os == ENOSPC ? BTS_FULL : BTS_IO;
		struct bts_stream *stream;
		struct bts_txn *txn;

		init(&bed);
		txn = bed_begin(&bed, BTS_WRITE);
		stream = lease_begin(txn, "large", LEASE_SIZE);
		env_mem_fail(bed.mem, ENV_MEM_WRITE, 5, os, ENV_MEM_PARTIAL);
		assert_int_equal(lease_pour(stream, 0, LEASE_SIZE, 1), want);
		assert_int_equal(bts_put_write(stream, bed_text("more")), want);
		assert_int_equal(bts_put_write(stream, (struct bts_slice){all, sizeof(all)}),
			want); /* nor all of it once more */
		assert_int_equal(bts_put_end(stream, NULL), want);
		bed_put(txn, "b", "other", "v");
		lease_stream(txn, "large", LEASE_SIZE, 2);
		bed_commit(&bed, txn);
		lease_holds(bed.db, "large", LEASE_SIZE, 2);
		bed_holds(&bed, "b", "other", "v");
		bed_fini(&bed);
	}
}

/* Where there is no lease the value goes the way it always went. */
static void without_a_lease(void **state)
{
	struct bts_stream *streams[SHARED_LEASES + 4];
	struct bts_group *group;
	struct bts_txn *txn, *inner;
	struct bed bed;
	char key[16];

	(void)state;
	init(&bed);
	assert_int_equal(
		bts_group_begin(bed.db, &group, NULL), BTS_OK); /* this thread itself holds the lock */
	txn = bed_begin(&bed, BTS_WRITE);
	lease_stream(txn, "private", LEASE_SIZE, 1);
	assert_int_equal(lease_count(txn), 0);
	assert_int_equal(bts_group_txn(group, &inner, NULL), BTS_OK);
	lease_stream(inner, "group", LEASE_SIZE, 2); /* nothing is free, and a group can not raise the mark */
	assert_int_equal(lease_count(inner), 0);
	bed_commit(&bed, inner);
	assert_int_equal(bts_group_commit(group, &bed.error), BTS_OK);
	bed_commit(&bed, txn);
	lease_holds(bed.db, "private", LEASE_SIZE, 1);
	lease_holds(bed.db, "group", LEASE_SIZE, 2);
	txn = bed_begin(&bed, BTS_WRITE | BTS_CONFLICT_DATABASE); /* would conflict with its own raise */
	lease_stream(txn, "private", 3 * LEASE_SIZE, 3);
	assert_int_equal(lease_count(txn), 0);
	bed_commit(&bed, txn);
	bed_fini(&bed);

	bed_init_file(&bed);
	bts_close(bed.db);
	lease_open(&bed, NULL, UINT64_C(1) << 20, &bed.db);
	txn = bed_begin(&bed, BTS_WRITE);
	for (unsigned i = 0; i < SHARED_LEASES + 4; i++) {
		snprintf(key, sizeof(key), "%u", i);
		streams[i] = lease_begin(txn, key, LEASE_MIN);
	}
	assert_int_equal(lease_count(txn), SHARED_LEASES);
	for (unsigned i = 0; i < SHARED_LEASES + 4; i++) {
		if (i % 32 > 0 && i < SHARED_LEASES) {
			bts_put_abort(streams[i]);
			continue;
		}
		assert_int_equal(lease_pour(streams[i], 0, LEASE_MIN, i % 200 + 1), BTS_OK);
		assert_int_equal(bts_put_end(streams[i], NULL), BTS_OK);
	}
	bed_commit(&bed, txn);
	for (unsigned i = 0; i < SHARED_LEASES + 4; i++) {
		snprintf(key, sizeof(key), "%u", i);
		lease_holds(bed.db, key, LEASE_MIN, i % 32 > 0 && i < SHARED_LEASES ? 0 : i % 200 + 1);
	}
	bed_fini(&bed);
}

struct busy {
	pthread_t thread;
	struct bts *db;
	unsigned number;
	unsigned kept; /* salt of its key */
};

static void *busy_run(void *arg)
{
	struct busy *busy = arg;
	struct rng rng;
	char key[16];

	rng_init(&rng, busy->number);
	snprintf(key, sizeof(key), "busy %u", busy->number);
	for (unsigned i = 1; i <= 25; i++) {
		struct bts_txn *txn;
		bool conflicts = rng_one_in(&rng, 3);
		enum bts_err err;

		assert_int_equal(bts_begin(busy->db, BTS_WRITE, &txn, NULL), BTS_OK);
		lease_stream(txn, key, LEASE_SIZE, i);
		if (conflicts)
			bed_put(txn, "b", "small", "v");
		if (rng_one_in(&rng, 4)) {
			bts_abort(txn);
			continue;
		}
		err = bts_commit(txn, NULL);
		if (err == BTS_CONFLICT && conflicts)
			bts_abort(txn);
		else
			assert_int_equal(err, BTS_OK);
		if (err == BTS_OK)
			busy->kept = i;
	}
	return NULL;
}

/* Threads of two handles at once: values stay whole, nothing is lost. */
static void all_at_once(void **state)
{
	struct busy busy[4];
	struct bts *second;
	struct bed bed;
	char key[16];

	(void)state;
	bed_init_file(&bed);
	lease_open(&bed, NULL, 0, &second);
	bed_set(&bed, "b", "small", "v");
	for (unsigned i = 0; i < 4; i++) {
		snprintf(key, sizeof(key), "busy %u", i);
		bed_set(&bed, "b", key, "not yet");
		busy[i] = (struct busy){.db = i % 2 ? second : bed.db, .number = i};
	}
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&busy[i].thread, NULL, busy_run, &busy[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(busy[i].thread, NULL);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(key, sizeof(key), "busy %u", i);
		lease_holds(bed.db, key, LEASE_SIZE, busy[i].kept);
	}
	lease_none_lost(bed.db);
	lease_none_lost(second);
	/* Each has its value, one for the next, and those that wait for a flush, more when the machine is busy; and gaps. */
	assert_true(bed_stat(&bed).pages < 4 * 6 * (LEASE_SIZE / 4096 + 2));
	bts_close(second);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_once),
		cmocka_unit_test(pages_come_back),
		cmocka_unit_test(others_keep_off),
		cmocka_unit_test(a_write_fails),
		cmocka_unit_test(without_a_lease),
		cmocka_unit_test(all_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
