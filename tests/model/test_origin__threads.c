/* What the original promised of threads: whole states, exact snapshots, nothing lost, flushes shared. */
#include "bed.h"

#include <pthread.h>
#include <rng.h>
#include <sched.h>
#include <stdatomic.h>

#define KEYS 60u
#define THREADS 6u

/* cmocka's assertions belong to the main thread: in others a failure is a count. */
#define MUST(cond)                                                                                           \
	do {                                                                                                 \
		if (!(cond)) {                                                                               \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                           \
			atomic_fetch_add(&failures, 1);                                                      \
		}                                                                                            \
	} while (0)

static _Atomic unsigned failures;
static _Atomic bool stop;

struct worker {
	pthread_t thread;
	struct bts *db;
	unsigned number;
	_Atomic uint64_t seen;
	uint64_t conflicts;
	pthread_barrier_t *barrier;
};

static void work(struct bed *bed, struct worker *workers, unsigned count, void *(*run)(void *))
{
	for (unsigned i = 0; i < count; i++) {
		workers[i].db = bed->db;
		workers[i].number = i;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
	}
}

static void join(struct worker *workers, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pthread_join(workers[i].thread, NULL);
	assert_int_equal(atomic_load(&failures), 0);
}

static struct bts_slice key_of(char key[24], unsigned number)
{
	snprintf(key, 24, "key %06u", number);
	return bed_text(key);
}

/* All keys of two buckets get the same number, in one transaction. */
static enum bts_err write_state(struct bts *db, uint64_t number)
{
	static uint8_t large[30000];
	struct bts_txn *txn;
	enum bts_err err = bts_begin(db, BTS_WRITE, &txn, NULL);

	if (err)
		return err;
	for (unsigned b = 0; b < 2; b++) {
		struct bts_bucket *bucket;

		err = bts_bucket(txn, bed_text(b ? "one" : "two"), BTS_CREATE, &bucket, NULL);
		for (unsigned i = 0; i < KEYS && err == BTS_OK; i++) {
			char key[24];

			for (size_t k = 0; k + 8 <= sizeof(large) && i % 20 == 0; k += 8)
				memcpy(large + k, &number, 8);
			memcpy(large, &number, 8);
			err = bts_put(txn, bucket, key_of(key, i),
				(struct bts_slice){large, i % 20 ? 8 : sizeof(large)}, 0);
		}
	}
	if (err) {
		bts_abort(txn);
		return err;
	}
	return bts_commit(txn, NULL);
}

/* What every key holds, or UINT64_MAX when they differ. */
static uint64_t read_state(struct bts_txn *txn)
{
	uint64_t number = 0;

	for (unsigned b = 0; b < 2; b++) {
		struct bts_bucket *bucket;

		if (bts_bucket(txn, bed_text(b ? "one" : "two"), 0, &bucket, NULL))
			return UINT64_MAX;
		for (unsigned i = 0; i < KEYS; i++) {
			struct bts_slice value;
			uint64_t found, last;
			char key[24];

			if (bts_get(txn, bucket, key_of(key, i), &value))
				return UINT64_MAX;
			memcpy(&found, value.data, 8);
			memcpy(&last, (const uint8_t *)value.data + value.size - 8, 8);
			if ((b || i) && (found != number || last != number))
				return UINT64_MAX;
			number = found;
		}
	}
	return number;
}

static void *read_states(void *arg)
{
	struct worker *worker = arg;
	uint64_t last = 0;

	while (!atomic_load(&stop)) {
		struct bts_txn *txn;
		uint64_t number;

		MUST(bts_begin(worker->db, BTS_READ, &txn, NULL) == BTS_OK);
		number = read_state(txn);
		MUST(number != UINT64_MAX && number >= last);
		sched_yield();
		MUST(read_state(txn) == number);
		bts_abort(txn);
		last = number;
		worker->seen++;
	}
	return NULL;
}

/* Statistics and a check of everything run beside the writer. */
static void *check_states(void *arg)
{
	struct worker *worker = arg;

	while (!atomic_load(&stop)) {
		struct bts_check_options options = {.report = bed_report};
		struct bts_stat stat = {.size = sizeof(stat)};

		MUST(bts_check(worker->db, &options, NULL) == BTS_OK);
		MUST(bts_stat(worker->db, &stat, NULL) == BTS_OK);
		MUST(stat.readers >= 1 && stat.txid >= stat.oldest_reader && stat.oldest_reader > 0);
		worker->seen++;
	}
	return NULL;
}

