/* Commit record and meta slot: what is written is read back, and nothing else is believed. */
#include "cmocka.h"
#include <crc32c.h>
#include <meta.h>
#include <rng.h>
#include <string.h>

static uint64_t meta_seed;

static void meta_fill_ptr(struct rng *rng, const struct commit_record *record, struct page_ptr *ptr)
{
	ptr->pgno = record->first + rng_below(rng, record->high_water - record->first);
	ptr->birth = 1 + rng_below(rng, record->txid);
	ptr->crc = (uint32_t)rng_next(rng);
}

static void meta_fill_tree(
	struct rng *rng, const struct commit_record *record, struct tree *tree, uint32_t id)
{
	memset(tree, 0, sizeof(*tree));
	tree->id = id;
	if (rng_one_in(rng, 4))
		return;
	tree->depth = 1 + (uint32_t)rng_below(rng, 5);
	meta_fill_ptr(rng, record, &tree->root);
	tree->entries = 1 + rng_below(rng, 1000);
	tree->bytes = rng_below(rng, 100000);
	tree->pages = tree->depth + rng_below(rng, 10);
}

static void meta_fill_history(struct rng *rng, struct commit_record *record)
{
	bts_txid txid = record->txid;

	for (uint32_t i = record->recent_count; i-- > 0; txid -= 1 + rng_below(rng, 5)) {
		record->recent[i].txid = txid;
		rng_fill(rng, record->recent[i].chain, 16);
	}
	memcpy(record->chain, record->recent[record->recent_count - 1].chain, 16);
	txid = record->txid;
	for (uint32_t i = record->segment_count; i-- > 0;) {
		struct history_segment *segment = &record->segments[i];

		segment->epoch = record->epoch;
		segment->epoch_random = record->epoch_random;
		segment->first = txid;
		segment->last = txid -= 1 + rng_below(rng, 5);
		rng_fill(rng, segment->chain, 16);
	}
}

/* A sound record with tables of these lengths. */
static void meta_fill_record(
	struct rng *rng, struct commit_record *record, uint32_t inlined, uint32_t recent, uint32_t segments)
{
	memset(record, 0, sizeof(*record));
	rng_fill(rng, record->database, 16);
	record->epoch = 1 + (uint32_t)rng_below(rng, 9);
	record->epoch_random = rng_next(rng);
	record->txid = 1000 + rng_below(rng, UINT64_C(1) << 40);
	record->time_ms = rng_next(rng);
	record->page_size = 4096u << rng_below(rng, 5);
	record->first = LAYOUT_RESERVED_BYTES / record->page_size;
	record->high_water = record->first + 200 + rng_below(rng, 100000);
	record->next_tree = LAYOUT_TREE_FIRST_BUCKET + (uint32_t)rng_below(rng, 100);
	record->buckets = rng_below(rng, 50);
	meta_fill_tree(rng, record, &record->catalog, LAYOUT_TREE_CATALOG);
	meta_fill_tree(rng, record, &record->history, LAYOUT_TREE_HISTORY);
	meta_fill_tree(rng, record, &record->snapshots, LAYOUT_TREE_SNAPSHOTS);
	if (rng_one_in(rng, 2)) {
		meta_fill_ptr(rng, record, &record->free.head);
		record->free.pages = 2;
		record->free.sequence = 2 + rng_below(rng, 500);
		record->free.generation = (uint32_t)rng_next(rng);
	}
	record->free.inline_count = inlined;
	for (uint32_t i = 0; i < inlined; i++)
		record->free.inline_entries[i] = (record->first + rng_below(rng, 100)) << 16 |
						 rng_below(rng, 2) << 15 | (1 + rng_below(rng, 90));
	record->recent_count = recent;
	record->segment_count = segments;
	meta_fill_history(rng, record);
}

