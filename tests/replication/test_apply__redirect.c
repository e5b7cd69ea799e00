/*
 * Snapshots on a follower beside frames that overwrite everything they reach (R2, R5, R6).
 *
 * A snapshot that is held reads byte for byte what it read at first, through its transaction, its borrowed values and its walk;
 * snapshots that begin meanwhile, in this handle, another one and another process, see the newest; no frame and no reader waits.
 * The log is bounded by what the snapshot keeps from going home, and gone when it has ended.  Beyond its limit the oldest reader is
 * told to end.  What rots in the log is found and named, and nothing else is lost by it.
 */
#include "apply_bed.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS 400u
#define FRAMES 200u

static uint64_t seed;
static char directory[64];

struct pair {
	struct bts *primary, *follower;
	char source[96], path[96];
	struct rng rng;
};

static void must(enum bts_err err, const struct bts_error *error)
{
	if (err)
		fail_msg("%s", error->text);
}

/* Every key anew, one in forty of them large. */
static void overwrite(struct pair *p, unsigned round, unsigned changes)
{
	static uint8_t value[200000];
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;

	must(bts_begin(p->primary, BTS_WRITE, &txn, &error), &error);
	must(bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, &error), &error);
	for (unsigned i = 0; i < changes; i++) {
		uint32_t key = changes == KEYS ? i : (uint32_t)rng_below(&p->rng, KEYS);
		size_t size = key % 40 == 0 ? 20000 + rng_below(&p->rng, 100000) : 200;

		memset(value, (int)(round + key), size);
		memcpy(value, &round, sizeof(round));
		if (bts_put(txn, bucket, (struct bts_slice){&key, sizeof(key)}, (struct bts_slice){value, size}, 0))
			fail_msg("put: %s", bts_txn_error(txn)->text);
	}
	must(bts_commit(txn, &error), &error);
}

static void pair_open(struct pair *p, struct bts_env *env, const char *name, uint64_t limit)
{
	struct bts_options options;
	struct bts_error error;

	rng_init(&p->rng, seed);
	snprintf(p->source, sizeof(p->source), "%s/%s-primary", directory, name);
	snprintf(p->path, sizeof(p->path), "%s/%s-follower", directory, name);
	p->primary = bed_open(bts_env_posix(), p->source, 0, 4096);
	bed_create(bts_env_posix(), p->path, p->primary, 4096);
	bts_options_init(&options);
	options.env = env;
	options.flags = BTS_OPEN_FOLLOWER;
	options.map_bytes = UINT64_C(256) << 20;
	options.pending_limit = limit;
	must(bts_open(p->path, &options, &p->follower, &error), &error);
	overwrite(p, 0, KEYS);
	bed_ship(p->primary, p->follower, NULL);
}

static void pair_close(struct pair *p)
{
	bts_close(p->follower);
	bts_close(p->primary);
}

static uint64_t log_bytes(const struct pair *p)
{
	uint64_t bytes = 0;
	char path[128];
	struct stat st;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s.pending%s", p->path, i ? "2" : "");
		if (!stat(path, &st))
			bytes += (uint64_t)st.st_size;
	}
	return bytes;
}

static void digest_of(struct bts *db, uint8_t digest[16])
{
	struct bts_error error;
	struct bts_txn *txn;

	must(bts_begin(db, BTS_READ, &txn, &error), &error);
	bed_digest(txn, digest);
	bts_abort(txn);
}

static void assert_newest(struct pair *p, struct bts *db)
{
	uint8_t theirs[16], ours[16];

	digest_of(p->primary, theirs);
	digest_of(db, ours);
	assert_memory_equal(ours, theirs, 16);
}

