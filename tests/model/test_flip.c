/*
 * Every byte of a small, cleanly closed database is changed, one at a time (promise 3): whatever then opens
 * gives the right value or an error, never a wrong value and never a missing key; and bts_check names damage
 * whenever a read reported some.
 *
 * What may go unnoticed is exactly what nothing refers to: whole free pages and the unused part of the header
 * area.  So each page must be noticed at all of its bytes or at none, and those noticed at none must be as
 * many as are free.
 *
 * The file is changed in one bit of the byte, drawn by the seed.  Of bytes outside slots and pages every 16th
 * is taken; a paranoid build takes every 149th of all.
 */
#include "cmocka.h"
#include "env_mem.h"
#include "rng.h"
#include <btree_store.h>
#include <stdbool.h>

#define PATH "flip.bts"
#define PAGE 4096u
#define SLOT_B 32768u
#define FIRST_PAGE_AT 65536u
#define SMALL_KEYS 260
#define LARGE_KEYS 3
#define KEYS (SMALL_KEYS + LARGE_KEYS)
#ifdef BTS_PARANOID
#define STRIDE 149u
#else
#define STRIDE 1u
#endif
#define UNUSED_STRIDE 16u
#define WRITER_EVERY 29u /* bytes between those with which a writer is tried too */

struct entry {
	char key[16];
	uint8_t *value;
	size_t size;
};

struct flip {
	struct rng rng;
	struct entry entries[KEYS]; /* in key order; the large ones last, in a bucket of their own */
	uint8_t *file;
	uint64_t size;
	struct bts_stat stat;
	uint64_t at; /* the byte changed now */
	uint8_t mask;
	uint64_t noticed[512]; /* bytes of each page of the file */
	uint64_t errors, findings;
};

static struct bts_slice slice(const char *chars)
{
	return (struct bts_slice){chars, strlen(chars)};
}

static struct bts_slice bucket_of(size_t entry)
{
	return slice(entry < SMALL_KEYS ? "small" : "large");
}

static void open_with(struct bts_env *env, uint32_t flags, struct bts **db)
{
	struct bts_options options;
	struct bts_error error;

	bts_options_init(&options);
	options.env = env;
	options.flags = flags;
	if (bts_open(PATH, &options, db, &error))
		fail_msg("%s", error.text);
}

/* Rounds before the last write halves of values and delete some: what they leave is free pages and a history.
 */
static void write_round(struct flip *f, struct bts *db, unsigned round, bool last)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	for (size_t i = last ? 0 : round; i < KEYS; i += last ? 1 : 2) {
		struct entry *e = &f->entries[i];
		struct bts_slice value = {e->value, last ? e->size : e->size / 2};

		assert_int_equal(bts_bucket(txn, bucket_of(i), BTS_CREATE, &bucket, NULL), BTS_OK);
		assert_int_equal(bts_put(txn, bucket, slice(e->key), value, 0), BTS_OK);
		if (!last && i % 5 == 0)
			assert_int_equal(bts_del(txn, bucket, slice(e->key)), BTS_OK);
	}
	if (round == 1) /* what only the named snapshot has is as well guarded as the rest */
		assert_int_equal(bts_snapshot_create(txn, slice("held"), NULL), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
}

static void make_entries(struct flip *f)
{
	for (size_t i = 0; i < KEYS; i++) {
		struct entry *e = &f->entries[i];

		e->size = i < SMALL_KEYS ? rng_below(&f->rng, 160) : 3000 + 12000 * (i - SMALL_KEYS);
		e->value = malloc(e->size + 1);
		rng_fill(&f->rng, e->value, e->size);
		snprintf(e->key, sizeof(e->key), "key-%04zu", i * 7);
	}
}

static void make_file(struct flip *f)
{
	struct env_mem *mem = env_mem_new(0);
	const uint8_t *bytes;
	struct bts *db;

	for (unsigned round = 0; round < 4; round++) {
		open_with(env_mem_env(mem), 0, &db);
		write_round(f, db, round, round == 3);
		bts_close(db);
	}
	open_with(env_mem_env(mem), BTS_OPEN_READ_ONLY, &db);
	f->stat.size = sizeof(f->stat);
	assert_int_equal(bts_stat(db, &f->stat, NULL), BTS_OK);
	assert_int_equal(f->stat.page_size, PAGE);
	assert_int_equal(f->stat.first_page, FIRST_PAGE_AT / PAGE);
	bts_close(db);
	bytes = env_mem_bytes(mem, PATH, &f->size);
	f->file = malloc(f->size);
	memcpy(f->file, bytes, f->size);
	env_mem_free(mem);
	assert_true(f->size / PAGE <= sizeof(f->noticed) / sizeof(f->noticed[0]));
	printf("%llu bytes, %llu pages, %llu of them free\n", (unsigned long long)f->size,
		(unsigned long long)(f->stat.pages - f->stat.first_page),
		(unsigned long long)f->stat.free_pages);
}

