/*
 * Files forged by somebody who knows the format: lies in the records of named snapshots and in the pages they
 * alone have, with every checksum above made right again, in both slots.  bts_check must tell; whatever is done
 * with such a file ends, in success or BTS_CORRUPT.
 *
 * Arguments: seed, lies.
 */
#include "cmocka.h"
#include "env_mem.h"
#include "meta.h"
#include "node.h"
#include "rng.h"
#include "snapshot.h"
#include "txn.h"

#include <btree_store/ship.h>
#include <fcntl.h>
#include <unistd.h>

#define PAGE 4096u
#define SNAPSHOTS 3u

static uint64_t seed, lies = 100;

struct forge {
	struct env_mem *mem;
	struct bts *db;
	struct rng rng;
	uint8_t *truth, *bytes; /* of the whole file */
	uint64_t size;
	struct meta_slot slot, told;	   /* true, forged */
	struct node_cell cells[SNAPSHOTS]; /* their records, in bytes */
	unsigned found, missed;
};

static void must(enum bts_err err, const struct bts_error *error)
{
	if (err)
		fail_msg("%s: %s", bts_err_name(err), error->text);
}

static struct bts_slice text_slice(const char *text)
{
	return (struct bts_slice){text, strlen(text)};
}

static void forge_open(struct forge *f, unsigned flags)
{
	struct bts_options options;

	bts_options_init(&options);
	options.env = env_mem_env(f->mem);
	options.flags = flags;
	f->db = NULL;
	if (bts_open("db", &options, &f->db, NULL))
		f->db = NULL;
}

/* Trees of several levels, large values, and a snapshot after each half of the changes. */
static void forge_fill(struct forge *f, unsigned round)
{
	static uint8_t value[70000];
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;
	char text[16];

	must(bts_begin(f->db, BTS_WRITE, &txn, &error), &error);
	for (unsigned b = 0; b < 3; b++) {
		snprintf(text, sizeof(text), "bucket%u", b);
		must(bts_bucket(txn, text_slice(text), BTS_CREATE, &bucket, &error), &error);
		for (unsigned i = 0; i < (round ? 40 : 400); i++) {
			struct bts_slice body = {value, rng_one_in(&f->rng, 60) ? sizeof(value) : 100};

			snprintf(text, sizeof(text), "%06u", (unsigned)rng_below(&f->rng, 600));
			memset(value, (int)rng_next(&f->rng), body.size);
			must(bts_put(txn, bucket, text_slice(text), body, 0), bts_txn_error(txn));
		}
	}
	must(bts_commit(txn, &error), &error);
	if (round >= SNAPSHOTS)
		return;
	must(bts_begin(f->db, BTS_WRITE, &txn, &error), &error);
	snprintf(text, sizeof(text), "snap%u", round);
	must(bts_snapshot_create(txn, text_slice(text), &error), &error);
	must(bts_commit(txn, &error), &error);
}

static int set_up(void **state)
{
	struct forge *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	rng_init(&f->rng, seed);
	f->mem = env_mem_new((size_t)64 << 20);
	forge_open(f, 0);
	assert_non_null(f->db);
	for (unsigned round = 0; round <= SNAPSHOTS; round++)
		forge_fill(f, round);
	bts_close(f->db);
	f->truth = (uint8_t *)(uintptr_t)env_mem_bytes(f->mem, "db", &f->size);
	f->bytes = malloc(f->size);
	assert_non_null(f->bytes);
	memcpy(f->bytes, f->truth, f->size);
	f->truth = malloc(f->size);
	assert_non_null(f->truth);
	memcpy(f->truth, f->bytes, f->size);
	env_mem_free(f->mem);
	assert_int_equal(meta_slot_decode(f->truth, &f->slot, NULL), BTS_OK);
	assert_int_equal(f->slot.record.snapshots.depth, 1);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct forge *f = *state;

	printf("%u lies told, %u without consequence\n", f->found, f->missed);
	free(f->truth);
	free(f->bytes);
	free(f);
	return 0;
}

