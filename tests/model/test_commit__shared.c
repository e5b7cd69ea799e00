/*
 * What commits cost the operating system: calls, counted, of one writer and of many that wait for the same flushes.
 *
 * Many writers: a flush returns when all other threads sleep, so it is known who can share the next one.  Whoever was not in
 * a batch is in the next; so two flushes carry a commit of every thread, each is woken once, to lead or because all is done.
 */
#include "bed.h"

#include <btree_store/env.h>
#include <pthread.h>
#include <stdatomic.h>

#define THREADS 16u
#define COMMITS 40u /* of each */
#define SINGLES 200u

static struct {
	_Atomic unsigned syncs, locks, writes, stats, wakes, waits;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned alive;			 /* threads that still commit */
	const uint32_t *asleep[THREADS]; /* the words of those who sleep and were not woken yet; NULL: free */
	uint32_t expected[THREADS];
	unsigned asleep_count;
} calls = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static const struct bts_env_ops *inner;

static int count_sync(struct bts_file *file)
{
	atomic_fetch_add(&calls.syncs, 1);
	pthread_mutex_lock(&calls.lock);
	while (calls.alive > 0 && calls.asleep_count < calls.alive - 1)
		pthread_cond_wait(&calls.changed, &calls.lock);
	pthread_mutex_unlock(&calls.lock);
	return inner->file_sync(file);
}

static int count_lock(
	struct bts_file *file, uint64_t offset, uint64_t size, enum bts_lock_kind kind, int wait)
{
	atomic_fetch_add(&calls.locks, 1);
	return inner->file_lock(file, offset, size, kind, wait);
}

static int count_pwritev(struct bts_file *file, struct iovec *iov, int count, uint64_t offset)
{
	atomic_fetch_add(&calls.writes, 1);
	return inner->file_pwritev(file, iov, count, offset);
}

static int count_identity(struct bts_file *file, struct bts_file_identity *identity)
{
	atomic_fetch_add(&calls.stats, 1);
	return inner->file_identity(file, identity);
}

/* lock held. */
static void count_move(const uint32_t *from, const uint32_t *to, unsigned at)
{
	if (calls.asleep[at] != from)
		return;
	calls.asleep[at] = to;
	calls.asleep_count += to != NULL ? 1 : -1u;
	pthread_cond_signal(&calls.changed);
}

static int count_wait(struct bts_env *env, const uint32_t *word, uint32_t expected, unsigned timeout_ms)
{
	unsigned at = 0;
	int os;

	atomic_fetch_add(&calls.waits, 1);
	pthread_mutex_lock(&calls.lock);
	while (at < THREADS && calls.asleep[at] != NULL)
		at++;
	assert_true(at < THREADS);
	calls.expected[at] = expected;
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) == expected)
		count_move(NULL, word, at);
	pthread_mutex_unlock(&calls.lock);
	os = inner->wait(env, word, expected, timeout_ms);
	pthread_mutex_lock(&calls.lock);
	count_move(word, NULL, at);
	pthread_mutex_unlock(&calls.lock);
	return os;
}

static void count_wake(struct bts_env *env, const uint32_t *word)
{
	atomic_fetch_add(&calls.wakes, 1);
	pthread_mutex_lock(&calls.lock);
	for (unsigned at = 0; at < THREADS; at++)
		/* Not who sleeps on a word of the same address that was made since. */
		if (calls.asleep[at] == word && __atomic_load_n(word, __ATOMIC_SEQ_CST) != calls.expected[at])
			count_move(word, NULL, at);
	pthread_mutex_unlock(&calls.lock);
	inner->wake(env, word);
}

