/*
 * Snapshots on a follower beside frames that overwrite everything they reach (R2, R5, R6).
 *
 * A snapshot that is held reads byte for byte what it read at first, through its transaction, its borrowed values and its walk;
 * snapshots that begin meanwhile, in this handle, another one and another process, see the newest; no frame and no reader waits.
 * The log is bounded by what the snapshot keeps from going home, and gone when it has ended.  Beyond its limit the oldest reader is
 * told to end.  What rots in the log is found and named, and nothing else is lost by it.
 */
#include "apply_pair.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FRAMES 200u

/* A process of its own: opens the file, reads, checks, and says whether it found this. */
static void assert_newest_elsewhere(struct pair *p)
{
	uint8_t theirs[16];
	int status;
	pid_t pid;

	pair_digest(p->primary, theirs);
	pid = fork();
	if (pid == 0) {
		struct bts *db = bed_open(bts_env_posix(), p->path, BTS_OPEN_READ_ONLY, 0);
		struct bts_stat stat = {.size = sizeof(stat)};
		uint8_t found[16];
		bool same;

		pair_digest(db, found);
		bed_assert_clean(db);
		same = !memcmp(found, theirs, 16) && bts_stat(db, &stat, NULL) == BTS_OK && stat.readers > 0;
		bts_close(db);
		_exit(same ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A backup opens as what the follower is, without a log. */
static void assert_backup(struct pair *p)
{
	uint8_t theirs[16], found[16];
	struct bts_error error;
	char path[128];
	struct bts *db;
	int fd;

	snprintf(path, sizeof(path), "%s/backup", pair_directory);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
	assert_true(fd >= 0);
	pair_must(bts_backup(p->follower, fd, NULL, &error), &error);
	close(fd);
	db = bed_open(bts_env_posix(), path, BTS_OPEN_READ_ONLY, 0);
	pair_digest(p->primary, theirs);
	pair_digest(db, found);
	assert_memory_equal(found, theirs, 16);
	bed_assert_clean(db);
	bts_close(db);
	assert_int_equal(unlink(path), 0);
}

/* What a follower of the follower gets. */
static void assert_cascades(struct pair *p)
{
	struct bts_position nothing = bed_position(p->follower);
	struct bts *below;
	char path[128];

	snprintf(path, sizeof(path), "%s/below", pair_directory);
	bed_create(bts_env_posix(), path, p->follower, 4096);
	below = bed_open(bts_env_posix(), path, BTS_OPEN_FOLLOWER, 0);
	(void)nothing;
	bed_ship(p->follower, below, NULL);
	pair_assert_newest(p, below);
	bed_assert_clean(below);
	bts_close(below);
	assert_int_equal(unlink(path), 0);
}

static void test_held_snapshot(void **state)
{
	struct bts_position nothing = {.txid = 0};
	struct bts_slice value, again;
	struct bts_apply_stat stat;
	struct bts_bucket *bucket;
	struct bed_frame *walk;
	struct bts_txn *held;
	struct bts *other;
	uint8_t before[16], now[16], *copy;
	uint64_t most = 0, reached;
	uint32_t key = 40 /* a large one */, *sums;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "held", 0);
	other = bed_open(bts_env_posix(), p.path, BTS_OPEN_READ_ONLY, 0);
	assert_int_equal(bts_begin(other, BTS_READ, &held, NULL), BTS_OK);
	bed_digest(held, before);
	assert_int_equal(bts_bucket(held, (struct bts_slice){"b", 1}, 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_get(held, bucket, (struct bts_slice){&key, sizeof(key)}, &value), BTS_OK);
	copy = malloc(value.size);
	memcpy(copy, value.data, value.size);
	walk = bed_frame_new(other, &nothing);
	sums = malloc(walk->count * sizeof(*sums));
	reached = 0;
	for (size_t i = 0; i < walk->count; i++) {
		sums[i] = bts_crc32c(0, walk->units[i].bytes, walk->units[i].size);
		reached += walk->units[i].size;
	}
	for (unsigned i = 1; i <= FRAMES; i++) {
		for (unsigned commits = i % 7 == 0 ? 5 : 1; commits--;)
			pair_overwrite(&p, i, i % 10 == 0 ? PAIR_KEYS : 1 + (unsigned)rng_below(&p.rng, 60));
		bed_ship(p.primary, p.follower, &p.rng);
		if (pair_log_bytes(&p) > most)
			most = pair_log_bytes(&p);
		pair_assert_newest(&p, i % 2 ? p.follower : other);
		if (i % 50 == 0) {
			bed_digest(held, now);
			assert_memory_equal(now, before, 16);
			assert_newest_elsewhere(&p);
			assert_backup(&p);
			assert_cascades(&p);
			bed_assert_same(p.primary, p.follower);
		}
	}
	for (size_t i = 0; i < walk->count; i++)
		assert_int_equal(bts_crc32c(0, walk->units[i].bytes, walk->units[i].size), sums[i]);
	assert_memory_equal(value.data, copy, value.size);
	assert_int_equal(bts_get(held, bucket, (struct bts_slice){&key, sizeof(key)}, &again), BTS_OK);
	assert_true(again.size == value.size && !memcmp(again.data, copy, again.size));
	bts_apply_stat(p.follower, &stat);
	printf("%llu of %llu pages redirected, the log at most %llu bytes beside a snapshot of %llu\n",
		(unsigned long long)stat.redirected_pages, (unsigned long long)stat.pages, (unsigned long long)most,
		(unsigned long long)reached);
	assert_true(stat.redirected_pages > 0 && stat.pending_pages > 0 && stat.pending_bytes > 0);
	/* Twice what it keeps away, what is not worth writing anew, and a frame. */
	assert_true(most < 2 * reached + (8u << 20));
	bed_frame_free(walk);
	bts_abort(held);
	pair_overwrite(&p, FRAMES + 1, 1);
	bed_ship(p.primary, p.follower, NULL);
	assert_int_equal(bts_apply_idle(p.follower, NULL), BTS_OK);
	bts_apply_stat(p.follower, &stat);
	assert_true(stat.pending_pages == 0 && stat.pending_bytes == 0 && stat.expired_readers == 0);
	pair_assert_newest(&p, other);
	bed_assert_same(p.primary, p.follower);
	bts_close(other);
	free(copy);
	free(sums);
	pair_close(&p);
	assert_int_equal(pair_log_bytes(&p), 0);
}

/* The applier closes while a reader needs homes: the log stays, is read, inherited, and at last redone by who is alone. */
static void test_log_outlives_applier(void **state)
{
	uint8_t before[16], now[16];
	struct bts_txn *held;
	struct bts *other;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "outlives", 0);
	other = bed_open(bts_env_posix(), p.path, BTS_OPEN_READ_ONLY, 0);
	assert_int_equal(bts_begin(other, BTS_READ, &held, NULL), BTS_OK);
	bed_digest(held, before);
	for (unsigned i = 1; i <= 30; i++) {
		pair_overwrite(&p, i, 60);
		bed_ship(p.primary, p.follower, &p.rng);
	}
	assert_true(pair_log_bytes(&p) > 0);
	bts_close(p.follower);
	assert_true(pair_log_bytes(&p) > 0);
	pair_assert_newest(&p, other);
	p.follower = bed_open(bts_env_posix(), p.path, BTS_OPEN_FOLLOWER, 0);
	for (unsigned i = 31; i <= 60; i++) {
		pair_overwrite(&p, i, 60);
		bed_ship(p.primary, p.follower, &p.rng);
		pair_assert_newest(&p, other);
	}
	bed_digest(held, now);
	assert_memory_equal(now, before, 16);
	bts_close(p.follower);
	bts_abort(held);
	assert_true(pair_log_bytes(&p) > 0);
	bts_close(other);
	p.follower = bed_open(bts_env_posix(), p.path, BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(pair_log_bytes(&p), 0);
	bed_assert_same(p.primary, p.follower);
	pair_close(&p);
}

/* Beyond the limit the oldest reader is told to end, and the next frame waits for that; the younger one stays. */
static void test_limit(void **state)
{
	struct bts_apply_stat stat;
	struct bts_txn *oldest, *younger;
	struct bts_bucket *bucket;
	uint8_t before[16], now[16];
	enum bts_err err = BTS_OK;
	unsigned round = 1;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "limit", 128u << 10);
	assert_int_equal(bts_begin(p.follower, BTS_READ, &oldest, NULL), BTS_OK);
	for (; round < 200 && !err; round++) {
		pair_overwrite(&p, round, 60);
		bed_ship(p.primary, p.follower, &p.rng);
		err = bts_bucket(oldest, (struct bts_slice){"b", 1}, 0, &bucket, NULL);
	}
	assert_int_equal(err, BTS_EXPIRED);
	assert_true(pair_log_bytes(&p) > 128u << 10);
	bts_apply_stat(p.follower, &stat);
	assert_true(stat.expired_readers >= 1);
	assert_int_equal(bts_begin(p.follower, BTS_READ, &younger, NULL), BTS_OK);
	bed_digest(younger, before);
	bts_abort(oldest);
	pair_overwrite(&p, round, 5);
	bed_ship(p.primary, p.follower, &p.rng);
	bed_digest(younger, now);
	assert_memory_equal(now, before, 16);
	bts_abort(younger);
	pair_assert_newest(&p, p.follower);
	pair_close(&p);
}

/* A record's pages rot: who reads them is told; its head rots: nobody can begin; alone, nothing is redone. */
static void test_rot(void **state)
{
	struct bts_error error = {.text = ""};
	struct bts_options options;
	struct bts_txn *held, *txn;
	struct bts *other, *db;
	char path[128];
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "rot", 0);
	other = bed_open(bts_env_posix(), p.path, BTS_OPEN_READ_ONLY, 0);
	assert_int_equal(bts_begin(other, BTS_READ, &held, NULL), BTS_OK);
	pair_overwrite(&p, 1, PAIR_KEYS);
	bed_ship(p.primary, p.follower, NULL);
	pair_overwrite(&p, 2, PAIR_KEYS);
	bed_ship(p.primary, p.follower, NULL);
	snprintf(path, sizeof(path), "%s.pending", p.path);
	if (access(path, F_OK))
		snprintf(path, sizeof(path), "%s.pending2", p.path);
	pair_flip(path, 136 + 56 + 2000); /* in the pages of the first record */
	assert_int_equal(bts_check(other, NULL, &error), BTS_CORRUPT);
	pair_flip(path, 136 + 56 + 2000);
	pair_must(bts_check(other, NULL, &error), &error);
	pair_flip(path, 136 + 20); /* its head; a process that has not looked at it yet */
	db = bed_open(bts_env_posix(), p.path, BTS_OPEN_READ_ONLY, 0);
	assert_int_equal(bts_begin(db, BTS_READ, &txn, &error), BTS_CORRUPT);
	assert_non_null(strstr(error.text, "record 0 at offset 136"));
	bts_close(db);
	bts_close(p.follower);
	bts_abort(held);
	bts_close(other);
	bts_options_init(&options);
	options.flags = BTS_OPEN_FOLLOWER;
	assert_int_equal(bts_open(p.path, &options, &p.follower, &error), BTS_CORRUPT);
	assert_non_null(strstr(error.text, "record 0"));
	pair_flip(path, 136 + 20);
	p.follower = bed_open(bts_env_posix(), p.path, BTS_OPEN_FOLLOWER, 0);
	bed_assert_same(p.primary, p.follower);
	pair_close(&p);
}

/*
 * A follower opened by a relative path, by a program that goes elsewhere afterwards: its log stood in the new directory, where it took
 * another file's place.
 */
static void test_another_directory(void **state)
{
	char home[PATH_MAX], folder[PATH_MAX], name[PATH_MAX];
	struct bts_txn *held;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "moved", 0);
	bts_close(p.follower);
	assert_non_null(getcwd(home, sizeof(home)));
	snprintf(folder, sizeof(folder), "%s", p.path);
	*strrchr(folder, '/') = '\0';
	snprintf(name, sizeof(name), "%s", strrchr(p.path, '/') + 1);
	assert_int_equal(chdir(folder), 0);
	p.follower = bed_open(bts_env_posix(), name, BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(chdir("/proc"), 0); /* no file can be made here */
	assert_int_equal(bts_begin(p.follower, BTS_READ, &held, NULL), BTS_OK);
	for (unsigned round = 1; round < 4; round++) {
		pair_overwrite(&p, round, PAIR_KEYS);
		bed_ship(p.primary, p.follower, NULL);
	}
	snprintf(name, sizeof(name), "%s.pending", p.path);
	assert_int_equal(access(name, F_OK), 0);
	bts_abort(held);
	bed_assert_same(p.primary, p.follower);
	assert_int_equal(chdir(home), 0);
	pair_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_held_snapshot),
		cmocka_unit_test(test_log_outlives_applier),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_rot),
		cmocka_unit_test(test_another_directory),
	};
	int failed;

	if (pair_begin(argc, argv))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return pair_end() || failed;
}