static uint8_t *forge_page(struct forge *f, bts_pgno pgno)
{
	return f->bytes + pgno * PAGE;
}

static void forge_begin(struct forge *f)
{
	memcpy(f->bytes, f->truth, f->size);
	f->told = f->slot;
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		node_cell(forge_page(f, f->slot.record.snapshots.root.pgno), i, &f->cells[i]);
}

static void forge_replace(uint8_t *bytes, size_t size, const uint8_t old[16], const uint8_t new[16])
{
	for (size_t at = 0; at + 16 <= size; at++)
		if (bytes[at] == old[0] && !memcmp(bytes + at, old, 16))
			memcpy(bytes + at, new, 16);
}

/* Make the sum of a page right, and those of all that point to it; a ring of pages has no right sums. */
static void forge_seal(struct forge *f, bts_pgno pgno, unsigned depth)
{
	uint8_t *page = forge_page(f, pgno), old[16], new[16];
	struct page_ptr before = {pgno, layout_birth(page), layout_crc(page)}, after = before;
	bts_pgno high = f->slot.record.high_water;
	uint8_t record[BTS_RECORD_MAX];
	size_t size;

	after.crc = pager_crc(page, PAGE);
	if (after.crc == before.crc || depth > 12)
		return;
	layout_set_crc(page, after.crc);
	layout_put_ptr(old, &before);
	layout_put_ptr(new, &after);
	size = meta_record_encode(&f->told.record, record);
	forge_replace(record, size, old, new);
	(void)meta_record_decode(record, size, &f->told.record, NULL);
	for (bts_pgno at = f->slot.record.first; at < high; at++) {
		uint8_t *other = forge_page(f, at);

		if (at == pgno || layout_pgno(other) != at ||
			(layout_type(other) != LAYOUT_BRANCH && layout_type(other) != LAYOUT_LEAF))
			continue;
		forge_replace(other, PAGE, old, new);
		if (pager_crc(other, PAGE) != layout_crc(other))
			forge_seal(f, at, depth + 1);
	}
}

static void forge_write(struct forge *f)
{
	struct meta_slot slot;

	f->mem = env_mem_new((size_t)64 << 20);
	for (uint64_t at = 0; at <= LAYOUT_META_B_OFFSET; at += LAYOUT_META_B_OFFSET) {
		assert_int_equal(meta_slot_decode(f->truth + at, &slot, NULL), BTS_OK);
		slot.record = f->told.record;
		meta_slot_encode(&slot, f->bytes + at);
	}
	env_mem_put_file(f->mem, "db", f->bytes, f->size);
}

static void sound(enum bts_err err, const char *what, const struct bts_error *error)
{
	if (err != BTS_OK && err != BTS_CORRUPT && err != BTS_NOT_FOUND)
		fail_msg("%s: %s: %s", what, bts_err_name(err), error->text);
}

static void use_scan(struct bts_txn *txn)
{
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	char text[16];

	for (unsigned b = 0; b < 3; b++) {
		uint64_t steps = 0;

		snprintf(text, sizeof(text), "bucket%u", b);
		if (bts_bucket(txn, text_slice(text), 0, &bucket, NULL))
			continue;
		assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
		for (enum bts_err err = bts_cursor_first(cursor, &key, &value); !err;
			err = bts_cursor_next(cursor, &key, &value))
			assert_true(steps++ < 100000);
		bts_cursor_close(cursor);
	}
}

static void use_names(struct forge *f)
{
	struct bts_error error = {0};
	struct bts_txn *txn;
	char text[16];
	enum bts_err err;

	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		snprintf(text, sizeof(text), "snap%u", i);
		err = bts_begin_at(f->db, text_slice(text), &txn, &error);
		sound(err, "begin_at", &error);
		if (!err) {
			use_scan(txn);
			bts_abort(txn);
		}
	}
}

