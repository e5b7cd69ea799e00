/*
 * The lock file: who may believe it, the writer's byte, readers against a publisher (G1), the dead,
 * waiting.  Threads and forked processes; every wait ends on a condition.
 */
#include "shared_bed.h"

static int reserve_fails(struct bts_file *file, uint64_t size)
{
	(void)file;
	(void)size;
	return ENOSPC;
}

static void test_join(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7), b = handle_open(&at);
	struct commit_record record;
	unsigned index;
	uint64_t sequence;

	(void)state;
	assert_false(b.alone);
	shared_head(b.shared, &record);
	record_assert(&record);
	assert_int_equal(record.txid, 7);
	shared_set_slot(a.shared, 1, 99);
	shared_slot(b.shared, &index, &sequence);
	assert_int_equal(sequence, 0); /* together with the head, or not at all */
	publish(&a, 8);
	assert_int_equal(shared_head_txid(b.shared), 8);
	shared_slot(b.shared, &index, &sequence);
	assert_int_equal(index, 1);
	assert_int_equal(sequence, 99);
	shared_poison(b.shared);
	assert_true(shared_poisoned(a.shared));
	assert_false(shared_last(a.shared));
	handle_close(&b);
	assert_true(shared_last(a.shared));
	handle_close(&a);
	a = handle_first(&at, 9); /* contents begin anew */
	assert_false(shared_poisoned(a.shared));
	handle_close(&a);
}

static void body_environment(const struct place *at)
{
	struct handle h = handle_first(at, 7);
	struct shared_reader reader;
	struct commit_record record;

	shared_poison(h.shared);
	if (shared_writer_enter(h.shared, NULL) || shared_reader_enter(h.shared, &reader, &record, NULL))
		abort();
}

static void test_left_by_a_crash(void **state)
{
	struct place at = place_new();
	struct handle h;

	(void)state;
	child_kill(child_start(body_environment, &at));
	h = handle_open(&at);
	assert_true(h.alone);
	assert_false(shared_poisoned(h.shared));
	assert_int_equal(shared_head_txid(h.shared), 0);
	publish(&h, 1);
	assert_int_equal(shared_settle(h.shared, NULL), BTS_OK);
	assert_int_equal(shared_readers(h.shared, &(bts_txid){0}, 1, NULL), 0);
	handle_close(&h);
	/* A reader that may not write the data file believes nothing of it either. */
	child_kill(child_start(body_environment, &at));
	assert_int_equal(handle_try(&at, BTS_FILE_READ, &h, NULL), BTS_NEEDS_RECOVERY);
}

static void body_alone(const struct place *at)
{
	handle_open(at);
}

static void test_death_while_recovering(void **state)
{
	struct place at = place_new();
	pid_t pid = child_start(body_alone, &at), other;
	struct handle h;

	(void)state;
	other = fork();
	if (other == 0) {
		struct handle mine;

		/* Blocks until the one that is alone dies; then there is nothing to join. */
		_exit(handle_try(&at, BTS_FILE_WRITE, &mine, NULL) || !mine.alone);
	}
	child_kill(pid);
	child_join(other);
	h = handle_first(&at, 3);
	handle_close(&h);
}

static void test_copied_lock_file(void **state)
{
	struct place at = place_new(), copy = place_new();
	struct handle a = handle_first(&at, 7), b;
	char command[512];

	(void)state;
	snprintf(command, sizeof(command), "cp %s-lock %s-lock", at.path, copy.path);
	assert_int_equal(system(command), 0);
	b = handle_open(&copy);
	assert_true(b.alone);
	handle_close(&b);
	handle_close(&a);
}

static void test_replaced_data_file(void **state)
{
	struct place at = place_new();
	struct handle old = handle_first(&at, 7), new;
	struct bts_file *file;

	(void)state;
	assert_int_equal(unlink(at.path), 0);
	assert_int_equal(at.env->ops->file_open(at.env, at.path, BTS_FILE_WRITE | BTS_FILE_CREATE, &file), 0);
	at.env->ops->file_close(file);
	new = handle_first(&at, 1);
	publish(&old, 8);
	assert_int_equal(shared_head_txid(new.shared), 1);
	assert_int_equal(shared_head_txid(old.shared), 8);
	handle_close(&new);
	handle_close(&old);
}