static void meta_fill_slot(struct rng *rng, struct meta_slot *slot, uint32_t runs)
{
	memset(slot, 0, sizeof(*slot));
	meta_fill_record(rng, &slot->record, (uint32_t)rng_below(rng, FREELOG_INLINE_MAX + 1),
		1 + (uint32_t)rng_below(rng, META_RECENT_MAX),
		(uint32_t)rng_below(rng, META_SEGMENTS_INLINE + 1));
	slot->sequence = 2 + rng_below(rng, 1000);
	slot->durable_sequence = rng_below(rng, slot->sequence);
	slot->durable = rng_below(rng, slot->record.txid + 1);
	slot->mode = runs ? META_ONE_FLUSH : META_SEAL;
	slot->role = rng_one_in(rng, 2) ? META_PRIMARY : META_FOLLOWER;
	rng_fill(rng, slot->node, 16);
	slot->inode = rng_next(rng);
	slot->birth_ns = rng_next(rng);
	slot->pending_salt = rng_next(rng);
	slot->pending_count = slot->role == META_FOLLOWER ? (uint32_t)rng_next(rng) : 0;
	slot->pending_log = slot->pending_count && rng_one_in(rng, 2);
	slot->manifest_count = slot->record.page_size > 8192 && runs > 16 ? 16 : runs;
	for (uint32_t i = 0; i < slot->manifest_count; i++)
		slot->manifest[i] = (struct meta_run){slot->record.first + i, 1, (uint32_t)rng_next(rng)};
}

static void meta_reseal(uint8_t *bytes)
{
	uint32_t crc;

	bytes_put_u32(bytes + 16, 0);
	crc = crc32c(0, bytes, LAYOUT_META_SIZE);
	bytes_put_u32(bytes + 16, crc);
}

static void meta_round_trip(void **state)
{
	struct rng rng;

	(void)state;
	rng_init(&rng, meta_seed);
	for (int i = 0; i < 2000; i++) {
		struct meta_slot slot, back;
		uint8_t bytes[LAYOUT_META_SIZE], again[LAYOUT_META_SIZE];
		struct bts_error error;

		meta_fill_slot(&rng, &slot, (uint32_t)rng_below(&rng, META_MANIFEST_MAX + 1));
		meta_slot_encode(&slot, bytes);
		assert_true(meta_slot_intact(bytes));
		error.text[0] = 0;
		if (meta_slot_decode(bytes, &back, &error))
			fail_msg("%s", error.text);
		meta_slot_encode(&back, again);
		assert_memory_equal(bytes, again, sizeof(bytes));
		assert_int_equal(back.record.recent_count, slot.record.recent_count);
		assert_memory_equal(back.record.recent, slot.record.recent,
			slot.record.recent_count * sizeof(slot.record.recent[0]));
		assert_memory_equal(back.record.free.inline_entries, slot.record.free.inline_entries,
			sizeof(slot.record.free.inline_entries));
		assert_true(back.record.txid == slot.record.txid && back.durable == slot.durable &&
			    back.pending_salt == slot.pending_salt && back.pending_log == slot.pending_log && back.sequence == slot.sequence &&
			    back.mode == slot.mode && back.role == slot.role && back.inode == slot.inode);
	}
}

static void meta_worst_case_fits(void **state)
{
	struct meta_slot slot, back;
	uint8_t bytes[LAYOUT_META_SIZE], record[BTS_RECORD_MAX];
	struct rng rng;

	(void)state;
	rng_init(&rng, meta_seed);
	meta_fill_slot(&rng, &slot, 1);
	meta_fill_record(&rng, &slot.record, FREELOG_INLINE_MAX, META_RECENT_MAX, META_SEGMENTS_INLINE);
	slot.record.page_size = 4096;
	slot.record.first = 16;
	slot.record.high_water += 16;
	slot.durable = 1;
	slot.manifest_count = META_MANIFEST_MAX;
	for (uint32_t i = 0; i < META_MANIFEST_MAX; i++)
		slot.manifest[i] = (struct meta_run){20 + i, 2, i};
	for (uint32_t i = 0; i < FREELOG_INLINE_MAX; i++)
		slot.record.free.inline_entries[i] = 16u << 16 | 1;
	slot.record.catalog = (struct tree){.id = LAYOUT_TREE_CATALOG};
	slot.record.history = (struct tree){.id = LAYOUT_TREE_HISTORY};
	slot.record.snapshots = (struct tree){.id = LAYOUT_TREE_SNAPSHOTS};
	memset(&slot.record.free.head, 0, sizeof(slot.record.free.head));
	slot.record.free.pages = 0;
	slot.record.free.sequence = 0;
	assert_true(meta_record_encode(&slot.record, record) <= BTS_RECORD_MAX);
	meta_slot_encode(&slot, bytes);
	assert_int_equal(meta_slot_decode(bytes, &back, NULL), BTS_OK);
	assert_int_equal(back.manifest_count, META_MANIFEST_MAX);
	assert_int_equal(back.record.segment_count, META_SEGMENTS_INLINE);
}

