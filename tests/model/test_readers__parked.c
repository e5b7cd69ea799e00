/*
 * Read transactions that are kept for the next one: to begin, name buckets, read and end asks nothing of the environment, in the
 * newest snapshot always, whoever committed meanwhile; what is kept is no reader to anybody, holds no page, outlives neither
 * its process nor its handle, and takes from a transaction nothing that belongs to the one before.
 */
#include "bed.h"

#include "db.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#define CYCLES 1000u
#define COMMITS 200u
#define THREADS 4u

/* --- the cost --- */

static unsigned asked;

static uintptr_t asked_something(void)
{
	asked++;
	return 0;
}

/* Every operation but the coarse clock counts, and fails. */
static void count_all(struct bts_env_ops *ops)
{
	uint64_t (*tick_ms)(struct bts_env *) = ops->tick_ms;
	uintptr_t (*count)(void) = asked_something;
	uint8_t *at = (uint8_t *)ops;

	for (size_t i = 0; i < sizeof(*ops); i += sizeof(count))
		memcpy(at + i, &count, sizeof(count));
	ops->tick_ms = tick_ms;
	asked = 0;
}

static void cycle(struct bed *bed, const char *bucket, const char *value)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);

	bed_expect(txn, bucket, "k", value);
	bts_abort(txn);
}

static void asks_for_nothing(void **unused)
{
	struct bts_env_ops ops = *bts_env_posix()->ops;
	struct bts_env env = {&ops};
	struct bts_txn *outer;
	struct bed bed;

	(void)unused;
	bed_init_file(&bed);
	bts_close(bed.db);
	assert_int_equal(
		bts_open(bed.path, &(struct bts_options){.size = sizeof(struct bts_options), .env = &env},
			&bed.db, &bed.error),
		BTS_OK);
	bed_set(&bed, "a", "k", "in a");
	bed_set(&bed, "b", "k", "in b");
	for (unsigned i = 0; i < CYCLES + 2; i++) {
		if (i == 2)
			count_all(&ops);
		cycle(&bed, "a", "in a");
		outer = bed_begin(&bed, BTS_READ);
		bed_expect(outer, "b", "k", "in b");
		cycle(&bed, "a", "in a");
		cycle(&bed, "b", "in b");
		bed_expect(outer, "a", "k", "in a");
		assert_int_equal(bts_commit(outer, &bed.error), BTS_OK);
	}
	assert_int_equal(asked, 0);
	ops = *bts_env_posix()->ops;
	bed_fini(&bed);
}

/* --- the newest snapshot --- */

/* Commits 1, 2, ...: tells each when it is done, and waits until it was seen. */
static void commit_and_tell(const char *path, int told, int seen)
{
	struct bed bed;
	char byte = 0, text[16];

	memset(&bed, 0, sizeof(bed));
	strcpy(bed.path, path);
	bed_open(&bed);
	for (unsigned i = 1; i <= COMMITS; i++) {
		snprintf(text, sizeof(text), "%u", i);
		bed_set(&bed, "b", "k", text);
		if (write(told, &byte, 1) != 1 || read(seen, &byte, 1) != 1)
			_exit(1);
	}
	bts_close(bed.db);
	_exit(0);
}

static void follows_another_process(void **unused)
{
	int told[2], seen[2], status;
	struct bed bed;
	pid_t child;
	char byte;

	(void)unused;
	bed_init_file(&bed);
	bts_close(bed.db);
	assert_int_equal(pipe(told) + pipe(seen), 0);
	child = fork();
	if (child == 0)
		commit_and_tell(bed.path, told[1], seen[0]);
	bed_open(&bed);
	for (unsigned i = 1; i <= COMMITS; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%u", i);
		assert_int_equal(read(told[0], &byte, 1), 1);
		for (unsigned again = 0; again < i % 3; again++)
			cycle(&bed, "b", text);
		assert_int_equal(write(seen[1], &byte, 1), 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	bed_fini(&bed);
}

/* What one transaction opened, and how it went, is nothing to the next. */
static void begins_anew(void **unused)
{
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;
	struct bed bed;

	(void)unused;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "first");
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_snapshot_create(txn, bed_text("then"), &bed.error), BTS_OK);
	bed_put(txn, "old", "k", "there");
	bed_commit(&bed, txn);
	bed_set(&bed, "b", "k", "second");
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_bucket(txn, bed_text("none"), 0, &bucket, &error), BTS_NOT_FOUND);
	assert_true(bts_txn_error(txn)->text[0] != '\0');
	bts_abort(txn);
	txn = bed_begin(&bed, BTS_READ);
	assert_int_equal(bts_txn_error(txn)->code, BTS_OK);
	assert_int_equal(bts_txn_error(txn)->text[0], 0);
	bed_expect(txn, "old", "k", "there");
	bts_abort(txn);
	txn = bed_begin(&bed, BTS_WRITE);
	assert_int_equal(bts_bucket_drop(txn, bed_text("old"), &bed.error), BTS_OK);
	bed_put(txn, "none", "k", "now");
	bed_commit(&bed, txn);
	bed_holds(&bed, "old", "k", NULL);
	bed_holds(&bed, "none", "k", "now");
	assert_int_equal(bts_begin_at(bed.db, bed_text("then"), &txn, &bed.error), BTS_OK);
	bed_expect(txn, "b", "k", "first");
	bed_expect(txn, "none", "k", NULL);
	bts_abort(txn);
	bed_holds(&bed, "b", "k", "second");
	bed_holds(&bed, "none", "k", "now");
	assert_int_equal(bts_begin_at(bed.db, bed_text("then"), &txn, &bed.error), BTS_OK);
	bed_expect(txn, "b", "k", "first");
	bed_set(&bed, "b", "k", "third");
	assert_int_equal(bts_refresh(txn, &bed.error), BTS_OK);
	bed_expect(txn, "b", "k", "third");
	bed_set(&bed, "b", "k", "fourth");
	bed_expect(txn, "b", "k", "third");
	bts_abort(txn);
	bed_holds(&bed, "b", "k", "fourth");
	bed_fini(&bed);
}