/* True: an error that tells of damage; anything else that is not success fails the test. */
static bool reported(struct flip *f, enum bts_err err, const char *what)
{
	if (err == BTS_OK)
		return false;
	if (err != BTS_CORRUPT && err != BTS_VERSION && err != BTS_INVALID && err != BTS_IO)
		fail_msg("byte %llu xor 0x%02x: %s answers %s", (unsigned long long)f->at, f->mask, what,
			bts_err_name(err));
	f->errors++;
	return true;
}

static void expect_entry(struct flip *f, size_t i, struct bts_slice key, struct bts_slice value)
{
	const struct entry *e = &f->entries[i];

	if (key.size != strlen(e->key) || memcmp(key.data, e->key, key.size) || value.size != e->size ||
		memcmp(value.data, e->value, e->size))
		fail_msg("byte %llu xor 0x%02x: a wrong key or value for %s", (unsigned long long)f->at,
			f->mask, e->key);
}

static bool read_keys(struct flip *f, struct bts_txn *txn)
{
	struct bts_bucket *bucket = NULL;
	struct bts_slice value;
	bool bad = false;
	enum bts_err err;

	for (size_t i = 0; i < KEYS; i++) {
		const struct entry *e = &f->entries[i];

		err = bts_bucket(txn, bucket_of(i), 0, &bucket, NULL);
		if (reported(f, err, "bts_bucket")) {
			bad = true;
			continue;
		}
		err = bts_get(txn, bucket, slice(e->key), &value);
		if (reported(f, err, "bts_get"))
			bad = true;
		else
			expect_entry(f, i, slice(e->key), value);
	}
	return bad;
}

static bool scan_bucket(struct flip *f, struct bts_txn *txn, size_t first, size_t end)
{
	struct bts_slice key, value;
	struct bts_cursor *cursor;
	struct bts_bucket *bucket;
	enum bts_err err;
	size_t i = first;

	if (reported(f, bts_bucket(txn, bucket_of(first), 0, &bucket, NULL), "bts_bucket"))
		return true;
	if (reported(f, bts_cursor_open(txn, bucket, &cursor, NULL), "bts_cursor_open"))
		return true;
	for (err = bts_cursor_first(cursor, &key, &value); !err;
		err = bts_cursor_next(cursor, &key, &value)) {
		assert_true(i < end);
		expect_entry(f, i++, key, value);
	}
	bts_cursor_close(cursor);
	if (err == BTS_NOT_FOUND && i == end)
		return false;
	return reported(f, err, "the scan");
}

static bool read_all(struct flip *f, struct bts *db)
{
	struct bts_txn *txn;
	bool bad;

	if (reported(f, bts_begin(db, BTS_READ, &txn, NULL), "bts_begin"))
		return true;
	bad = read_keys(f, txn);
	bad |= scan_bucket(f, txn, 0, SMALL_KEYS);
	bad |= scan_bucket(f, txn, SMALL_KEYS, KEYS);
	bts_abort(txn);
	return bad;
}

static void count_finding(void *arg, bts_pgno page, const char *text)
{
	struct flip *f = arg;

	(void)page;
	assert_true(text && *text);
	f->findings++;
}

static struct env_mem *changed_file(struct flip *f)
{
	struct env_mem *mem = env_mem_new(0);

	env_mem_put_file(mem, PATH, f->file, f->size);
	env_mem_flip(mem, PATH, f->at, f->mask);
	return mem;
}

