/*
 * Opening after a crash reads a bounded number of pages: as many at 1 GB as at 1 MB, however scattered the free space is.
 * Counted are the bytes of pread and the pages that the map was read at, by the pager's tags of verified pages.
 */
#include "bed.h"

#include <db.h>
#include <signal.h>
#include <sys/wait.h>

#define VALUE 6000u /* bytes: an extent of three pages, so that deleting every other one scatters the free space */
#define BOUND 300u  /* pages: what a manifest names, the slots, and a few */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LARGEST (64u << 20)
#else
#define LARGEST (1024u << 20)
#endif

static struct bts_env env;
static struct bts_env_ops ops;
static uint64_t bytes_read;

static int counting_pread(struct bts_file *file, void *data, size_t size, uint64_t offset, size_t *got)
{
	int os = bts_env_posix()->ops->file_pread(file, data, size, offset, got);

	if (os == 0)
		bytes_read += *got;
	return os;
}

static int no_sync(struct bts_file *file)
{
	(void)file;
	return 0;
}

static struct bts *open_counted(const struct bed *bed, bool flush)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	ops = *bts_env_posix()->ops;
	ops.file_pread = counting_pread;
	if (!flush)
		ops.file_sync = no_sync;
	env.ops = &ops;
	bts_options_init(&options);
	options.env = &env;
	if (bts_open(bed->path, &options, &db, &error))
		fail_msg("open: %s", error.text);
	return db;
}

static struct bts_slice key_of(char key[16], uint64_t number)
{
	for (int i = 0; i < 8; i++)
		key[i] = (char)(number >> (56 - 8 * i));
	return (struct bts_slice){ key, 8 };
}

static void must(enum bts_err err)
{
	if (err)
		abort();
}

/* In a child: fill the file, delete every other value, and die in the middle of one more commit. */
static void fill_and_die(const struct bed *bed, uint64_t bytes)
{
	static uint8_t value[VALUE];
	struct bts *db = open_counted(bed, false);
	uint64_t count = bytes / (3 * 4096);
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	char key[16];

	for (uint64_t i = 0; i < count;) {
		must(bts_begin(db, BTS_WRITE, &txn, NULL));
		must(bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, NULL));
		for (unsigned n = 0; n < 500 && i < count; n++, i++)
			must(bts_put(txn, bucket, key_of(key, i), (struct bts_slice){ value, sizeof(value) }, 0));
		must(bts_commit(txn, NULL));
	}
	for (uint64_t i = 0; i < count;) {
		must(bts_begin(db, BTS_WRITE, &txn, NULL));
		must(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL));
		for (unsigned n = 0; n < 500 && i < count; n++, i += 2)
			must(bts_del(txn, bucket, key_of(key, i)));
		must(bts_commit(txn, NULL));
	}
	must(bts_begin(db, BTS_WRITE, &txn, NULL));
	must(bts_bucket(txn, bed_text("b"), 0, &bucket, NULL));
	must(bts_put(txn, bucket, key_of(key, count), (struct bts_slice){ value, 100 }, 0));
	must(bts_commit(txn, NULL));
	raise(SIGKILL);
}

static uint64_t pages_mapped_in(const struct bts *db)
{
	uint64_t count = 0;

	for (uint64_t block = 0; block < db->pager.tag_blocks; block++) {
		_Atomic uint32_t *tags = atomic_load(&db->pager.tags[block]);

		for (unsigned i = 0; tags != NULL && i < PAGER_TAG_BLOCK; i++)
			count += atomic_load(&tags[i]) != 0;
	}
	return count;
}

static uint64_t pages_to_open(uint64_t bytes, uint64_t *pages)
{
	struct bed bed;
	struct bts *db;
	pid_t pid;
	uint64_t count;
	int status;

	bed_init_file(&bed);
	bts_close(bed.db);
	pid = fork();
	if (pid == 0)
		fill_and_die(&bed, bytes);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	bytes_read = 0;
	db = open_counted(&bed, true);
	count = bytes_read / 4096 + pages_mapped_in(db);
	bed.db = db;
	assert_int_equal(bed_stat(&bed).clean_open, 0);
	*pages = bed_stat(&bed).pages;
	bed_set(&bed, "b", "more", "1"); /* and it can be written */
	bed_holds(&bed, "b", "more", "1");
	bts_close(db);
	bed_remove(&bed);
	return count;
}

static void as_many_whatever_the_size(void **state)
{
	static const uint64_t sizes[] = { 1u << 20, 16u << 20, LARGEST };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint64_t file, count = pages_to_open(sizes[i], &file);

		printf("file of %llu pages: %llu pages read to open it after a crash\n", (unsigned long long)file,
			(unsigned long long)count);
		assert_true(count <= BOUND);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_many_whatever_the_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
