/*
 * Frames forged by somebody who knows the format: after each lie every checksum above it is made right again,
 * up to the record.  What the sums cannot tell the proof must: pointers to what is not here, pages under
 * wrong separators, a free set or counters that do not follow.  Refused, and the follower is as it was.
 */
#include "apply_bed.h"

#include <stdlib.h>

#include "meta.h"
#include "node.h"
#include "snapshot.h"
#include "txn.h"

struct forgery {
	struct env_mem *mem;
	struct bts *primary, *follower;
	struct bed_frame *truth, *lie;
	uint8_t *bytes[BED_UNITS_MAX]; /* of the lie's units */
	uint8_t record[BTS_RECORD_MAX];
	size_t record_size;
	unsigned refused;
};

static struct forgery f;
static uint64_t seed;
static unsigned total;

/* Start from the true frame again. */
static void forge_begin(void)
{
	memcpy(f.lie, f.truth, sizeof(*f.lie));
	for (size_t i = 0; i < f.truth->count; i++) {
		memcpy(f.bytes[i], f.truth->units[i].bytes, f.truth->units[i].size);
		f.lie->units[i].bytes = f.bytes[i];
	}
	memcpy(f.record, f.truth->record.data, f.truth->record.size);
	f.record_size = f.truth->record.size;
}

static bool forge_pointer(uint8_t *bytes, size_t size, const uint8_t old[16], const uint8_t new[16])
{
	bool any = false;

	for (size_t at = 0; at + 16 <= size; at++)
		if (!memcmp(bytes + at, old, 16)) {
			memcpy(bytes + at, new, 16);
			any = true;
		}
	return any;
}

/* Make every checksum right: of a changed page, of the pages that point to it, and so on up to the record. */
static void forge_seal(void)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (size_t i = 0; i < f.lie->count; i++) {
			struct bts_page_id *id = &f.lie->units[i].id;
			struct page_ptr before = {id->pgno, id->birth, id->crc}, after = before;
			uint8_t old[16], new[16];
			size_t size = 4096;

			if (id->kind == BTS_KIND_EXTENT)
				size *= bytes_get_u32(f.bytes[i] + LAYOUT_EXTENT_HEADERS_AT);
			after.crc = pager_crc(f.bytes[i], size);
			layout_set_crc(f.bytes[i], after.crc);
			if (after.crc == before.crc)
				continue;
			changed = true;
			id->crc = after.crc;
			layout_put_ptr(old, &before);
			layout_put_ptr(new, &after);
			for (size_t j = 0; j < f.lie->count; j++)
				if (j != i)
					forge_pointer(f.bytes[j], f.lie->units[j].size, old, new);
			forge_pointer(f.record, f.record_size, old, new);
		}
	}
	f.lie->record = (struct bts_slice){f.record, f.record_size};
}

static void expect_refused(const char *what, const char *text)
{
	struct bts_position before = bed_position(f.follower), after;
	struct bts_error error = {.text = ""};

	forge_seal();
	if (bed_apply(f.follower, f.lie, NULL, &error) == BTS_OK)
		fail_msg("%s was installed", what);
	if (error.code != BTS_CORRUPT || (text && !strstr(error.text, text)))
		fail_msg("%s: refused with %s", what, error.text);
	after = bed_position(f.follower);
	assert_memory_equal(&before, &after, sizeof(before));
	bed_assert_clean(f.follower);
	f.refused++;
}

static struct commit_record record_decode(void)
{
	struct commit_record record;
	struct bts_error error;

	if (meta_record_decode(f.truth->record.data, f.truth->record.size, &record, &error))
		fail_msg("record: %s", error.text);
	return record;
}

static void record_encode(const struct commit_record *record)
{
	f.record_size = meta_record_encode(record, f.record);
}

static void snap(const char *name)
{
	struct bts_error error;
	struct bts_txn *txn;

	if (bts_begin(f.primary, BTS_WRITE, &txn, &error) ||
		bts_snapshot_create(txn, (struct bts_slice){name, strlen(name)}, &error) || bts_commit(txn, &error))
		fail_msg("snapshot: %s", error.text);
}