/* A process of its own: opens the file, reads, checks, and says whether it found this. */
static void assert_newest_elsewhere(struct pair *p)
{
	uint8_t theirs[16];
	int status;
	pid_t pid;

	digest_of(p->primary, theirs);
	pid = fork();
	if (pid == 0) {
		struct bts *db = bed_open(bts_env_posix(), p->path, BTS_OPEN_READ_ONLY, 0);
		struct bts_stat stat = {.size = sizeof(stat)};
		uint8_t found[16];
		bool same;

		digest_of(db, found);
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

	snprintf(path, sizeof(path), "%s/backup", directory);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
	assert_true(fd >= 0);
	must(bts_backup(p->follower, fd, NULL, &error), &error);
	close(fd);
	db = bed_open(bts_env_posix(), path, BTS_OPEN_READ_ONLY, 0);
	digest_of(p->primary, theirs);
	digest_of(db, found);
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

	snprintf(path, sizeof(path), "%s/below", directory);
	bed_create(bts_env_posix(), path, p->follower, 4096);
	below = bed_open(bts_env_posix(), path, BTS_OPEN_FOLLOWER, 0);
	(void)nothing;
	bed_ship(p->follower, below, NULL);
	assert_newest(p, below);
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
	uint32_t key = 40; /* a large one */
	uint32_t *sums;
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
			overwrite(&p, i, i % 10 == 0 ? KEYS : 1 + (unsigned)rng_below(&p.rng, 60));
		bed_ship(p.primary, p.follower, &p.rng);
		if (log_bytes(&p) > most)
			most = log_bytes(&p);
		assert_newest(&p, i % 2 ? p.follower : other);
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
	overwrite(&p, FRAMES + 1, 1);
	bed_ship(p.primary, p.follower, NULL);
	assert_int_equal(log_bytes(&p), 0);
	bts_apply_stat(p.follower, &stat);
	assert_true(stat.pending_pages == 0 && stat.pending_bytes == 0 && stat.expired_readers == 0);
	assert_newest(&p, other);
	bed_assert_same(p.primary, p.follower);
	bts_close(other);
	free(copy);
	free(sums);
	pair_close(&p);
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
		overwrite(&p, i, 60);
		bed_ship(p.primary, p.follower, &p.rng);
	}
	assert_true(log_bytes(&p) > 0);
	bts_close(p.follower);
	assert_true(log_bytes(&p) > 0);
	assert_newest(&p, other);
	p.follower = bed_open(bts_env_posix(), p.path, BTS_OPEN_FOLLOWER, 0);
	for (unsigned i = 31; i <= 60; i++) {
		overwrite(&p, i, 60);
		bed_ship(p.primary, p.follower, &p.rng);
		assert_newest(&p, other);
	}
	bed_digest(held, now);
	assert_memory_equal(now, before, 16);
	bts_close(p.follower);
	bts_abort(held);
	assert_true(log_bytes(&p) > 0);
	bts_close(other);
	p.follower = bed_open(bts_env_posix(), p.path, BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(log_bytes(&p), 0);
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
		overwrite(&p, round, 60);
		bed_ship(p.primary, p.follower, &p.rng);
		err = bts_bucket(oldest, (struct bts_slice){"b", 1}, 0, &bucket, NULL);
	}
	assert_int_equal(err, BTS_EXPIRED);
	assert_true(log_bytes(&p) > 128u << 10);
	bts_apply_stat(p.follower, &stat);
	assert_true(stat.expired_readers >= 1);
	assert_int_equal(bts_begin(p.follower, BTS_READ, &younger, NULL), BTS_OK);
	bed_digest(younger, before);
	bts_abort(oldest);
	overwrite(&p, round, 5);
	bed_ship(p.primary, p.follower, &p.rng);
	bed_digest(younger, now);
	assert_memory_equal(now, before, 16);
	bts_abort(younger);
	assert_newest(&p, p.follower);
	pair_close(&p);
}

static void flip(const char *path, uint64_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
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
	overwrite(&p, 1, KEYS);
	bed_ship(p.primary, p.follower, NULL);
	overwrite(&p, 2, KEYS);
	bed_ship(p.primary, p.follower, NULL);
	snprintf(path, sizeof(path), "%s.pending", p.path);
	if (access(path, F_OK))
		snprintf(path, sizeof(path), "%s.pending2", p.path);
	flip(path, 136 + 56 + 2000); /* in the pages of the first record */
	assert_int_equal(bts_check(other, NULL, &error), BTS_CORRUPT);
	flip(path, 136 + 56 + 2000);
	must(bts_check(other, NULL, &error), &error);
	flip(path, 136 + 20); /* its head; a process that has not looked at it yet */
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
	flip(path, 136 + 20);
	p.follower = bed_open(bts_env_posix(), p.path, BTS_OPEN_FOLLOWER, 0);
	bed_assert_same(p.primary, p.follower);
	pair_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_held_snapshot),
		cmocka_unit_test(test_log_outlives_applier),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_rot),
	};
	char command[128];
	int failed;

	seed = rng_seed_from(argc, argv, 1);
	snprintf(directory, sizeof(directory), "/tmp/test_apply__redirect.XXXXXX");
	if (!mkdtemp(directory))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	return system(command) || failed;
}