static void test_other_version(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7), b;
	struct bts_error error;

	(void)state;
	a.shared->map->layout++;
	assert_int_equal(handle_try(&at, BTS_FILE_WRITE, &b, &error), BTS_VERSION);
	assert_non_null(strstr(error.text, at.path));
	handle_close(&a);
	a = handle_first(&at, 7);
	handle_close(&a);
}

static void test_refusals(void **state)
{
	struct env_mem *m = env_mem_new(0);
	struct place at = place_new(), mem = {.path = "x", .env = env_mem_env(m)};
	struct handle a, b;
	struct bts_error error;
	struct bts_file *data;
	bool alone;

	(void)state;
	assert_int_equal(at.env->ops->file_open(at.env, at.path, BTS_FILE_WRITE, &data), 0);
	assert_int_equal(shared_open(at.env, "/proc/none/x", data, &a.shared, &alone, &error), BTS_IO);
	assert_non_null(strstr(error.text, "/proc/none/x-lock"));
	at.env->ops->file_close(data);
	/* The lock file is taken away under living processes. */
	assert_int_equal(mem.env->ops->file_open(mem.env, "x", BTS_FILE_WRITE | BTS_FILE_CREATE, &data), 0);
	mem.env->ops->file_close(data);
	a = handle_first(&mem, 1);
	b = handle_open(&mem);
	handle_close(&b);
	assert_int_equal(mem.env->ops->path_unlink(mem.env, "x-lock"), 0);
	assert_int_equal(handle_try(&mem, BTS_FILE_WRITE, &b, &error), BTS_BUSY);
	handle_close(&a);
	env_mem_free(m);
}

static void body_writer(const struct place *at)
{
	struct handle h = handle_open(at);

	if (shared_writer_enter(h.shared, NULL))
		abort();
	/* Dies in the midst of a publication. */
	memset(&h.shared->map->head.records[(h.shared->map->head.sequence + 1) & 1], 0xee,
		sizeof(struct shared_record));
}

static void test_writer(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7), b = handle_open(&at);
	struct commit_record record;
	pid_t pid;

	(void)state;
	assert_int_equal(shared_writer_enter(a.shared, NULL), BTS_OK);
	assert_int_equal(shared_writer_enter(b.shared, NULL), BTS_BUSY);
	shared_writer_leave(a.shared);
	pid = child_start(body_writer, &at);
	assert_int_equal(shared_writer_enter(b.shared, NULL), BTS_BUSY);
	shared_head(b.shared, &record);
	record_assert(&record);
	child_kill(pid);
	assert_int_equal(shared_writer_enter(b.shared, NULL), BTS_OK);
	shared_head(b.shared, &record);
	record_assert(&record);
	publish(&b, 8);
	shared_head(a.shared, &record);
	record_assert(&record);
	assert_int_equal(record.txid, 8);
	handle_close(&b);
	handle_close(&a);
}

static void body_reader(const struct place *at)
{
	struct handle h = handle_open(at);
	struct shared_reader reader;
	struct commit_record record;

	if (shared_reader_enter(h.shared, &reader, &record, NULL))
		abort();
}