static void open_counted(struct bed *bed)
{
	static struct bts_env_ops ops;
	static struct bts_env env = {&ops};
	struct bts_options options;

	bed_init_file(bed);
	bts_close(bed->db);
	inner = bts_env_posix()->ops;
	ops = *inner;
	ops.file_sync = count_sync;
	ops.file_lock = count_lock;
	ops.file_pwritev = count_pwritev;
	ops.file_identity = count_identity;
	ops.wait = count_wait;
	ops.wake = count_wake;
	bts_options_init(&options);
	options.map_bytes = UINT64_C(1) << 34;
	options.env = &env;
	assert_int_equal(bts_open(bed->path, &options, &bed->db, &bed->error), BTS_OK);
}

static enum bts_err put_number(struct bts_txn *txn, void *arg)
{
	const unsigned *number = arg;
	struct bts_bucket *bucket;
	char key[32];
	enum bts_err err = bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, NULL);

	snprintf(key, sizeof(key), "key %08u", *number);
	return err ? err : bts_put(txn, bucket, bed_text(key), bed_text("value"), 0);
}

static void count_from_here(unsigned alive)
{
	atomic_store(&calls.syncs, 0);
	atomic_store(&calls.locks, 0);
	atomic_store(&calls.writes, 0);
	atomic_store(&calls.stats, 0);
	atomic_store(&calls.wakes, 0);
	atomic_store(&calls.waits, 0);
	calls.alive = alive;
}

/* One flush; three locks, taken and left; the pages, in few pieces, and the slot; nobody sleeps or is woken. */
static void alone(void **state)
{
	struct bed bed;

	(void)state;
	open_counted(&bed);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(bts_update(bed.db, put_number, &i, &bed.error), BTS_OK);
	count_from_here(0);
	for (unsigned i = 0; i < SINGLES; i++) {
		unsigned number = i % 50;

		assert_int_equal(bts_update(bed.db, put_number, &number, &bed.error), BTS_OK);
	}
	assert_int_equal(calls.syncs, SINGLES);
	assert_int_equal(calls.locks, 6 * SINGLES);
	assert_true(calls.writes <= 5 * SINGLES);
	assert_true(calls.stats <= SINGLES / 10);
	assert_int_equal(calls.waits, 0);
	assert_int_equal(calls.wakes, 0);
	bed_fini(&bed);
}

struct writer {
	struct bed *bed;
	pthread_t thread;
	unsigned index;
};

static void *writer_run(void *arg)
{
	struct writer *writer = arg;

	for (unsigned i = 0; i < COMMITS; i++) {
		unsigned number = writer->index * COMMITS + i;

		if (bts_update(writer->bed->db, put_number, &number, NULL))
			abort();
	}
	pthread_mutex_lock(&calls.lock);
	calls.alive--;
	pthread_cond_signal(&calls.changed);
	pthread_mutex_unlock(&calls.lock);
	return NULL;
}

static void together(void **state)
{
	struct writer writers[THREADS];
	struct bed bed;

	(void)state;
	open_counted(&bed);
	assert_int_equal(bts_update(bed.db, put_number, &(unsigned){0}, &bed.error), BTS_OK);
	count_from_here(THREADS);
	for (unsigned i = 0; i < THREADS; i++) {
		writers[i] = (struct writer){.bed = &bed, .index = i};
		assert_int_equal(pthread_create(&writers[i].thread, NULL, writer_run, &writers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(writers[i].thread, NULL);
	printf("%u commits: %u flushes, %u locks, %u writes, %u waits, %u wakes\n", THREADS * COMMITS,
		calls.syncs, calls.locks, calls.writes, calls.waits, calls.wakes);
	assert_true(calls.syncs <= 2 * COMMITS);
	assert_int_equal(calls.locks, 6 * calls.syncs);
	assert_true(calls.wakes <= THREADS * COMMITS);
	/* One that follows a wake for the transaction that lay there before is one too many, and rare. */
	assert_true(calls.waits <= THREADS * COMMITS + THREADS * COMMITS / 4);
	assert_int_equal(bed_stat(&bed).commits, THREADS * COMMITS + 1);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alone),
		cmocka_unit_test(together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