static int set_up(void **state)
{
	struct bts_env *env;
	struct bts_position base;
	struct rng rng;

	(void)state;
	memset(&f, 0, sizeof(f));
	rng_init(&rng, seed);
	f.mem = env_mem_new(0);
	env = env_mem_env(f.mem);
	f.primary = bed_open(env, "/p", 0, 4096);
	bed_create(env, "/f", f.primary, 4096);
	f.follower = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
	for (unsigned i = 0; i < 60; i++)
		bed_commit(f.primary, &rng);
	snap("old");
	bed_commit(f.primary, &rng);
	bed_ship(f.primary, f.follower, &rng);
	for (unsigned i = 0; i < 4; i++) {
		bed_commit(f.primary, &rng);
		if (i % 2)
			snap(i == 1 ? "newer" : "newest");
	}
	bed_commit(f.primary, &rng);
	base = bed_position(f.follower);
	f.truth = bed_frame_new(f.primary, &base);
	f.lie = malloc(sizeof(*f.lie));
	assert_non_null(f.lie);
	for (size_t i = 0; i < f.truth->count; i++) {
		f.bytes[i] = malloc(f.truth->units[i].size);
		assert_non_null(f.bytes[i]);
	}
	forge_begin();
	return 0;
}

/* The true frame, through the same forge, is taken. */
static int tear_down(void **state)
{
	struct bts_error error;

	(void)state;
	forge_begin();
	forge_seal();
	if (bed_apply(f.follower, f.lie, NULL, &error))
		fail_msg("the truth: %s", error.text);
	bed_assert_same(f.primary, f.follower);
	printf("%u lies refused\n", f.refused);
	total += f.refused;
	for (size_t i = 0; i < f.truth->count; i++)
		free(f.bytes[i]);
	free(f.lie);
	bed_frame_free(f.truth);
	bts_close(f.follower);
	bts_close(f.primary);
	env_mem_free(f.mem);
	return 0;
}

static bool is_branch(size_t i)
{
	return f.lie->units[i].id.kind == BTS_KIND_NODE && layout_type(f.bytes[i]) == LAYOUT_BRANCH;
}

static bool is_kept(const struct page_ptr *ptr)
{
	return ptr->birth <= f.truth->base.txid;
}

static void test_kept_pointers(void **state)
{
	(void)state;
	for (size_t i = 0; i < f.truth->count; i++) {
		unsigned count = is_branch(i) ? layout_count(f.bytes[i]) : 0, last = 0;

		for (unsigned c = 1; c < count; c++) {
			struct page_ptr ptr = node_child(f.bytes[i], c), other = node_child(f.bytes[i], last);
			struct page_ptr wrong = ptr;

			if (!is_kept(&ptr) || !is_kept(&other)) {
				last = c;
				continue;
			}
			wrong.crc ^= 1;
			node_set_child(f.bytes[i], c, &wrong);
			expect_refused("a kept pointer with another crc", "not live");
			forge_begin();
			wrong = ptr;
			wrong.birth -= wrong.birth > 1 ? 1 : 0;
			node_set_child(f.bytes[i], c, &wrong);
			if (wrong.birth != ptr.birth)
				expect_refused("a kept pointer with another birth", "not live");
			forge_begin();
			node_set_child(f.bytes[i], c, &other);
			expect_refused("one page kept in two places", "twice");
			forge_begin();
			node_set_child(f.bytes[i], c, &other);
			node_set_child(f.bytes[i], last, &ptr);
			expect_refused("two kept pages exchanged", "separators");
			forge_begin();
			last = c;
		}
	}
}

static bool is_below_branch(const struct bts_page_id *id)
{
	for (size_t i = 0; i < f.truth->count; i++)
		for (unsigned c = 0; is_branch(i) && c < layout_count(f.bytes[i]); c++)
			if (node_child(f.bytes[i], c).pgno == id->pgno)
				return true;
	return false;
}

/* Only a root may be empty: a cursor would find an entry there that does not exist. */
static void test_empty_leaves(void **state)
{
	unsigned before = f.refused;

	(void)state;
	for (size_t i = 0; i < f.truth->count; i++) {
		struct bts_page_id id = f.truth->units[i].id;
		uint32_t tree = layout_tree(f.bytes[i]);

		if (id.kind != BTS_KIND_NODE || is_branch(i) || !is_below_branch(&id))
			continue;
		node_init(f.bytes[i], 4096, tree, 0);
		layout_set_pgno(f.bytes[i], id.pgno);
		layout_set_birth(f.bytes[i], id.birth);
		layout_set_pages(f.bytes[i], 1);
		expect_refused("an empty leaf below a branch", "empty node");
		forge_begin();
	}
	assert_true(f.refused > before);
}