static void whole_states(void **state)
{
	struct worker workers[3] = {0}, checker = {0};
	struct bts_txn *pinned;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	assert_int_equal(write_state(bed.db, 1), BTS_OK);
	pinned = bed_begin(&bed, BTS_READ);
	atomic_store(&stop, false);
	work(&bed, workers, 3, read_states);
	work(&bed, &checker, 1, check_states);
	for (uint64_t i = 2; i < 250; i++)
		assert_int_equal(write_state(bed.db, i), BTS_OK);
	while ((workers[0].seen < 3 || checker.seen < 3) && atomic_load(&failures) == 0)
		sched_yield();
	atomic_store(&stop, true);
	join(workers, 3);
	join(&checker, 1);
	assert_int_equal(read_state(pinned), 1); /* exactly its snapshot, hundreds of commits later */
	bts_abort(pinned);
	bed_fini(&bed);
}

static enum bts_err increment(struct bts_txn *txn, void *arg)
{
	struct bts_slice value;
	struct bts_bucket *bucket;
	uint64_t number = 0;
	enum bts_err err = bts_bucket(txn, bed_text("counters"), BTS_CREATE, &bucket, NULL);

	(void)arg;
	if (err)
		return err;
	err = bts_get(txn, bucket, bed_text("k"), &value);
	if (err == BTS_OK)
		memcpy(&number, value.data, sizeof(number));
	number++;
	return bts_put(txn, bucket, bed_text("k"), (struct bts_slice){&number, sizeof(number)}, 0);
}

static void *increment_often(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; i < 50; i++) {
		struct bts_error error;

		MUST(bts_update(worker->db, increment, NULL, &error) == BTS_OK);
	}
	return NULL;
}

static void counting_loses_nothing(void **state)
{
	struct worker workers[THREADS] = {0};
	struct bts_slice value;
	struct bts_txn *txn;
	uint64_t number;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	work(&bed, workers, THREADS, increment_often);
	join(workers, THREADS);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_get(txn, bed_find(txn, "counters"), bed_text("k"), &value), BTS_OK);
	memcpy(&number, value.data, sizeof(number));
	assert_int_equal(number, THREADS * 50);
	bts_abort(txn);
	bed_fini(&bed);
}

/* Each thread has its keys, all in the same leaves: no conflict is its fault, every one is a deletion's
 * neighbour. */
static void *put_and_delete(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; i < 120; i++) {
		struct bts_bucket *bucket;
		struct bts_txn *txn;
		enum bts_err err;

		MUST(bts_begin(worker->db, BTS_WRITE, &txn, NULL) == BTS_OK);
		do {
			char key[24];

			MUST(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL) == BTS_OK);
			MUST(bts_put(txn, bucket, key_of(key, i * THREADS + worker->number), bed_text("v"),
				     0) == BTS_OK);
			if (i % 3 == 2)
				MUST(bts_del(txn, bucket, key_of(key, (i - 1) * THREADS + worker->number)) ==
					BTS_OK);
			err = bts_commit(txn, NULL);
			if (err == BTS_CONFLICT) {
				worker->conflicts++;
				MUST(bts_refresh(txn, NULL) == BTS_OK);
			}
		} while (err == BTS_CONFLICT);
		MUST(err == BTS_OK);
	}
	return NULL;
}

static void putting_and_deleting(void **state)
{
	struct worker workers[THREADS] = {0};
	struct bts_bucket_info info;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "first", "v");
	work(&bed, workers, THREADS, put_and_delete);
	join(workers, THREADS);
	bed_reopen(&bed);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_bucket_info(txn, bed_find(txn, "b"), &info), BTS_OK);
	assert_int_equal(info.entries, 1 + THREADS * 80);
	for (unsigned i = 0; i < 120 * THREADS; i++) {
		char key[24];

		key_of(key, i);
		bed_expect(txn, "b", key, i / THREADS % 3 == 1 ? NULL : "v");
	}
	bts_abort(txn);
	bed_fini(&bed);
}

/* Random keys of both, so that leaves come and go under the readers. */
static void *put_or_delete(void *arg)
{
	struct worker *worker = arg;
	struct rng rng;

	rng_init(&rng, worker->number + 1);
	while (!atomic_load(&stop)) {
		struct bts_bucket *bucket;
		struct bts_txn *txn;
		enum bts_err err;

		MUST(bts_begin(worker->db, BTS_WRITE, &txn, NULL) == BTS_OK);
		MUST(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL) == BTS_OK);
		for (unsigned i = 0; i < 30; i++) {
			static const uint8_t zeros[3000];
			unsigned number = (unsigned)rng_below(&rng, 800) * 2 + worker->number;
			struct bts_slice value = {zeros, number % 40 ? number % 40 : 3000};
			char key[24];

			key_of(key, number);
			err = rng_one_in(&rng, 2) ? bts_del(txn, bucket, bed_text(key))
						  : bts_put(txn, bucket, bed_text(key), value, 0);
			MUST(err == BTS_OK || err == BTS_NOT_FOUND);
		}
		err = bts_commit(txn, NULL);
		MUST(err == BTS_OK || err == BTS_CONFLICT); /* with a deletion of the other, in one leaf */
		if (err)
			bts_abort(txn);
		worker->seen += err == BTS_OK;
	}
	return NULL;
}