/* More at a time than are kept, and more buckets than are. */
static void many_at_a_time(void **unused)
{
	struct bts_txn *txn[2 * DB_PARKED_MAX];
	struct bed bed;
	char text[16];

	(void)unused;
	bed_init_memory(&bed);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 2 * DB_PARKED_MAX; i++) {
			snprintf(text, sizeof(text), "%u", i);
			bed_set(&bed, text, "k", text);
			txn[i] = bed_begin(&bed, BTS_READ);
		}
		assert_int_equal(bed_stat(&bed).readers, 2 * DB_PARKED_MAX);
		for (unsigned i = 0; i < 2 * DB_PARKED_MAX; i++)
			for (unsigned at = 0; at < 2 * DB_PARKED_MAX; at++) {
				snprintf(text, sizeof(text), "%u", at);
				bed_expect(txn[i], text, "k", round == 0 && at > i ? NULL : text);
			}
		for (unsigned i = 0; i < 2 * DB_PARKED_MAX; i++)
			bts_abort(txn[(i * 7 + round) % (2 * DB_PARKED_MAX)]);
		assert_int_equal(bed_stat(&bed).readers, 0);
		bed_check(&bed);
	}
	bed_fini(&bed);
}

/* --- what is kept is no reader --- */

static void overwrite(struct bed *bed, unsigned count)
{
	char value[900];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	for (unsigned i = 0; i < count; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%u", i * 7 % 100);
		bed_set(bed, "b", key, value);
	}
}

static void keep_some(struct bts *db)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn[5];

	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(bts_begin(db, BTS_READ, &txn[i], NULL), BTS_OK);
		assert_int_equal(bts_bucket(txn[i], bed_text("b"), 0, &bucket, NULL), BTS_OK);
	}
	for (unsigned i = 0; i < 5; i++)
		bts_abort(txn[i]);
}

static void none_seen(void *arg, const struct bts_reader_info *info)
{
	(void)arg;
	fail_msg("a reader of process %u at %llu", (unsigned)info->pid, (unsigned long long)info->txid);
}

static void holds_no_page(void **unused)
{
	struct bts_stat before, after;
	struct bts *other;
	struct bed bed;

	(void)unused;
	bed_init_memory(&bed);
	overwrite(&bed, 300);
	assert_int_equal(bed_try_open(&bed, 0, &other), BTS_OK);
	keep_some(bed.db);
	keep_some(other);
	before = bed_stat(&bed);
	assert_int_equal(before.readers, 0);
	assert_int_equal(before.oldest_reader, 0);
	assert_int_equal(bts_readers(bed.db, none_seen, NULL, &bed.error), BTS_OK);
	overwrite(&bed, 600);
	after = bed_stat(&bed);
	assert_int_equal(after.pinned_pages, 0);
	assert_in_range(after.pages, before.pages, before.pages + 40); /* of the history */
	bed_check(&bed);
	bed_holds(&bed, "b", "k", NULL);
	bts_close(other);
	bed_fini(&bed);
}