static void test_new_pages(void **state)
{
	(void)state;
	for (size_t i = 0; i < f.truth->count; i++) {
		const struct bts_page_id *id = &f.lie->units[i].id;
		size_t size = f.lie->units[i].size;

		if (id->kind == BTS_KIND_EXTENT) {
			uint64_t value = bytes_get_u64(f.bytes[i] + LAYOUT_EXTENT_SIZE_AT);

			f.bytes[i][4096 * bytes_get_u32(f.bytes[i] + LAYOUT_EXTENT_HEADERS_AT) + value / 2] ^=
				1;
			expect_refused("a large value changed", NULL);
			forge_begin();
			bytes_put_u64(f.bytes[i] + LAYOUT_EXTENT_SIZE_AT, value - 1);
			expect_refused("a large value of another size", NULL);
			forge_begin();
			f.bytes[i][size - 1] ^= 1;
			expect_refused("a large value changed at its end", NULL);
			forge_begin();
			for (unsigned at = 22; at < 64; at += at == 31 ? 29 : 1) {
				f.bytes[i][at] ^= 1;
				expect_refused("a byte of a large value's header that is not used", NULL);
				forge_begin();
			}
			continue;
		}
		layout_set_tree(f.bytes[i], layout_tree(f.bytes[i]) + 1);
		expect_refused("a page of another tree", NULL);
		forge_begin();
		f.bytes[i][5]++;
		expect_refused("a page of another level", NULL);
		forge_begin();
		layout_set_birth(f.bytes[i], id->birth - 1);
		expect_refused("a page whose header has another birth", NULL);
		forge_begin();
	}
}

static void test_counters(void **state)
{
	struct commit_record record = record_decode();

	(void)state;
	record.buckets++;
	record_encode(&record);
	expect_refused("one bucket more", NULL);
	record = record_decode();
	record.catalog.entries++;
	record_encode(&record);
	expect_refused("one catalog entry more", "counters");
	for (size_t i = 0; i < f.truth->count; i++) {
		forge_begin();
		if (f.lie->units[i].id.kind != BTS_KIND_NODE ||
			layout_tree(f.bytes[i]) != LAYOUT_TREE_CATALOG || layout_level(f.bytes[i]) != 0)
			continue;
		for (unsigned c = 0; c < layout_count(f.bytes[i]); c++) {
			struct node_cell cell;

			forge_begin();
			node_cell(f.bytes[i], c, &cell);
			((uint8_t *)(uintptr_t)cell.value.data)[24] ^= 1; /* entries, bucket.c */
			expect_refused("a bucket with other counters", "counters");
		}
	}
}

static void test_free_set(void **state)
{
	struct commit_record record = record_decode();

	(void)state;
	for (size_t i = 0; i < f.truth->count; i++) {
		uint32_t entries = bytes_get_u32(f.bytes[i] + 76); /* freelog.h */

		if (f.lie->units[i].id.kind != BTS_KIND_FREE_LOG || entries == 0)
			continue;
		for (uint32_t e = 0; e < entries; e += 37) {
			f.bytes[i][80 + 8 * e + 7] ^= 0x80; /* freed, allocated */
			expect_refused("an entry of the free log turned round", NULL);
			forge_begin();
			f.bytes[i][80 + 8 * e] ^= 1;
			expect_refused("an entry of the free log for another page", NULL);
			forge_begin();
		}
	}
	if (record.free.inline_count > 0) {
		record.free.inline_count--;
		record_encode(&record);
		expect_refused("a free set without its last entry", NULL);
	}

	record = record_decode();
	assert_true(record.free.inline_count < FREELOG_INLINE_MAX);
	record.free.inline_entries[record.free.inline_count++] = record.catalog.root.pgno | UINT64_C(0x8001)
												    << 48;
	record_encode(&record);
	expect_refused("a page in use called free", NULL);

	record = record_decode();
	record.high_water++;
	record_encode(&record);
	expect_refused("a page that is neither free nor in use", NULL);
}

/* Another chain for the commit that the follower stands on. */
static bool forge_history(uint8_t *leaf)
{
	for (unsigned c = 0; c < layout_count(leaf); c++) {
		struct node_cell cell;

		node_cell(leaf, c, &cell);
		if (*(const char *)cell.key.data != 'h' ||
			bytes_get_be64((const uint8_t *)cell.key.data + 1) != f.truth->base.txid)
			continue;
		((uint8_t *)(uintptr_t)cell.value.data)[5] ^= 1;
		return true;
	}
	return false;
}

static void expect_diverged(void)
{
	forge_seal();
	assert_int_equal(bed_apply(f.follower, f.lie, NULL, NULL), BTS_DIVERGED);
	f.refused++;
}