/* Twice the same, in order, every value the one of its key. */
static uint64_t scan(struct bts_txn *txn)
{
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	uint64_t digest = 1;
	char last[24] = "";

	if (bts_bucket(txn, bed_text("b"), 0, &bucket, NULL) || bts_cursor_open(txn, bucket, &cursor, NULL))
		return 0;
	while (digest && bts_cursor_next(cursor, &key, &value) == BTS_OK) {
		char now[24] = "";
		unsigned number;

		memcpy(now, key.data, key.size < 23 ? key.size : 23);
		number = (unsigned)strtoul(now + 4, NULL, 10);
		if (strcmp(last, now) >= 0 || value.size != (number % 40 ? number % 40 : 3000) ||
			memchr(value.data, 0, value.size) != value.data)
			digest = 0;
		else
			digest = digest * 31 + number;
		memcpy(last, now, sizeof(last));
	}
	bts_cursor_close(cursor);
	return digest;
}

static void *scan_often(void *arg)
{
	struct worker *worker = arg;

	while (!atomic_load(&stop)) {
		struct bts_txn *txn;
		uint64_t digest;

		MUST(bts_begin(worker->db, BTS_READ, &txn, NULL) == BTS_OK);
		digest = scan(txn);
		MUST(digest != 0);
		sched_yield();
		MUST(scan(txn) == digest);
		bts_abort(txn);
		worker->seen++;
	}
	return NULL;
}

static void scanning_beside_puts_and_deletes(void **state)
{
	struct worker writers[2] = {0}, readers[2] = {0};
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_bucket(txn, "b");
	bed_commit(&bed, txn);
	atomic_store(&stop, false);
	work(&bed, readers, 2, scan_often);
	work(&bed, writers, 2, put_or_delete);
	while (atomic_load(&failures) == 0 && (writers[0].seen < 60 || writers[1].seen < 60 ||
						      readers[0].seen < 10 || readers[1].seen < 10))
		sched_yield();
	atomic_store(&stop, true);
	join(writers, 2);
	join(readers, 2);
	bed_reopen(&bed);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_not_equal(scan(txn), 0);
	bts_abort(txn);
	bed_fini(&bed);
}

/* Groups of three, the middle one given up, beside single commits: each thread adds 1 to its own counters. */
static enum bts_err add_one(struct bts_txn *txn, unsigned number)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	uint64_t count = 0;
	char key[24];
	enum bts_err err = bts_bucket(txn, bed_text("b"), 0, &bucket, NULL);

	if (err == BTS_OK && bts_get(txn, bucket, key_of(key, number), &value) == BTS_OK)
		memcpy(&count, value.data, sizeof(count));
	count++;
	return err ? err
		   : bts_put(txn, bucket, key_of(key, number), (struct bts_slice){&count, sizeof(count)}, 0);
}

static void *groups_and_commits(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; i < 60; i++) {
		struct bts_group *group;
		struct bts_txn *txn;

		if (worker->number % 2 == 0) {
			MUST(bts_begin(worker->db, BTS_WRITE, &txn, NULL) == BTS_OK);
			MUST(add_one(txn, worker->number) == BTS_OK);
			MUST(bts_commit(txn, NULL) == BTS_OK);
			continue;
		}
		MUST(bts_group_begin(worker->db, &group, NULL) == BTS_OK);
		for (unsigned k = 0; k < 3; k++) {
			MUST(bts_group_txn(group, &txn, NULL) == BTS_OK);
			MUST(add_one(txn, worker->number) == BTS_OK);
			if (k == 1)
				bts_abort(txn);
			else
				MUST(bts_commit(txn, NULL) == BTS_OK);
		}
		MUST(bts_group_commit(group, NULL) == BTS_OK);
	}
	return NULL;
}

static void groups_beside_commits(void **state)
{
	struct worker workers[THREADS] = {0};
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "first", "v");
	work(&bed, workers, THREADS, groups_and_commits);
	join(workers, THREADS);
	assert_int_equal(bed_stat(&bed).conflicts, 0);
	txn = bed_begin(&bed, BTS_READ);
	for (unsigned i = 0; i < THREADS; i++) {
		struct bts_slice value;
		uint64_t count;
		char key[24];

		assert_int_equal(bts_get(txn, bed_find(txn, "b"), key_of(key, i), &value), BTS_OK);
		memcpy(&count, value.data, sizeof(count));
		assert_int_equal(count, i % 2 ? 120 : 60);
	}
	bts_abort(txn);
	bed_fini(&bed);
}