/* Killed with slots kept: they are nobody's, and who comes next takes them over. */
static void dies_with_its_process(void **unused)
{
	struct bts_stat before, after;
	uint32_t slots = 0;
	struct bed bed;

	(void)unused;
	bed_init_file(&bed);
	overwrite(&bed, 300);
	before = bed_stat(&bed);
	for (unsigned i = 0; i < 10; i++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			struct bts *db;

			if (bed_try_open(&bed, i % 2 ? BTS_OPEN_READ_ONLY : 0, &db))
				_exit(1);
			keep_some(db);
			raise(SIGKILL);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_int_equal(bed_stat(&bed).readers, 0);
		overwrite(&bed, 50);
		if (i == 0)
			slots = shared_reader_slots(bed.db->shared);
	}
	assert_int_equal(shared_reader_slots(bed.db->shared), slots);
	after = bed_stat(&bed);
	assert_int_equal(after.pinned_pages, 0);
	assert_in_range(after.pages, before.pages, before.pages + 40);
	bed_check(&bed);
	bed_fini(&bed);
}

/* What the parent keeps, and what it has open, is not the child's. */
static void stays_with_the_parent(void **unused)
{
	struct bts_txn *open, *txn;
	struct bed bed;
	pid_t child;
	int status;

	(void)unused;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	keep_some(bed.db);
	open = bed_begin(&bed, BTS_READ);
	bed_expect(open, "b", "k", "1");
	child = fork();
	if (child == 0) {
		struct bts_bucket *bucket;
		int wrong = bts_begin(bed.db, BTS_READ, &txn, &bed.error) != BTS_INVALID;

		/* not registered again in the parent's slot, nor with buckets of a snapshot that nobody keeps */
		wrong += bts_refresh(open, &bed.error) != BTS_INVALID;
		wrong += bts_bucket(open, (struct bts_slice){"b", 1}, 0, &bucket, &bed.error) != BTS_NOT_FOUND;
		bts_abort(open);
		wrong += bts_begin(bed.db, BTS_READ, &txn, &bed.error) != BTS_INVALID;
		bts_close(bed.db);
		_exit(wrong);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(bed_stat(&bed).readers, 1);
	bed_set(&bed, "b", "k", "2");
	bed_expect(open, "b", "k", "1");
	bts_abort(open);
	bed_holds(&bed, "b", "k", "2");
	assert_int_equal(bed_stat(&bed).readers, 0);
	bed_fini(&bed);
}

/* --- threads --- */

struct crowd {
	struct bed bed;
	_Atomic unsigned committed, done;
	struct bts_txn *_Atomic handed; /* begun by one thread, ended by another */
};

static unsigned crowd_value(struct bts_txn *txn)
{
	struct bts_bucket *bucket;
	struct bts_slice found;
	unsigned value;

	assert_int_equal(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_get(txn, bucket, bed_text("k"), &found), BTS_OK);
	assert_int_equal(found.size, sizeof(value));
	memcpy(&value, found.data, sizeof(value));
	return value;
}

static void *crowd_read(void *arg)
{
	struct crowd *crowd = arg;

	for (unsigned i = 0; !atomic_load(&crowd->done); i++) {
		unsigned before = atomic_load(&crowd->committed), value;
		struct bts_txn *txn;

		assert_int_equal(bts_begin(crowd->bed.db, BTS_READ, &txn, NULL), BTS_OK);
		value = crowd_value(txn);
		assert_true(value >= before);
		if (i % 16 == 0)
			txn = atomic_exchange(&crowd->handed, txn);
		bts_abort(txn);
	}
	return NULL;
}

static void many_threads(void **unused)
{
	pthread_t threads[THREADS];
	struct crowd crowd;

	(void)unused;
	memset(&crowd, 0, sizeof(crowd));
	bed_init_file(&crowd.bed);
	for (unsigned i = 0; i <= COMMITS; i++) {
		struct bts_txn *txn = bed_begin(&crowd.bed, BTS_WRITE);

		assert_int_equal(bts_put(txn, bed_bucket(txn, "b"), bed_text("k"),
					 (struct bts_slice){&i, sizeof(i)}, 0),
			BTS_OK);
		bed_commit(&crowd.bed, txn);
		atomic_store(&crowd.committed, i);
		for (unsigned t = 0; i == 0 && t < THREADS; t++)
			assert_int_equal(pthread_create(&threads[t], NULL, crowd_read, &crowd), 0);
	}
	atomic_store(&crowd.done, 1);
	for (unsigned t = 0; t < THREADS; t++)
		assert_int_equal(pthread_join(threads[t], NULL), 0);
	bts_abort(atomic_load(&crowd.handed));
	assert_int_equal(bed_stat(&crowd.bed).readers, 0);
	bed_check(&crowd.bed);
	bed_fini(&crowd.bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(asks_for_nothing),
		cmocka_unit_test(follows_another_process),
		cmocka_unit_test(begins_anew),
		cmocka_unit_test(many_at_a_time),
		cmocka_unit_test(holds_no_page),
		cmocka_unit_test(dies_with_its_process),
		cmocka_unit_test(stays_with_the_parent),
		cmocka_unit_test(many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