/* As stored, a flipped byte never decodes; with the sum made right again it never reads out of bounds. */
static void meta_every_byte_flipped(void **state)
{
	struct rng rng;

	(void)state;
	rng_init(&rng, meta_seed);
	for (int round = 0; round < 4; round++) {
		struct meta_slot slot, back;
		uint8_t bytes[LAYOUT_META_SIZE], again[LAYOUT_META_SIZE];

		meta_fill_slot(&rng, &slot, round % 2 ? 20 : 0);
		meta_slot_encode(&slot, bytes);
		for (size_t i = 0; i < sizeof(bytes); i++) {
			uint8_t mask = (uint8_t)(1 + rng_below(&rng, 255));
			enum bts_err err;

			bytes[i] ^= mask;
			err = meta_slot_decode(bytes, &back, NULL);
			assert_int_equal(err, i < 8 ? BTS_INVALID : BTS_CORRUPT);
			meta_reseal(bytes);
			err = meta_slot_decode(bytes, &back, NULL);
			if (!err) {
				meta_slot_encode(&back, again);
				assert_memory_equal(bytes, again, sizeof(bytes));
			}
			bytes[i] ^= mask;
			meta_reseal(bytes);
		}
	}
}

static void meta_random_bytes_behind_a_good_sum(void **state)
{
	struct rng rng;

	(void)state;
	rng_init(&rng, meta_seed);
	for (int i = 0; i < 20000; i++) {
		struct meta_slot slot, back;
		uint8_t bytes[LAYOUT_META_SIZE], again[LAYOUT_META_SIZE];

		meta_fill_slot(&rng, &slot, (uint32_t)rng_below(&rng, 3));
		meta_slot_encode(&slot, bytes);
		for (uint64_t k = 1 + rng_below(&rng, 6); k > 0; k--)
			bytes[32 + rng_below(&rng, rng_one_in(&rng, 2) ? 100 : 1000)] =
				(uint8_t)rng_next(&rng);
		meta_reseal(bytes);
		if (!meta_slot_decode(bytes, &back, NULL)) {
			meta_slot_encode(&back, again);
			assert_memory_equal(bytes, again, sizeof(bytes));
		}
	}
}

static void meta_expect(uint8_t *bytes, enum bts_err code, const char *text)
{
	struct meta_slot back;
	struct bts_error error = {BTS_OK, 0, ""};

	assert_int_equal(meta_slot_decode(bytes, &back, &error), code);
	if (!strstr(error.text, text))
		fail_msg("\"%s\" does not say \"%s\"", error.text, text);
}

static void meta_foreign_versions(void **state)
{
	uint8_t bytes[LAYOUT_META_SIZE], copy[LAYOUT_META_SIZE];
	struct meta_slot slot;
	struct rng rng;
	size_t record;

	(void)state;
	rng_init(&rng, meta_seed);
	meta_fill_slot(&rng, &slot, 0);
	meta_slot_encode(&slot, bytes);
	record = 112;

	memcpy(copy, bytes, sizeof(copy));
	bytes_put_u16(copy + 12, 2);
	meta_reseal(copy);
	meta_expect(copy, BTS_VERSION, "format version 2 is newer");
	bytes_put_u16(copy + 12, 0);
	meta_reseal(copy);
	meta_expect(copy, BTS_VERSION, "format version 0, this release reads 1");
	bytes_put_u16(copy + 12, 1);
	bytes_put_u16(copy + record + 4, 0);
	meta_reseal(copy);
	meta_expect(copy, BTS_VERSION, "commit record: format version 0, this release reads 1");

	memcpy(copy, bytes, sizeof(copy));
	bytes_put_u32(copy + 8, 0x04030201);
	meta_reseal(copy);
	meta_expect(copy, BTS_VERSION, "byte order");
	bytes_put_u32(copy + 16, __builtin_bswap32(bytes_get_u32(copy + 16)));
	meta_expect(copy, BTS_VERSION, "byte order");

	memcpy(copy, bytes, sizeof(copy));
	bytes_put_u64(copy + 24, 8);
	meta_reseal(copy);
	meta_expect(copy, BTS_VERSION, "must-understand bits 0x8");

	memcpy(copy, bytes, sizeof(copy));
	bytes_put_u64(copy + record + 8, UINT64_C(1) << 40);
	meta_reseal(copy);
	meta_expect(copy, BTS_VERSION, "features 0x10000000000");

	memset(copy, 0, sizeof(copy));
	meta_expect(copy, BTS_INVALID, "not a database");
}