/* Whether anything noticed. */
static bool try_reader(struct flip *f)
{
	struct env_mem *mem = changed_file(f);
	const struct bts_check_options check = {.report = count_finding, .arg = f};
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_options options;
	struct bts *db = NULL;
	bool noticed, bad;
	enum bts_err err;

	bts_options_init(&options);
	options.env = env_mem_env(mem);
	options.flags = BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING;
	err = bts_open(PATH, &options, &db, NULL);
	if (err == BTS_NEEDS_RECOVERY) {
		options.flags = BTS_OPEN_EXISTING;
		err = bts_open(PATH, &options, &db, NULL);
	}
	noticed = reported(f, err, "bts_open");
	if (!noticed) {
		assert_int_equal(bts_stat(db, &stat, NULL), BTS_OK);
		bad = read_all(f, db);
		f->findings = 0;
		err = bts_check(db, &check, NULL);
		if ((bad && err != BTS_CORRUPT) || (err == BTS_CORRUPT && !f->findings))
			fail_msg("byte %llu xor 0x%02x: reads report damage %d, bts_check answers %s with "
				 "%llu findings",
				(unsigned long long)f->at, f->mask, bad, bts_err_name(err),
				(unsigned long long)f->findings);
		noticed = bad || reported(f, err, "bts_check") || stat.fell_back;
		bts_close(db);
	}
	env_mem_free(mem);
	return noticed;
}

/* A writer meets the damage too: it commits or reports, and what it leaves still holds no wrong value. */
static void try_writer(struct flip *f)
{
	struct env_mem *mem = changed_file(f);
	struct bts_options options;
	struct bts_bucket *bucket;
	struct bts_txn *txn = NULL;
	struct bts *db = NULL;
	enum bts_err err;

	bts_options_init(&options);
	options.env = env_mem_env(mem);
	options.flags = BTS_OPEN_EXISTING;
	if (!reported(f, bts_open(PATH, &options, &db, NULL), "bts_open")) {
		err = bts_begin(db, BTS_WRITE, &txn, NULL);
		if (!err)
			err = bts_bucket(txn, slice("other"), BTS_CREATE, &bucket, NULL);
		if (!err)
			err = bts_put(txn, bucket, slice("key"), slice("value"), 0);
		if (!err && f->at % 2)
			err = bts_snapshot_delete(txn, slice("held"), NULL);
		if (!err)
			err = bts_commit(txn, NULL);
		else
			bts_abort(txn);
		if (err != BTS_POISONED)
			reported(f, err, "a commit");
		read_all(f, db);
		bts_close(db);
	}
	env_mem_free(mem);
}

/* A meta slot or a page below the high-water mark: worth trying at every byte. */
static bool dense(const struct flip *f, uint64_t page)
{
	return page == 0 || page == SLOT_B / PAGE || (page >= f->stat.first_page && page < f->stat.pages);
}

static void any_byte(void **state)
{
	struct flip *f = *state;
	uint64_t tried = 0, stride;

	for (f->at = rng_below(&f->rng, STRIDE); f->at < f->size; f->at += stride) {
		stride = STRIDE > 1 || dense(f, f->at / PAGE) ? STRIDE : UNUSED_STRIDE;
		f->mask = (uint8_t)(1u << rng_below(&f->rng, 8));
		if (try_reader(f))
			f->noticed[f->at / PAGE]++;
		if (tried % WRITER_EVERY == 0)
			try_writer(f);
		if (tried++ % 20000 == 0) {
			printf("byte %llu of %llu\n", (unsigned long long)f->at, (unsigned long long)f->size);
			fflush(stdout);
		}
	}
	printf("%llu bytes changed, %llu errors reported by reads, opens and commits, nothing wrong\n",
		(unsigned long long)tried, (unsigned long long)f->errors);
}

static void only_free_pages_go_unnoticed(void **state)
{
	struct flip *f = *state;
	uint64_t unnoticed = 0;

	for (uint64_t page = 0; page < f->size / PAGE; page++) {
		uint64_t tried = PAGE / (dense(f, page) || STRIDE > UNUSED_STRIDE ? STRIDE : UNUSED_STRIDE);
		bool free = f->noticed[page] == 0;

		if (f->noticed[page] < tried && (page < f->stat.first_page || !free))
			fail_msg("page %llu: noticed at %llu bytes only", (unsigned long long)page,
				(unsigned long long)f->noticed[page]);
		if (page >= f->stat.pages && !free)
			fail_msg("page %llu is not in use, but its bytes matter", (unsigned long long)page);
		unnoticed += free && page < f->stat.pages;
	}
	assert_int_equal(unnoticed, f->stat.free_pages);
}

int main(int argc, char **argv)
{
	static struct flip flip;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(any_byte, &flip),
		cmocka_unit_test_prestate(only_free_pages_go_unnoticed, &flip),
	};
	int failed;

	rng_init(&flip.rng, rng_seed_from(argc, argv, 1));
	make_entries(&flip);
	make_file(&flip);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (size_t i = 0; i < KEYS; i++)
		free(flip.entries[i].value);
	free(flip.file);
	return failed;
}