static void *commit_at_once(void *arg)
{
	struct worker *worker = arg;
	struct bts_txn *txn;
	char key[24];

	MUST(bts_begin(worker->db, BTS_WRITE, &txn, NULL) == BTS_OK);
	key_of(key, worker->number);
	bed_put(txn, "b", key, "v");
	pthread_barrier_wait(worker->barrier);
	MUST(bts_commit(txn, NULL) == BTS_OK);
	return NULL;
}

/* While a group keeps the commits waiting they queue; then they go out together. */
static void commits_share_flushes(void **state)
{
	struct bts_stat before, after;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "first", "v");
	before = bed_stat(&bed);
	for (unsigned round = 0; round < 20; round++) {
		struct worker workers[THREADS] = {0};
		struct bts_group *group;
		pthread_barrier_t barrier;

		pthread_barrier_init(&barrier, NULL, THREADS + 1);
		for (unsigned i = 0; i < THREADS; i++)
			workers[i].barrier = &barrier;
		assert_int_equal(bts_group_begin(bed.db, &group, NULL), BTS_OK);
		work(&bed, workers, THREADS, commit_at_once);
		pthread_barrier_wait(&barrier);
		for (unsigned i = 0; i < 100; i++)
			sched_yield();
		bts_group_abort(group);
		join(workers, THREADS);
		pthread_barrier_destroy(&barrier);
	}
	after = bed_stat(&bed);
	assert_int_equal(after.commits - before.commits, 20 * THREADS);
	assert_true(after.flushes - before.flushes < 20 * THREADS);
	printf("%llu commits, %llu flushes\n", (unsigned long long)(after.commits - before.commits),
		(unsigned long long)(after.flushes - before.flushes));
	bed_fini(&bed);
}

/* A second handle of the same file in the same process, opened inside a running transaction; and a third. */
static void a_second_handle(void **state)
{
	struct bts *second, *third;
	struct bts_txn *txn;
	struct bed bed, other, writer;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "k", "2");
	assert_int_equal(bed_try_open(&bed, 0, &third), BTS_OK);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &second), BTS_OK);
	other = writer = bed;
	other.db = second;
	writer.db = third;
	bed_holds(&other, "b", "k", "1");
	bed_set(&writer, "b", "third", "1");
	bed_commit(&bed, txn);
	bed_holds(&other, "b", "k", "2");
	bed_holds(&writer, "b", "k", "2");
	bed_holds(&bed, "b", "third", "1");
	assert_int_equal(bts_begin(second, BTS_WRITE, &txn, &bed.error), BTS_READ_ONLY);
	txn = bed_begin(&other, BTS_READ);
	for (unsigned i = 0; i < 50; i++)
		bed_set(i % 2 ? &bed : &writer, "b", "k", "3");
	bed_expect(txn, "b", "k", "2");
	assert_int_equal(bed_stat(&bed).readers, 1);
	bts_abort(txn);
	bed_set(&bed, "new", "k", "4");
	assert_int_equal(bed_stat(&other).buckets, 2);
	bts_close(bed.db); /* the writers leave first, one comes again beside the reader */
	bed_set(&writer, "new", "k", "5");
	bts_close(third);
	bed_holds(&other, "new", "k", "5");
	bed_open(&bed);
	bed_set(&bed, "new", "k", "6");
	bed_holds(&other, "new", "k", "6");
	bts_close(second);
	bed_reopen(&bed);
	assert_int_equal(bed_stat(&bed).clean_open, 1);
	bed_fini(&bed);
}

/* Half of the threads share one handle, half another. */
static void counting_by_several_handles(void **state)
{
	struct worker workers[THREADS] = {0};
	struct bts_slice value;
	struct bts_txn *txn;
	struct bed bed, other;
	uint64_t number;

	(void)state;
	bed_init_file(&bed);
	other = bed;
	bed_open(&other);
	work(&bed, workers, THREADS / 2, increment_often);
	work(&other, workers + THREADS / 2, THREADS - THREADS / 2, increment_often);
	join(workers, THREADS);
	txn = bed_begin(&other, BTS_READ);
	assert_int_equal(bts_get(txn, bed_find(txn, "counters"), bed_text("k"), &value), BTS_OK);
	memcpy(&number, value.data, sizeof(number));
	assert_int_equal(number, THREADS * 50);
	bts_abort(txn);
	bed_check(&other);
	bts_close(other.db);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_states),
		cmocka_unit_test(counting_loses_nothing),
		cmocka_unit_test(putting_and_deleting),
		cmocka_unit_test(scanning_beside_puts_and_deletes),
		cmocka_unit_test(groups_beside_commits),
		cmocka_unit_test(commits_share_flushes),
		cmocka_unit_test(a_second_handle),
		cmocka_unit_test(counting_by_several_handles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
