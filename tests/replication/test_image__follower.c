/* The image of a follower's file while frames overwrite what it sees: the same bytes, until it is told to end. */
#include "apply_pair.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* All of it, into memory that the caller frees. */
static uint8_t *image_bytes(struct bts_image *image)
{
	uint8_t *bytes = malloc(bts_image_size(image));
	struct bts_error error;

	assert_non_null(bytes);
	pair_must(bts_image_read(image, 0, bytes, bts_image_size(image), &error), &error);
	return bytes;
}

/* It opens as a file of its own, and holds what the digest says. */
static void image_is(const uint8_t *bytes, uint64_t size, const uint8_t digest[16])
{
	uint8_t now[16];
	struct bts_txn *txn;
	char path[128];
	struct bts *db;
	int fd;

	snprintf(path, sizeof(path), "%s/image", pair_directory);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), (ssize_t)size);
	close(fd);
	db = bed_open(bts_env_posix(), path, BTS_OPEN_READ_ONLY, 0);
	assert_int_equal(bts_check(db, NULL, NULL), BTS_OK);
	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	bed_digest(txn, now);
	assert_memory_equal(now, digest, 16);
	bts_abort(txn);
	bts_close(db);
}

static void test_the_same_bytes(void **state)
{
	struct bts_apply_stat stat;
	struct bts_image *first, *second;
	uint8_t *before, *now, then[16], later[16];
	struct bts_txn *txn;
	struct pair p;

	(void)state;
	pair_open(&p, bts_env_posix(), "same", 0);
	assert_int_equal(bts_begin(p.follower, BTS_READ, &txn, NULL), BTS_OK);
	bed_digest(txn, then);
	assert_int_equal(bts_image_open(p.follower, NULL, &first, NULL), BTS_OK);
	before = image_bytes(first);
	for (unsigned i = 1; i <= 10; i++) {
		pair_overwrite(&p, i, 100);
		bed_ship(p.primary, p.follower, &p.rng);
	}
	bts_apply_stat(p.follower, &stat);
	assert_true(stat.redirected_pages > 0);
	/* One of a state whose pages are not all home. */
	bts_abort(txn);
	assert_int_equal(bts_begin(p.follower, BTS_READ, &txn, NULL), BTS_OK);
	bed_digest(txn, later);
	bts_abort(txn);
	assert_int_equal(bts_image_open(p.follower, NULL, &second, NULL), BTS_OK);
	now = image_bytes(first);
	assert_memory_equal(now, before, bts_image_size(first));
	image_is(now, bts_image_size(first), then);
	free(now);
	now = image_bytes(second);
	image_is(now, bts_image_size(second), later);
	free(now);
	free(before);
	bts_image_close(first);
	bts_image_close(second);
	pair_close(&p);
}

/* Beyond the limit it is told to end, as a transaction is; frames go on when it has. */
static void test_limit(void **state)
{
	struct bts_error error = {.text = ""};
	struct bts_image *image;
	enum bts_err err = BTS_OK;
	unsigned round = 1;
	struct pair p;
	char byte;

	(void)state;
	pair_open(&p, bts_env_posix(), "limit", 128u << 10);
	assert_int_equal(bts_image_open(p.follower, NULL, &image, NULL), BTS_OK);
	for (; round < 200 && !err; round++) {
		pair_overwrite(&p, round, 60);
		bed_ship(p.primary, p.follower, &p.rng);
		err = bts_image_read(image, 70000, &byte, 1, &error);
	}
	assert_int_equal(err, BTS_EXPIRED);
	assert_non_null(strstr(error.text, "frames wait"));
	bts_image_close(image);
	pair_overwrite(&p, round, 60);
	bed_ship(p.primary, p.follower, &p.rng);
	pair_assert_newest(&p, p.follower);
	pair_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same_bytes),
		cmocka_unit_test(test_limit),
	};
	int failed;

	if (pair_begin(argc, argv))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return pair_end() || failed;
}