static void test_roots(void **state)
{
	const struct commit_record truth = record_decode();
	struct commit_record record = truth;

	(void)state;
	record.history = (struct tree){.id = LAYOUT_TREE_HISTORY};
	if (truth.history.depth) {
		record_encode(&record);
		expect_refused("a history forgotten", NULL);
	}
	record = truth;
	for (uint32_t i = 0; i < record.recent_count; i++)
		if (record.recent[i].txid == f.truth->base.txid) {
			record.recent[i].chain[5] ^= 1;
			forge_begin();
			record_encode(&record);
			expect_diverged();
		}
	for (size_t i = 0; i < f.truth->count; i++) {
		forge_begin();
		if (layout_type(f.bytes[i]) == LAYOUT_LEAF &&
			layout_tree(f.bytes[i]) == LAYOUT_TREE_HISTORY && forge_history(f.bytes[i]))
			expect_diverged();
	}
	record = truth;
	record.catalog.root.crc ^= 1;
	record_encode(&record);
	expect_refused("another root", NULL);
	forge_begin();
	record = truth;
	record.catalog.depth++;
	record_encode(&record);
	expect_refused("a deeper tree", NULL);
}

/* The record of a named snapshot in a leaf of the frame, with one lie in it; false: there is no such lie. */
static bool forge_snapshot(struct node_cell *cell, unsigned lie)
{
	const struct commit_record record = record_decode();
	uint8_t *at = (uint8_t *)(uintptr_t)cell->value.data;
	struct snapshot s;

	assert_null(snapshot_decode(cell, &record, false, &s));
	switch (lie) {
	case 0:
		s.txid = record.txid + 1;
		break;
	case 1:
		s.txid = s.catalog.root.birth - 1;
		break;
	case 2:
		s.catalog.root.crc ^= 1;
		break;
	case 3:
		s.catalog.root.birth--;
		break;
	case 4:
		s.catalog.depth++;
		break;
	case 5:
		s.catalog.entries = ++s.buckets;
		break;
	case 6:
		s.catalog.bytes++;
		break;
	case 7:
		s.catalog.pages++;
		break;
	case 8:
		s.buckets++;
		break;
	case 9:
		s.high_water = record.first + 1;
		break;
	case 10:
		s.txid = 0;
		break;
	case 11: /* the newest state under an older number */
		if (layout_ptr_equal(&s.catalog.root, &record.catalog.root))
			return false;
		s.catalog = record.catalog;
		s.buckets = record.buckets;
		break;
	default:
		return false;
	}
	snapshot_encode(&s, at);
	return true;
}

static void test_snapshots(void **state)
{
	struct commit_record record;
	unsigned cells = 0;

	(void)state;
	for (size_t i = 0; i < f.truth->count; i++) {
		if (layout_tree(f.bytes[i]) != LAYOUT_TREE_SNAPSHOTS || layout_type(f.bytes[i]) != LAYOUT_LEAF)
			continue;
		for (unsigned c = 0; c < layout_count(f.bytes[i]); c++, cells++)
			for (unsigned lie = 0; lie < 12; lie++) {
				struct node_cell cell;

				node_cell(f.bytes[i], c, &cell);
				if (forge_snapshot(&cell, lie))
					expect_refused("a named snapshot that is not so", NULL);
				forge_begin();
			}
	}
	assert_true(cells >= 3);
	record = record_decode();
	record.snapshots = (struct tree){.id = LAYOUT_TREE_SNAPSHOTS};
	record_encode(&record);
	expect_refused("named snapshots forgotten", NULL);
	record = record_decode();
	record.snapshots.entries++;
	record_encode(&record);
	expect_refused("one named snapshot more", "counters");
}

static void expect_refused_unsealed(void)
{
	assert_int_not_equal(bed_apply(f.follower, f.lie, NULL, NULL), BTS_OK);
	f.refused++;
	bed_assert_clean(f.follower);
	forge_begin();
	f.lie->record = f.truth->record;
}

/* Without making the sums right. */
static void test_damaged(void **state)
{
	(void)state;
	f.lie->record = f.truth->record;
	for (size_t i = 0; i < f.truth->count; i++) {
		f.bytes[i][(seed + 4093 * i) % 4096] ^= 4;
		expect_refused_unsealed();
		if (f.lie->units[i].id.kind == BTS_KIND_FREE_LOG || layout_count(f.bytes[i]) == 0)
			continue;
		f.bytes[i][22] ^= 1; /* the insert hint, which means nothing to readers */
		expect_refused_unsealed();
	}
	for (size_t i = 1; i < f.truth->count; i++) {
		const uint8_t *bytes = f.bytes[i - 1];

		if (f.lie->units[i].size != f.lie->units[i - 1].size)
			continue;
		f.lie->units[i - 1].bytes = f.bytes[i];
		f.lie->units[i].bytes = bytes;
		expect_refused_unsealed();
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kept_pointers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_empty_leaves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_new_pages, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_counters, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_free_set, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_roots, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_snapshots, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged, set_up, tear_down),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL) || total < 100;
}
