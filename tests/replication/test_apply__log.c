/*
 * What path.pending costs and how it is handled: a frame takes one flush, two when it redirects, whoever reads; the files of
 * logs are written again, and never under who reads there; what rots in them is found by a scrub; a slot that counts more
 * records than there are is refused before room is made for them.
 */
#include "apply_pair.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static unsigned flushes, directories;
static int (*posix_sync)(struct bts_file *);
static int (*posix_sync_dir)(struct bts_env *, const char *);

static int count_sync(struct bts_file *file)
{
	flushes++;
	return posix_sync(file);
}

static int count_sync_dir(struct bts_env *env, const char *path)
{
	directories++;
	return posix_sync_dir(env, path);
}

static uint64_t redirected_pages(const struct pair *p)
{
	struct bts_apply_stat stat;

	bts_apply_stat(p->follower, &stat);
	return stat.redirected_pages;
}

/* Two logs, in turn, in the same two files; of each the name is flushed once. */
static void test_flushes(void **state)
{
	struct bts_env_ops ops = *bts_env_posix()->ops;
	struct bts_env env = {.ops = &ops};
	unsigned plain = 0, redirecting = 0;
	uint64_t rounds = 0, most = 0;
	struct pair p;

	(void)state;
	posix_sync = ops.file_sync;
	posix_sync_dir = ops.path_sync_dir;
	ops.file_sync = count_sync;
	ops.path_sync_dir = count_sync_dir;
	pair_open(&p, &env, "flushes", 0);
	for (unsigned i = 1; i <= 300; i++) {
		uint64_t before = redirected_pages(&p);

		for (unsigned commits = i % 3 ? 4 : 1; commits--;)
			pair_overwrite(&p, i, 5);
		flushes = directories = 0;
		bed_ship(p.primary, p.follower, &p.rng);
		if (redirected_pages(&p) > before) {
			redirecting++;
			assert_int_equal(flushes, 2);
		} else {
			plain++;
			assert_int_equal(flushes, 1);
		}
		if (directories)
			rounds += directories;
		if (i % 20)
			continue;
		flushes = directories = 0;
		assert_int_equal(bts_apply_idle(p.follower, NULL), BTS_OK);
		assert_int_equal(flushes, redirecting ? 2 : 0);
		assert_int_equal(directories, 0);
		assert_int_equal(bts_apply_idle(p.follower, NULL), BTS_OK); /* is home */
		assert_true(flushes <= 2);
		if (i == 100)
			most = pair_log_bytes(&p);
	}
	printf("%u frames, %u of them redirecting\n", plain + redirecting, redirecting);
	assert_true(plain > 20 && redirecting > 100 && most > 0);
	assert_int_equal(rounds, 2);
	assert_true(pair_log_bytes(&p) < 4 * most);
	bed_assert_same(p.primary, p.follower);
	pair_close(&p);
	assert_int_equal(pair_log_bytes(&p), 0);
}

/* A reader that began by a log reads there to its end, however many logs come after it. */
static void test_log_kept_under_reader(void **state)
{
	uint8_t before[16], now[16];
	struct bts_txn *held, *beside;
	struct bts *other;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "kept", 0);
	other = bed_open(bts_env_posix(), p.path, BTS_OPEN_READ_ONLY, 0);
	for (unsigned turn = 0; turn < 6; turn++) {
		for (unsigned i = 0; i < 6; i++)
			pair_overwrite(&p, turn, PAIR_KEYS);
		bed_ship(p.primary, p.follower, NULL);
		assert_true(pair_log_bytes(&p) > 0);
		assert_int_equal(bts_begin(other, BTS_READ, &held, NULL), BTS_OK);
		if (turn % 2) { /* one beside it holds on when it has ended */
			assert_int_equal(bts_begin_same(held, &beside, NULL), BTS_OK);
			bts_abort(held);
			held = beside;
		}
		bed_digest(held, before);
		for (unsigned i = 0; i < 12; i++) {
			assert_int_equal(bts_apply_idle(p.follower, NULL), BTS_OK);
			for (unsigned n = 0; n < 3; n++)
				pair_overwrite(&p, turn + i, PAIR_KEYS);
			bed_ship(p.primary, p.follower, NULL);
			bed_digest(held, now);
			assert_memory_equal(now, before, 16);
			pair_assert_newest(&p, i % 2 ? p.follower : other);
		}
		bts_abort(held);
		assert_int_equal(bts_apply_idle(p.follower, NULL), BTS_OK);
	}
	bts_close(other);
	bed_assert_same(p.primary, p.follower);
	pair_close(&p);
}

/* The file of a log that is kept for the next one is of no use to a primary, nor would its next opener look for it. */
static void test_promotion_keeps_no_log(void **state)
{
	struct bts_error error;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "promoted", 0);
	for (unsigned i = 0; i < 6; i++)
		pair_overwrite(&p, i, PAIR_KEYS);
	bed_ship(p.primary, p.follower, NULL);
	assert_true(pair_log_bytes(&p) > 0);
	pair_must(bts_promote(p.follower, NULL, NULL, &error), &error);
	assert_int_equal(pair_log_bytes(&p), 0);
	pair_overwrite(&p, 7, PAIR_KEYS);
	bed_assert_clean(p.follower);
	pair_close(&p);
	assert_int_equal(pair_log_bytes(&p), 0);
}

