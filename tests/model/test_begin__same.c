/*
 * bts_begin_same: the snapshot that another transaction reads stays whole for the one that was made beside it, whatever the order in
 * which they end, while writers reuse every page that nobody holds.
 */
#include "bed.h"

#include <pthread.h>
#include <stdatomic.h>

#define KEYS 300u
#define ROUNDS 300u
#define THREADS 3u

struct scene {
	struct bed bed;
	pthread_mutex_t lock;
	struct bts_txn *root; /* with lock held */
	_Atomic bool over;
	_Atomic uint64_t walked;
};

static struct bts_slice key_of(char text[16], unsigned number)
{
	return (struct bts_slice){text, (size_t)snprintf(text, 16, "key%05u", number)};
}

/* All entries have the same value, so that a page of another state shows. */
static void write_all(struct bed *bed, unsigned round)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "b");
	char key[16], value[200];

	snprintf(value, sizeof(value), "%0150u", round);
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(bts_put(txn, bucket, key_of(key, i), bed_text(value), 0), BTS_OK);
	bed_commit(bed, txn);
}

static void *walk(void *arg)
{
	struct scene *s = arg;

	while (!atomic_load(&s->over)) {
		struct bts_txn *txn;
		struct bts_slice first, value;
		struct bts_bucket *bucket;
		char key[16];

		pthread_mutex_lock(&s->lock);
		assert_int_equal(bts_begin_same(s->root, &txn, NULL), BTS_OK);
		pthread_mutex_unlock(&s->lock);
		bucket = bed_find(txn, "b");
		assert_int_equal(bts_get(txn, bucket, key_of(key, 0), &first), BTS_OK);
		for (unsigned i = 1; i < KEYS; i++) {
			assert_int_equal(bts_get(txn, bucket, key_of(key, i), &value), BTS_OK);
			assert_memory_equal(first.data, value.data, first.size);
		}
		bts_abort(txn);
		atomic_fetch_add(&s->walked, 1);
	}
	return NULL;
}

/* The root moves on with each commit, so that those beside it soon are all that holds theirs. */
static void beside_threads(void **state)
{
	struct scene s = {.lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t threads[THREADS];

	(void)state;
	bed_init_file(&s.bed);
	write_all(&s.bed, 0);
	s.root = bed_begin(&s.bed, BTS_READ);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, walk, &s), 0);
	for (unsigned round = 1; round < ROUNDS || atomic_load(&s.walked) < ROUNDS; round++) {
		write_all(&s.bed, round);
		pthread_mutex_lock(&s.lock);
		bts_abort(s.root);
		s.root = bed_begin(&s.bed, BTS_READ);
		pthread_mutex_unlock(&s.lock);
	}
	atomic_store(&s.over, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	bts_abort(s.root);
	assert_int_equal(bed_stat(&s.bed).readers, 0);
	bed_fini(&s.bed);
}

/* It counts as a reader, reads on when the first has ended, moves by bts_refresh, and has its own snapshot beside begin_at's. */
static void as_any_other(void **state)
{
	struct bts_txn *first, *second, *third, *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "one");
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_snapshot_create(txn, bed_text("one"), NULL), BTS_OK);
	bed_commit(&bed, txn);
	first = bed_begin(&bed, BTS_READ);
	bed_set(&bed, "b", "k", "two");
	assert_int_equal(bts_begin_same(first, &second, NULL), BTS_OK);
	assert_int_equal(bts_begin_same(second, &third, NULL), BTS_OK);
	assert_int_equal(bts_txn_id(third), bts_txn_id(first));
	assert_int_equal(bed_stat(&bed).readers, 3);
	bts_abort(first);
	bts_abort(second);
	for (unsigned i = 0; i < 50; i++)
		bed_set(&bed, "b", "k", i % 2 ? "three" : "four");
	assert_int_equal(bed_stat(&bed).oldest_reader, bts_txn_id(third));
	bed_expect(third, "b", "k", "one");
	assert_int_equal(bts_refresh(third, NULL), BTS_OK);
	bed_expect(third, "b", "k", "three");
	bts_abort(third);
	assert_int_equal(bts_begin_at(bed.db, bed_text("one"), &first, NULL), BTS_OK);
	assert_int_equal(bts_begin_same(first, &second, NULL), BTS_OK);
	bts_abort(first);
	bed_expect(second, "b", "k", "one");
	bts_abort(second);
	assert_int_equal(bed_stat(&bed).readers, 0);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_any_other),
		cmocka_unit_test(beside_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
