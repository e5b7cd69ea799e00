/*
 * The list of readers and the figures while readers come and go, in threads and in a process that is killed: always an
 * answer, never an error, never more held than is free.  What a snapshot reached may be overwritten while it is measured,
 * when its last reader has left: that is no damage.
 */
#include "bed.h"

#include <pthread.h>
#include <rng.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#define COMMITS 400
#define READERS 3
#define CHILDREN 3

static struct {
	struct bed bed;
	_Atomic bool done;
	_Atomic uint64_t listed, seen, held;
} all;

static void put_some(struct bts_txn *txn, struct rng *rng)
{
	static const uint8_t bytes[6000];
	struct bts_bucket *bucket = bed_bucket(txn, "b");

	for (int i = 0; i < 20; i++) {
		uint32_t key = rng_below(rng, 400);
		size_t size = rng_below(rng, 5) == 0 ? 6000 : 100;

		if (bts_put(txn, bucket, (struct bts_slice){&key, sizeof(key)},
			    (struct bts_slice){bytes, size}, 0))
			abort();
	}
}

static void *read_and_leave(void *arg)
{
	struct rng rng = *(struct rng *)arg;
	struct bts_txn *held[8] = {NULL};

	while (!atomic_load(&all.done)) {
		size_t i = rng_below(&rng, 8);

		bts_abort(held[i]);
		if (bts_begin(all.bed.db, BTS_READ, &held[i], NULL))
			abort();
		if (rng_below(&rng, 4) == 0)
			sched_yield();
	}
	for (size_t i = 0; i < 8; i++)
		bts_abort(held[i]);
	return NULL;
}

struct sum {
	bts_txid last;
	uint64_t most;
};

static void add(void *arg, const struct bts_reader_info *info)
{
	struct sum *sum = arg;

	if (info->txid < sum->last) /* the oldest first */
		abort();
	sum->last = info->txid;
	sum->most = info->held_pages > sum->most ? info->held_pages : sum->most;
	atomic_fetch_add(&all.seen, 1);
}

static void *list_and_count(void *arg)
{
	struct bts *db = arg;

	while (!atomic_load(&all.done)) {
		struct bts_stat stat = {.size = sizeof(stat)};
		struct sum sum = {0};
		struct bts_error error;

		if (bts_readers(db, add, &sum, &error) || bts_stat(db, &stat, &error)) {
			fprintf(stderr, "readers: %s\n", error.text);
			abort();
		}
		if (sum.most > 0)
			atomic_fetch_add(&all.held, 1);
		atomic_fetch_add(&all.listed, 1);
	}
	return NULL;
}

/* Before any thread: begins and ends snapshots, and has some, until it is killed. */
static pid_t reading_child(const char *path, struct rng rng)
{
	struct bts_txn *held[4] = {NULL};
	struct bts_options options;
	struct bts *db;
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	alarm(300); /* should the test die before it kills us */
	bts_options_init(&options);
	options.flags = BTS_OPEN_READ_ONLY;
	if (bts_open(path, &options, &db, NULL))
		_exit(1);
	for (;;) {
		size_t i = rng_below(&rng, 4);

		bts_abort(held[i]);
		if (bts_begin(db, BTS_READ, &held[i], NULL))
			_exit(1);
		usleep((unsigned)rng_below(&rng, 1000));
	}
}

/* It must still have been there. */
static void end_child(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void test_coming_and_going(void **state)
{
	pthread_t readers[READERS], lister, other_lister;
	struct rng rng = *(struct rng *)*state, seeds[READERS];
	pid_t children[CHILDREN];
	struct bts *other;
	int next = 0;

	bed_init_file(&all.bed);
	for (size_t i = 0; i < CHILDREN; i++) {
		rng_init(&seeds[0], rng_next(&rng));
		children[i] = reading_child(all.bed.path, seeds[0]);
		assert_true(children[i] > 0);
	}
	assert_int_equal(bed_try_open(&all.bed, BTS_OPEN_READ_ONLY, &other), BTS_OK);
	for (size_t i = 0; i < READERS; i++) {
		rng_init(&seeds[i], rng_next(&rng));
		assert_int_equal(pthread_create(&readers[i], NULL, read_and_leave, &seeds[i]), 0);
	}
	assert_int_equal(pthread_create(&lister, NULL, list_and_count, all.bed.db), 0);
	assert_int_equal(pthread_create(&other_lister, NULL, list_and_count, other), 0);
	for (int i = 0; i < COMMITS || atomic_load(&all.held) < 5; i++) {
		struct bts_txn *txn = bed_begin(&all.bed, BTS_WRITE);

		put_some(txn, &rng);
		bed_commit(&all.bed, txn);
		if (next < CHILDREN && i > COMMITS / (CHILDREN + 1) * (next + 1))
			end_child(children[next++]);
	}
	while (next < CHILDREN)
		end_child(children[next++]);
	atomic_store(&all.done, true);
	for (size_t i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	pthread_join(lister, NULL);
	pthread_join(other_lister, NULL);
	print_message("%llu lists, %llu readers in them\n", (unsigned long long)atomic_load(&all.listed),
		(unsigned long long)atomic_load(&all.seen));
	assert_int_equal(bed_stat(&all.bed).readers, 0);
	assert_int_equal(bed_stat(&all.bed).pinned_pages, 0);
	bts_close(other);
	bed_fini(&all.bed);
}

int main(int argc, char **argv)
{
	struct rng rng;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_coming_and_going, &rng),
	};

	rng_init(&rng, rng_seed_from(argc, argv, 1));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