static enum bts_err read_all(struct bts_txn *txn)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"b", 1}, 0, &bucket, NULL);

	for (uint32_t key = 0; key < PAIR_KEYS && !err; key++)
		err = bts_get(txn, bucket, (struct bts_slice){&key, sizeof(key)}, &value);
	return err;
}

static unsigned scrub_damaged(struct bts *db)
{
	struct bts_scrub_unit unit;
	struct bts_scrub *scrub;
	unsigned damaged = 0;

	assert_int_equal(bts_scrub_open(db, &scrub, NULL), BTS_OK);
	while (bts_scrub_next(scrub, &unit, NULL) == BTS_OK)
		damaged += unit.damaged;
	bts_scrub_close(scrub);
	return damaged;
}

/* What was read before it rotted passes for verified, until a scrub has found it. */
static void test_rot_found_by_scrub(void **state)
{
	static const enum bts_err expected[] = {BTS_OK, BTS_OK, BTS_CORRUPT, BTS_OK};
	struct bts_txn *held, *txn[4]; /* each kept: the next has no bucket open */
	char path[128];
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "scrubbed", 0);
	assert_int_equal(bts_begin(p.follower, BTS_READ, &held, NULL), BTS_OK);
	for (unsigned i = 1; i < 3; i++) {
		pair_overwrite(&p, i, PAIR_KEYS);
		bed_ship(p.primary, p.follower, NULL);
	}
	snprintf(path, sizeof(path), "%s.pending", p.path);
	for (unsigned i = 0; i < 4; i++) {
		if (i == 1 || i == 3)
			pair_flip(path, 136 + 56 + 2000);
		if (i == 2)
			assert_true(scrub_damaged(p.follower) > 0);
		assert_int_equal(bts_begin(p.follower, BTS_READ, &txn[i], NULL), BTS_OK);
		assert_int_equal(read_all(txn[i]), expected[i]);
	}
	assert_int_equal(scrub_damaged(p.follower), 0);
	for (unsigned i = 0; i < 4; i++)
		bts_abort(txn[i]);
	bts_abort(held);
	pair_close(&p);
}

/* The newest slot says that so many records count. */
static void craft_count(const char *path, uint32_t count)
{
	uint64_t sequences[2];
	uint8_t slot[4096];
	uint32_t crc = 0;
	int fd = open(path, O_RDWR);
	off_t at;

	assert_true(fd >= 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pread(fd, &sequences[i], 8, (off_t)i * 32768 + 32), 8);
	at = sequences[1] > sequences[0] ? 32768 : 0;
	assert_int_equal(pread(fd, slot, sizeof(slot), at), sizeof(slot));
	memcpy(slot + 44, &count, 4);
	memset(slot + 16, 0, 4);
	crc = bts_crc32c(0, slot, sizeof(slot));
	memcpy(slot + 16, &crc, 4);
	assert_int_equal(pwrite(fd, slot, sizeof(slot), at), sizeof(slot));
	close(fd);
}

static size_t most_asked;

static void *count_memory(struct bts_env *env, void *old, size_t size)
{
	(void)env;
	if (size > most_asked)
		most_asked = size;
	return bts_env_posix()->ops->memory(bts_env_posix(), old, size);
}

/* A slot with the right sum that counts more records than the log has: said, without room made for them. */
static void test_crafted_count(void **state)
{
	struct bts_env_ops ops = *bts_env_posix()->ops;
	struct bts_env env = {.ops = &ops};
	struct bts_error error = {.text = ""};
	struct bts_options options;
	struct bts_txn *held;
	struct bts *other;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "crafted", 0);
	other = bed_open(bts_env_posix(), p.path, BTS_OPEN_READ_ONLY, 0);
	assert_int_equal(bts_begin(other, BTS_READ, &held, NULL), BTS_OK);
	for (unsigned i = 1; i < 3; i++) {
		pair_overwrite(&p, i, PAIR_KEYS);
		bed_ship(p.primary, p.follower, NULL);
	}
	bts_close(p.follower);
	craft_count(p.path, UINT32_MAX - 1);
	ops.memory = count_memory;
	bts_options_init(&options);
	options.env = &env;
	options.flags = BTS_OPEN_FOLLOWER;
	options.map_bytes = UINT64_C(256) << 20;
	assert_int_equal(bts_open(p.path, &options, &p.follower, &error), BTS_CORRUPT);
	assert_non_null(strstr(error.text, "are too few for 4294967294 records"));
	assert_true(most_asked > 0 && most_asked < 16u << 20);
	bts_abort(held);
	bts_close(other);
	bts_close(p.primary);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flushes),
		cmocka_unit_test(test_log_kept_under_reader),
		cmocka_unit_test(test_promotion_keeps_no_log),
		cmocka_unit_test(test_rot_found_by_scrub),
		cmocka_unit_test(test_crafted_count),
	};
	int failed;

	if (pair_begin(argc, argv))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return pair_end() || failed;
}