static void use_walk(struct forge *f, bts_txid base)
{
	struct bts_error error = {0};
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;
	uint64_t pages = 0;
	enum bts_err err = bts_walk_open(f->db, base, &walk, &error);

	sound(err, "walk", &error);
	if (err)
		return;
	while ((err = bts_walk_next(walk, &id, &bytes, &error)) == BTS_OK)
		assert_true((pages += id.count) < 100 * f->slot.record.high_water);
	sound(err, "walk", &error);
	bts_walk_close(walk);
}

static void use_backup(struct forge *f)
{
	struct bts_error error = {0};
	int fd = open("/dev/null", O_WRONLY);

	sound(bts_backup(f->db, fd, NULL, &error), "backup", &error);
	close(fd);
}

static void use_delete(struct forge *f)
{
	struct bts_compact_info info = {.size = sizeof(info)};
	struct bts_error error = {0};
	struct bts_txn *txn;
	char text[16];
	enum bts_err err;

	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		if (bts_begin(f->db, BTS_WRITE, &txn, &error))
			return;
		snprintf(text, sizeof(text), "snap%u", (unsigned)rng_below(&f->rng, SNAPSHOTS));
		err = bts_snapshot_delete(txn, text_slice(text), &error);
		sound(err, "delete", &error);
		err = bts_commit(txn, &error);
		sound(err, "commit of a deletion", &error);
		sound(bts_compact_step(f->db, 20, &info, &error), "compact", &error);
	}
}

/* What bts_check says; then everything else. */
static enum bts_err forge_use(struct forge *f)
{
	struct bts_error error = {0};
	enum bts_err err = BTS_CORRUPT;

	forge_write(f);
	forge_open(f, BTS_OPEN_READ_ONLY);
	if (!f->db)
		forge_open(f, 0);
	if (f->db) {
		err = bts_check(f->db, NULL, &error);
		sound(err, "check", &error);
		use_names(f);
		use_walk(f, 0);
		use_walk(f, f->slot.record.txid - 3);
		use_backup(f);
		bts_close(f->db);
		forge_open(f, 0);
	}
	if (f->db) {
		use_delete(f);
		use_names(f);
		bts_close(f->db);
	}
	assert_int_equal(env_mem_counters(f->mem)->live_blocks, 0);
	env_mem_free(f->mem);
	*(err ? &f->found : &f->missed) += 1;
	return err;
}

static void test_truth(void **state)
{
	struct forge *f = *state;

	forge_begin(f);
	assert_int_equal(forge_use(f), BTS_OK);
}

static struct snapshot forge_record(struct forge *f, unsigned which)
{
	struct snapshot s;

	assert_null(snapshot_decode(&f->cells[which], &f->slot.record, false, &s));
	return s;
}

static void forge_record_put(struct forge *f, unsigned which, const struct snapshot *s)
{
	snapshot_encode(s, (uint8_t *)(uintptr_t)f->cells[which].value.data);
	forge_seal(f, f->slot.record.snapshots.root.pgno, 0);
}

/* Some page of the file, by the pointer that leads to it: same tree, other tree, any. */
static struct page_ptr forge_any(struct forge *f)
{
	for (;;) {
		bts_pgno first = f->slot.record.first;
		bts_pgno at = first + rng_below(&f->rng, f->slot.record.high_water - first);
		const uint8_t *page = forge_page(f, at);

		if (layout_pgno(page) == at && layout_type(page) >= LAYOUT_LEAF &&
			layout_type(page) <= LAYOUT_FREE_LOG)
			return (struct page_ptr){at, layout_birth(page), layout_crc(page)};
	}
}