/* Options that this version does not know: skipped or refused by their kind, never read past. */
static void meta_options(void **state)
{
	uint8_t bytes[LAYOUT_META_SIZE];
	struct meta_slot slot, back;
	size_t size;
	struct rng rng;

	(void)state;
	rng_init(&rng, meta_seed);
	meta_fill_slot(&rng, &slot, 0);
	meta_fill_record(&rng, &slot.record, 0, 1, 0);
	slot.durable = 0;
	meta_slot_encode(&slot, bytes);
	size = bytes_get_u32(bytes + 104);
	bytes_put_u16(bytes + 112 + size, 7);
	bytes_put_u16(bytes + 114 + size, 3);
	memcpy(bytes + 116 + size, "new", 3);
	bytes_put_u32(bytes + 104, (uint32_t)size + 7);
	bytes_put_u16(bytes + 112 + 6, (uint16_t)(size + 7));
	bytes_put_u16(bytes + 112 + 286, 7);
	meta_reseal(bytes);
	assert_int_equal(meta_slot_decode(bytes, &back, NULL), BTS_OK);
	bytes_put_u16(bytes + 112 + size, 0x8007);
	meta_reseal(bytes);
	meta_expect(bytes, BTS_VERSION, "option type 0x8007");
	bytes_put_u16(bytes + 112 + size, 7);
	bytes_put_u16(bytes + 114 + size, 4);
	meta_reseal(bytes);
	meta_expect(bytes, BTS_CORRUPT, "option");
}

static void meta_record_of_any_size(void **state)
{
	struct commit_record record, back;
	uint8_t bytes[BTS_RECORD_MAX];
	struct rng rng;
	size_t size;

	(void)state;
	rng_init(&rng, meta_seed);
	meta_fill_record(&rng, &record, 5, 3, 2);
	size = meta_record_encode(&record, bytes);
	assert_int_equal(meta_record_decode(bytes, size, &back, NULL), BTS_OK);
	for (size_t cut = 0; cut < size; cut++) {
		uint8_t *exact = malloc(cut ? cut : 1);

		assert_non_null(exact);
		memcpy(exact, bytes, cut);
		assert_int_equal(meta_record_decode(exact, cut, &back, NULL), BTS_CORRUPT);
		free(exact);
	}
}

static void meta_digest_follows_the_roots(void **state)
{
	struct commit_record record;
	uint8_t one[16], two[16];
	struct rng rng;

	(void)state;
	rng_init(&rng, meta_seed);
	meta_fill_record(&rng, &record, 5, 3, 2);
	meta_root_digest(&record, one);
	record.txid++;
	meta_root_digest(&record, two);
	assert_memory_equal(one, two, 16);
	record.catalog.root.crc++;
	meta_root_digest(&record, two);
	assert_memory_not_equal(one, two, 16);
	record.snapshots.root.crc++;
	meta_root_digest(&record, one);
	assert_memory_not_equal(one, two, 16);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(meta_round_trip),
		cmocka_unit_test(meta_worst_case_fits),
		cmocka_unit_test(meta_every_byte_flipped),
		cmocka_unit_test(meta_random_bytes_behind_a_good_sum),
		cmocka_unit_test(meta_foreign_versions),
		cmocka_unit_test(meta_options),
		cmocka_unit_test(meta_record_of_any_size),
		cmocka_unit_test(meta_digest_follows_the_roots),
	};

	meta_seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
