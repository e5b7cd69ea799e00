/* bts_check finds each kind of damage and names the page; damage made with care never makes it crash. */
#include "cmocka.h"
#include "env_mem.h"
#include "meta.h"
#include "rng.h"
#include "txn.h"

#define PAGE 4096u
#define FINDINGS_MAX 64

struct findings {
	size_t count;
	bts_pgno page[FINDINGS_MAX];
	char text[FINDINGS_MAX][300];
	uint64_t progress, total;
};

struct fixture {
	struct env_mem *mem;
	struct bts *db;
	struct rng rng;
	struct findings found;
};

static uint64_t seed;

static void on_report(void *arg, bts_pgno page, const char *text)
{
	struct findings *found = arg;

	if (found->count < FINDINGS_MAX) {
		found->page[found->count] = page;
		snprintf(found->text[found->count], sizeof(found->text[0]), "%s", text);
	}
	found->count++;
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct findings *found = arg;

	assert_true(done >= found->progress && done <= total);
	found->progress = done;
	found->total = total;
}

static void fixture_open(struct fixture *f, struct env_mem *mem)
{
	struct bts_options options;
	struct bts_error error;

	bts_options_init(&options);
	options.env = env_mem_env(mem);
	f->mem = mem;
	if (bts_open("db", &options, &f->db, &error) != BTS_OK)
		fail_msg("%s", error.text);
}

static void fixture_close(struct fixture *f)
{
	bts_close(f->db);
	assert_int_equal(env_mem_counters(f->mem)->live_blocks, 0);
	env_mem_free(f->mem);
}

static enum bts_err check(struct fixture *f, struct bts_error *error)
{
	struct bts_check_options options = {on_report, on_progress, &f->found};

	memset(&f->found, 0, sizeof(f->found));
	return bts_check(f->db, &options, error);
}

static void expect_clean(struct fixture *f)
{
	struct bts_error error;

	if (check(f, &error) != BTS_OK)
		fail_msg("%s", error.text);
	assert_int_equal(f->found.count, 0);
}

/* A finding with this text; page 0: any. */
static void expect(struct fixture *f, bts_pgno page, const char *text)
{
	struct bts_error error;

	assert_int_equal(check(f, &error), BTS_CORRUPT);
	for (size_t i = 0; i < f->found.count && i < FINDINGS_MAX; i++)
		if (strstr(f->found.text[i], text) != NULL && (page == 0 || f->found.page[i] == page))
			return;
	fail_msg("no finding \"%s\"; first of %zu: %s", text, f->found.count, f->found.text[0]);
}

static void put(struct bts_txn *txn, const char *name, unsigned number, size_t size)
{
	static uint8_t value[200000];
	struct bts_bucket *bucket;
	char key[16];

	memset(value, (int)number, size);
	snprintf(key, sizeof(key), "key%05u", number);
	assert_int_equal(
		bts_bucket(txn, (struct bts_slice){name, strlen(name)}, BTS_CREATE, &bucket, NULL), BTS_OK);
	assert_int_equal(
		bts_put(txn, bucket, (struct bts_slice){key, 8}, (struct bts_slice){value, size}, 0), BTS_OK);
}

/* Several buckets, large values, free pages, a history tree and a chain of free-log pages. */
static void fill(struct fixture *f)
{
	for (unsigned i = 0; i < 100; i++) {
		struct bts_txn *txn;

		assert_int_equal(bts_begin(f->db, BTS_WRITE, &txn, NULL), BTS_OK);
		for (unsigned k = 0; k < 12; k++)
			put(txn, "alpha", (i * 79 + k * 331) % 1500, 60);
		if (i % 10 == 0)
			put(txn, "beta", i % 50, 3000 + i * 1500);
		if (i == 50)
			put(txn, "gamma \"\x01", 1, 10);
		assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	}
}

static void fixture_fill(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	rng_init(&f->rng, seed);
	fixture_open(f, env_mem_new((size_t)64 << 20));
	fill(f);
}