/* Each lie of a record, told on each snapshot. */
static void test_records(void **state)
{
	struct forge *f = *state;

	for (unsigned which = 0; which < SNAPSHOTS; which++)
		for (unsigned lie = 0; lie < 10; lie++) {
			struct snapshot s, other;

			forge_begin(f);
			s = forge_record(f, which);
			other = forge_record(f, (which + 1) % SNAPSHOTS);
			if (lie == 0)
				s.txid = f->slot.record.txid + 1;
			if (lie == 1)
				s.txid = s.catalog.root.birth - 1;
			if (lie == 2)
				s.catalog.root.crc ^= 1;
			if (lie == 3)
				s.catalog.root.birth--;
			if (lie == 4)
				s.catalog.depth++;
			if (lie == 5)
				s.catalog.entries = ++s.buckets;
			if (lie == 6)
				s.catalog.root = f->slot.record.snapshots.root;
			if (lie == 7)
				s.high_water = f->slot.record.first + 1;
			if (lie == 8)
				s.catalog = other.catalog;
			if (lie == 9)
				s.txid = 0;
			forge_record_put(f, which, &s);
			if (forge_use(f) == BTS_OK &&
				lie != 5) /* counters of the past are not counted again */
				fail_msg("lie %u about snapshot %u is believed", lie, which);
		}
}

/* Pointers in the pages of snapshots led elsewhere, bytes of nodes changed: nothing loops or crashes. */
static void test_pages(void **state)
{
	struct forge *f = *state;

	for (uint64_t i = 0; i < lies; i++) {
		struct page_ptr at, to;
		uint8_t *page;

		forge_begin(f);
		at = forge_any(f);
		to = forge_any(f);
		page = forge_page(f, at.pgno);
		if (layout_type(page) == LAYOUT_BRANCH) {
			node_set_child(page, (unsigned)rng_below(&f->rng, layout_count(page)), &to);
		} else if (layout_tree(page) == LAYOUT_TREE_CATALOG) {
			struct node_cell cell;

			node_cell(page, (unsigned)rng_below(&f->rng, layout_count(page)), &cell);
			if (rng_one_in(&f->rng, 2))
				layout_put_ptr((uint8_t *)(uintptr_t)cell.value.data + 8, &to);
			else
				((uint8_t *)(uintptr_t)
						cell.value.data)[rng_below(&f->rng, cell.value.size)] ^= 1;
		} else if (at.pgno == f->slot.record.snapshots.root.pgno && rng_one_in(&f->rng, 2)) {
			struct snapshot s = forge_record(f, (unsigned)rng_below(&f->rng, SNAPSHOTS));

			s.catalog.root = to;
			forge_record_put(f, (unsigned)rng_below(&f->rng, SNAPSHOTS), &s);
		} else {
			page[rng_below(&f->rng, PAGE)] ^= (uint8_t)(1 + rng_below(&f->rng, 255));
		}
		forge_seal(f, at.pgno, 0);
		(void)forge_use(f);
	}
}

/* What the header of a large value has no use for: zero, or the value is damaged. */
static void test_unused(void **state)
{
	static const unsigned places[] = {5, 6, 14, 22, 24, 30, 31, 32, 40, 44, 60, 63, 72, PAGE - 1};
	struct forge *f = *state;
	unsigned told = 0;

	for (bts_pgno at = f->slot.record.first; at < f->slot.record.high_water && told < 28; at++) {
		for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
			forge_begin(f);
			if (layout_pgno(forge_page(f, at)) != at || layout_type(forge_page(f, at)) != LAYOUT_EXTENT)
				break;
			forge_page(f, at)[places[i]] ^= 0x40;
			forge_seal(f, at, 0);
			if (f->told.record.catalog.root.crc == f->slot.record.catalog.root.crc)
				break; /* not of the head */
			assert_int_equal(forge_use(f), BTS_CORRUPT);
			told++;
		}
	}
	assert_true(told >= 28);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_truth, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_records, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pages, set_up, tear_down),
	};

	seed = rng_seed_from(argc, argv, 1);
	if (argc > 2)
		lies = strtoull(argv[2], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