static void test_readers(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 0);
	struct shared_reader empty, one, again;
	struct commit_record record;
	bts_txid list[8];
	uint32_t live;
	pid_t pid;

	(void)state;
	assert_int_equal(
		shared_reader_enter(a.shared, &empty, &record, NULL), BTS_OK); /* an empty follower */
	publish(&a, 10);
	pid = child_start(body_reader, &at);
	publish(&a, 20);
	assert_int_equal(shared_reader_enter(a.shared, &one, &record, NULL), BTS_OK);
	assert_int_equal(shared_reader_enter(a.shared, &again, &record, NULL), BTS_OK);
	assert_int_equal(shared_readers(a.shared, list, 8, &live), 3);
	assert_int_equal(live, 4);
	assert_int_equal(list[0], 0);
	assert_int_equal(list[1], 10);
	assert_int_equal(list[2], 20);
	assert_int_equal(shared_readers(a.shared, list, 2, &live), 2);
	assert_int_equal(list[1], 10);
	assert_int_equal(shared_reader_record(a.shared, 10, &record), BTS_OK);
	record_assert_reader(&record);
	assert_int_equal(record.txid, 10);
	child_kill(pid);
	assert_int_equal(shared_readers(a.shared, list, 8, &live), 2);
	assert_int_equal(live, 3);
	assert_int_equal(shared_reader_record(a.shared, 10, &record), BTS_NOT_FOUND);
	shared_reader_leave(a.shared, &one);
	shared_reader_leave(a.shared, &empty);
	assert_int_equal(shared_readers(a.shared, list, 8, &live), 1);
	shared_reader_leave(a.shared, &again);
	handle_close(&a);
}

/*
 * The lock file is sparse, and a store into a hole on a full disk kills the process (a primary died so): what is touched
 * for the first time must have its blocks before.
 */
static void test_no_room(void **state)
{
	static struct shared_reader readers[SHARED_SLOTS_STEP + 1];
	struct place at = place_new();
	struct bts_env *disk = at.env, full = *disk;
	struct bts_env_ops ops = *disk->ops;
	struct commit_record record;
	struct bts_error error;
	struct handle a, b;
	size_t i;

	(void)state;
	full.ops = &ops;
	at.env = &full;
	ops.file_reserve = reserve_fails;
	assert_int_equal(handle_try(&at, BTS_FILE_WRITE, &b, &error), BTS_FULL);
	ops.file_reserve = disk->ops->file_reserve;
	a = handle_first(&at, 5);
	ops.file_reserve = reserve_fails;
	for (i = 0; i < SHARED_SLOTS_STEP; i++)
		assert_int_equal(shared_reader_enter(a.shared, &readers[i], &record, &error), BTS_OK);
	assert_int_equal(shared_reader_enter(a.shared, &readers[i], &record, &error), BTS_FULL);
	ops.file_reserve = disk->ops->file_reserve;
	assert_int_equal(shared_reader_enter(a.shared, &readers[i], &record, &error), BTS_OK);
	while (i + 1 > 0)
		shared_reader_leave(a.shared, &readers[i--]);
	handle_close(&a);
}

static void test_reader_limit(void **state)
{
	static struct shared_reader readers[SHARED_READERS_MAX];
	struct place at = place_new();
	struct handle a = handle_first(&at, 5);
	struct shared_reader more;
	struct commit_record record;
	pid_t pid = child_start(body_reader, &at);
	size_t i;

	(void)state;
	for (i = 0; i < SHARED_READERS_MAX - 1; i++)
		assert_int_equal(shared_reader_enter(a.shared, &readers[i], &record, NULL), BTS_OK);
	assert_int_equal(shared_reader_enter(a.shared, &more, &record, NULL), BTS_LIMIT);
	child_kill(pid); /* its place is found when there is no other */
	assert_int_equal(shared_reader_enter(a.shared, &more, &record, NULL), BTS_OK);
	shared_reader_leave(a.shared, &more);
	for (i = 0; i < SHARED_READERS_MAX - 1; i++)
		shared_reader_leave(a.shared, &readers[i]);
	handle_close(&a);
}

/*
 * G1.  Page t is needed by snapshot t alone.  The writer publishes t, then reuses every older page that no
 * registered reader needs.  A reader must never find the page of its snapshot reused.
 */
#define RACE_COMMITS 4000u
#define RACE_READS 2000u
struct race { /* in memory that the processes share */
	_Atomic bool reused[RACE_COMMITS + 1];
	_Atomic bool done;
	_Atomic uint64_t reads;
};

struct racer {
	struct race *race;
	struct shared *shared;
};