static void check__sound_file(void **state)
{
	struct fixture f;
	struct bts_txn *txn;
	struct bts_bucket *bucket;

	(void)state;
	memset(&f, 0, sizeof(f));
	fixture_open(&f, env_mem_new((size_t)64 << 20));
	expect_clean(&f);
	fill(&f);
	expect_clean(&f);
	assert_true(f.found.total > 100);
	assert_int_equal(f.found.progress, f.found.total);
	assert_int_equal(bts_begin(f.db, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket_drop(txn, (struct bts_slice){"beta", 4}, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"alpha", 5}, 0, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_del(txn, bucket, (struct bts_slice){"key00000", 8}), BTS_OK);
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	expect_clean(&f);
	assert_int_equal(bts_check(f.db, NULL, NULL), BTS_OK);
	fixture_close(&f);
}

static void check__header_area(void **state)
{
	struct fixture f;

	(void)state;
	fixture_fill(&f);
	env_mem_flip(f.mem, "db", 300, 4);
	expect(&f, 0, "page 0: meta A: ");
	env_mem_flip(f.mem, "db", 300, 4);
	env_mem_flip(f.mem, "db", LAYOUT_META_B_OFFSET + 4095, 128);
	expect(&f, 8, "page 8: meta B: ");
	env_mem_flip(f.mem, "db", LAYOUT_META_B_OFFSET + 4095, 128);
	for (uint64_t at = PAGE; at < LAYOUT_RESERVED_BYTES; at += 1237) {
		char text[100];

		if (at / PAGE == 8)
			continue;
		snprintf(text, sizeof(text), "page %u: header area: byte %u is not zero",
			(unsigned)(at / PAGE), (unsigned)at);
		env_mem_flip(f.mem, "db", at, 1);
		expect(&f, at / PAGE, text);
		env_mem_flip(f.mem, "db", at, 1);
	}
	expect_clean(&f);
	fixture_close(&f);
}

/* One bit of every page in turn: found when the page is in use, by its number; harmless when it is free. */
static void check__every_page(void **state)
{
	struct fixture f;
	struct bts_stat stat = {.size = sizeof(stat)};
	unsigned harmless = 0;

	(void)state;
	fixture_fill(&f);
	assert_int_equal(bts_stat(f.db, &stat, NULL), BTS_OK);
	for (bts_pgno page = stat.first_page; page < stat.pages; page++) {
		uint64_t at = page * PAGE + rng_below(&f.rng, PAGE);
		uint8_t mask = (uint8_t)(1u << rng_below(&f.rng, 8));
		enum bts_err err;

		env_mem_flip(f.mem, "db", at, mask);
		err = check(&f, NULL);
		env_mem_flip(f.mem, "db", at, mask);
		if (err == BTS_OK) {
			assert_true(space_is_free(&f.db->space, (struct space_run){page, 1}));
			harmless++;
			continue;
		}
		assert_int_equal(err, BTS_CORRUPT);
		assert_false(space_is_free(&f.db->space, (struct space_run){page, 1}));
		/* A chunk of a large value is named by its first page. */
		assert_true(f.found.page[0] <= page && f.found.page[0] + LAYOUT_CHUNK / PAGE > page);
	}
	assert_int_equal(harmless, stat.free_pages);
	expect_clean(&f);
	fixture_close(&f);
}

static void check__short_file(void **state)
{
	struct fixture f;
	struct bts_stat stat = {.size = sizeof(stat)};

	(void)state;
	fixture_fill(&f);
	assert_int_equal(bts_stat(f.db, &stat, NULL), BTS_OK);
	assert_int_equal(f.db->env->ops->file_truncate(f.db->file, (stat.pages - 3) * PAGE + 5), 0);
	expect(&f, stat.pages - 3, "the file ends here, before the high-water mark");
	fixture_close(&f);
}

/*
 * Files whose bytes are wrong and whose checksums are right: a sealed file is changed, in both slots.
 */
struct forge {
	struct meta_slot slot;
	uint8_t *bytes; /* of the whole file */
	uint64_t size;
};

static void forge_open(struct forge *forge, struct fixture *f)
{
	const uint8_t *bytes;

	fixture_fill(f);
	bts_close(f->db);
	bytes = env_mem_bytes(f->mem, "db", &forge->size);
	forge->bytes = malloc(forge->size);
	assert_non_null(forge->bytes);
	memcpy(forge->bytes, bytes, forge->size);
	env_mem_free(f->mem);
	assert_int_equal(meta_slot_decode(forge->bytes, &forge->slot, NULL), BTS_OK);
	assert_int_equal(forge->slot.mode, META_SEAL);
}

/* Write the record into both slots as a seal does; then open and restore the bytes for the next. */
static void forge_try(struct forge *forge, const struct commit_record *record, struct fixture *f)
{
	uint8_t *copy = malloc(forge->size);
	struct env_mem *mem = env_mem_new((size_t)64 << 20);
	struct meta_slot slot;

	assert_non_null(copy);
	memcpy(copy, forge->bytes, forge->size);
	for (uint64_t at = 0; at <= LAYOUT_META_B_OFFSET; at += LAYOUT_META_B_OFFSET) {
		assert_int_equal(meta_slot_decode(copy + at, &slot, NULL), BTS_OK);
		slot.record = *record;
		meta_slot_encode(&slot, copy + at);
	}
	env_mem_put_file(mem, "db", copy, forge->size);
	free(copy);
	f->mem = mem;
	f->db = NULL;
}

static bool forge_open_reader(struct fixture *f)
{
	struct bts_options options;

	bts_options_init(&options);
	options.env = env_mem_env(f->mem);
	options.flags = BTS_OPEN_READ_ONLY;
	return bts_open("db", &options, &f->db, NULL) == BTS_OK;
}

static void forge_expect(
	struct forge *forge, const struct commit_record *record, bts_pgno page, const char *text)
{
	struct fixture f;

	forge_try(forge, record, &f);
	assert_true(forge_open_reader(&f));
	if (text != NULL)
		expect(&f, page, text);
	else
		expect_clean(&f);
	fixture_close(&f);
}

static void check__reachable_xor_free(void **state)
{
	struct fixture f;
	struct forge forge;
	struct commit_record record;
	struct freelog *log = &record.free;
	char text[100];

	(void)state;
	forge_open(&forge, &f);
	record = forge.slot.record;
	forge_expect(&forge, &record, 0, NULL);

	assert_true(log->inline_count > 0 && log->inline_count < FREELOG_INLINE_MAX);
	log->inline_entries[log->inline_count++] = record.catalog.root.pgno << 16 | 0x8001;
	forge_expect(&forge, &record, record.catalog.root.pgno, "free, but in use");

	record = forge.slot.record;
	while ((log->inline_entries[log->inline_count - 1] & 0x8000) == 0)
		log->inline_count--;
	log->inline_count--;
	snprintf(
		text, sizeof(text), "pages %u to ", (unsigned)(log->inline_entries[log->inline_count] >> 16));
	forge_expect(&forge, &record, log->inline_entries[log->inline_count] >> 16, text);
	forge_expect(&forge, &record, 0, "leaked, neither reachable nor free");

	record = forge.slot.record;
	log->pages++;
	log->sequence++;
	forge_expect(&forge, &record, log->head.pgno, "free log");

	record = forge.slot.record;
	memset(&record.history, 0, sizeof(record.history));
	record.history.id = LAYOUT_TREE_HISTORY;
	record.snapshots.id = LAYOUT_TREE_SNAPSHOTS;
	forge_expect(&forge, &record, 0, "leaked");
	free(forge.bytes);
}

static void check__counters(void **state)
{
	struct fixture f;
	struct forge forge;
	struct commit_record record;

	(void)state;
	forge_open(&forge, &f);
	record = forge.slot.record;
	record.buckets++;
	forge_expect(&forge, &record, record.catalog.root.pgno,
		"the catalog has 3 buckets, the commit record says 4");
	record = forge.slot.record;
	record.catalog.entries++;
	forge_expect(&forge, &record, record.catalog.root.pgno, "catalog: page ");
	record = forge.slot.record;
	record.history.bytes--;
	forge_expect(&forge, &record, record.history.root.pgno, "history: page ");
	record = forge.slot.record;
	record.next_tree = LAYOUT_TREE_FIRST_BUCKET + 1;
	forge_expect(&forge, &record, 0, "tree id was never given out");
	record = forge.slot.record;
	record.history.root = record.catalog.root;
	forge_expect(&forge, &record, record.catalog.root.pgno, "history: page ");
	free(forge.bytes);
}

/* The catalog is one leaf here: its image, to be changed and sealed anew. */
static uint8_t *forge_catalog(struct forge *forge)
{
	assert_int_equal(forge->slot.record.catalog.depth, 1);
	return forge->bytes + forge->slot.record.catalog.root.pgno * PAGE;
}

static void forge_reseal(uint8_t *image, struct page_ptr *ptr)
{
	ptr->crc = pager_crc(image, PAGE);
	layout_set_crc(image, ptr->crc);
}

static void check__buckets(void **state)
{
	struct fixture f;
	struct forge forge;
	struct node_cell alpha, beta;
	uint8_t *leaf, *record, saved[PAGE];
	struct page_ptr *root = &forge.slot.record.catalog.root;

	(void)state;
	forge_open(&forge, &f);
	leaf = forge_catalog(&forge);
	memcpy(saved, leaf, PAGE);
	node_cell(leaf, 0, &alpha);
	node_cell(leaf, 1, &beta);
	record = (uint8_t *)(uintptr_t)beta.value.data;
	assert_int_equal(alpha.value.size, beta.value.size);

	memcpy(record, alpha.value.data, beta.value.size);
	forge_reseal(leaf, root);
	forge_expect(&forge, &forge.slot.record, layout_get_ptr(record + 8).pgno, "used twice");

	memcpy(leaf, saved, PAGE);
	bytes_put_u64(record + 24, bytes_get_u64(record + 24) + 1);
	forge_reseal(leaf, root);
	forge_expect(&forge, &forge.slot.record, layout_get_ptr(record + 8).pgno, "bucket \"beta\": page ");

	memcpy(leaf, saved, PAGE);
	bytes_put_u64(record + 40, UINT64_C(1) << 60);
	forge_reseal(leaf, root);
	forge_expect(&forge, &forge.slot.record, root->pgno, "bucket \"beta\": counts more nodes");

	memcpy(leaf, saved, PAGE);
	bytes_put_u16(record + 48, 300);
	forge_reseal(leaf, root);
	forge_expect(&forge, &forge.slot.record, root->pgno, "catalog: bucket \"beta\": ");

	memcpy(leaf, saved, PAGE);
	layout_put_ptr(record + 8, &(struct page_ptr){1u << 30, 5, 5});
	forge_reseal(leaf, root);
	forge_expect(&forge, &forge.slot.record, 1u << 30, "bucket \"beta\": page 1073741824");
	free(forge.bytes);
}

/* Random bytes changed in the catalog, a bucket's root or the free log, checksums right: an answer, not a
 * crash. */
static void check__hostile_pages(void **state)
{
	struct fixture f;
	struct forge forge;
	struct rng rng;
	unsigned refused = 0;

	(void)state;
	forge_open(&forge, &f);
	rng_init(&rng, seed);
	for (int round = 0; round < 200; round++) {
		struct commit_record record = forge.slot.record;
		uint8_t *leaf = forge_catalog(&forge), *page = leaf, saved[2][PAGE];
		struct page_ptr ptr = record.catalog.root;
		struct node_cell cell;
		bool bucket = rng_one_in(&rng, 2), log = !bucket && rng_one_in(&rng, 2);

		memcpy(saved[0], leaf, PAGE);
		node_cell(leaf, (unsigned)rng_below(&rng, 2), &cell);
		if (bucket)
			ptr = layout_get_ptr((const uint8_t *)cell.value.data + 8);
		else if (log)
			ptr = record.free.head;
		page = forge.bytes + ptr.pgno * PAGE;
		memcpy(saved[1], page, PAGE);
		for (uint64_t n = 1 + rng_below(&rng, 4); n > 0; n--)
			page[4 + rng_below(&rng, rng_one_in(&rng, 2) ? 200 : PAGE - 4)] ^=
				(uint8_t)(1u << rng_below(&rng, 8));
		forge_reseal(page, bucket ? &ptr : log ? &record.free.head : &record.catalog.root);
		if (bucket) {
			layout_put_ptr((uint8_t *)(uintptr_t)cell.value.data + 8, &ptr);
			forge_reseal(leaf, &record.catalog.root);
		}
		forge_try(&forge, &record, &f);
		if (forge_open_reader(&f))
			refused += check(&f, NULL) == BTS_CORRUPT;
		fixture_close(&f);
		memcpy(page, saved[1], PAGE);
		memcpy(leaf, saved[0], PAGE);
	}
	assert_true(refused > 150);
	free(forge.bytes);
}

static void check__no_memory(void **state)
{
	struct fixture f;
	unsigned failed = 0;

	(void)state;
	fixture_fill(&f);
	for (uint64_t n = 1; n < 20; n++) {
		enum bts_err err;

		env_mem_fail_memory(f.mem, n, n % 2 ? ENV_MEM_STICKY : 0);
		err = check(&f, NULL);
		env_mem_fail_clear(f.mem);
		assert_true(err == BTS_OK || err == BTS_MEMORY);
		assert_int_equal(f.found.count, 0);
		failed += err != BTS_OK;
	}
	assert_true(failed > 4);
	fixture_close(&f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(check__sound_file),
		cmocka_unit_test(check__header_area),
		cmocka_unit_test(check__every_page),
		cmocka_unit_test(check__short_file),
		cmocka_unit_test(check__reachable_xor_free),
		cmocka_unit_test(check__counters),
		cmocka_unit_test(check__buckets),
		cmocka_unit_test(check__hostile_pages),
		cmocka_unit_test(check__no_memory),
	};

	seed = rng_seed_from(argc, argv, 20240523);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