static void *race_read(void *arg)
{
	struct racer *racer = arg;

	while (!atomic_load(&racer->race->done)) {
		struct shared_reader reader;
		struct commit_record record;

		if (shared_reader_enter(racer->shared, &reader, &record, NULL))
			abort();
		record_assert(&record);
		for (int i = 0; i < 4; i++)
			if (atomic_load(&racer->race->reused[record.txid]))
				abort();
		shared_reader_leave(racer->shared, &reader);
		atomic_fetch_add(&racer->race->reads, 1);
	}
	return NULL;
}

static void race_publish(struct race *race, struct handle *writer, bts_txid t)
{
	static bts_txid snapshots[SHARED_READERS_MAX];
	size_t count, next = 0;

	publish(writer, t);
	count = shared_readers(writer->shared, snapshots, SHARED_READERS_MAX, NULL);
	for (bts_txid s = t > 200 ? t - 200 : 1; s < t; s++) {
		while (next < count && snapshots[next] < s)
			next++;
		if (next == count || snapshots[next] != s)
			atomic_store(&race->reused[s], true);
	}
}

static void test_registration_race(void **state)
{
	struct race *race =
		mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct place at = place_new();
	struct handle writer = handle_first(&at, 1);
	struct racer racer = {race, writer.shared};
	pthread_t threads[2];
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		struct handle mine = handle_open(&at);

		race_read(&(struct racer){race, mine.shared});
		_exit(0);
	}
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, race_read, &racer), 0);
	for (bts_txid t = 2; t <= RACE_COMMITS; t++)
		race_publish(race, &writer, t);
	while (atomic_load(&race->reads) < RACE_READS)
		sched_yield();
	atomic_store(&race->done, true);
	for (size_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	child_join(pid);
	handle_close(&writer);
	munmap(race, sizeof(*race));
}

static void test_wait(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7);
	struct shared_reader reader;
	struct commit_record record;
	bts_txid head = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(shared_wait_head(a.shared, 6, 0, &head), BTS_OK);
	assert_int_equal(head, 7);
	assert_int_equal(shared_wait_head(a.shared, 7, 1, &head), BTS_TIMEOUT);
	pid = fork();
	if (pid == 0) {
		struct handle mine = handle_open(&at);
		bts_txid txid = 0;

		if (shared_wait_head(mine.shared, 7, 60000, &txid) || txid != 8)
			_exit(1);
		_exit(shared_wait_head(mine.shared, 8, 60000, &txid) != BTS_TIMEOUT);
	}
	while (!atomic_load(&a.shared->map->head_waiters))
		sched_yield();
	publish(&a, 8);
	for (int status; waitpid(pid, &status, WNOHANG) == 0;)
		if (atomic_load(&a.shared->map->head_waiters))
			shared_wake(a.shared);
	/* Somebody who waits for readers to leave. */
	assert_int_equal(shared_reader_enter(a.shared, &reader, &record, NULL), BTS_OK);
	shared_wait_reader(a.shared, 1);
	shared_reader_leave(a.shared, &reader);
	handle_close(&a);
}

static void test_unclean(void **state)
{
	struct place at = place_new();
	struct handle a = handle_open(&at);
	bool unclean, fell_back;
	bts_txid highest;

	(void)state;
	assert_true(shared_was_clean(a.shared));
	shared_set_unclean(a.shared, true, true, 44);
	shared_unclean(a.shared, &unclean, &fell_back, &highest);
	assert_true(unclean && fell_back);
	assert_int_equal(highest, 44);
	shared_clear_unclean(a.shared);
	shared_unclean(a.shared, &unclean, &fell_back, &highest);
	assert_true(!unclean && fell_back);
	assert_false(shared_was_clean(a.shared));
	shared_assign(a.shared, 45);
	assert_int_equal(shared_assigned(a.shared), 45);
	handle_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_left_by_a_crash),
		cmocka_unit_test(test_death_while_recovering),
		cmocka_unit_test(test_copied_lock_file),
		cmocka_unit_test(test_replaced_data_file),
		cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_writer),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_reader_limit),
		cmocka_unit_test(test_registration_race),
		cmocka_unit_test(test_wait),
		cmocka_unit_test(test_unclean),
	};
	int failed;

	if (bed_enter())
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return bed_leave() || failed;
}
