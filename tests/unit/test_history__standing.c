/* Positions move from the commit record to the history tree, and claims are judged by both (R3). */
#include "cmocka.h"
#include <dirty.h>
#include <ensure.h>
#include <env_mem.h>
#include <history.h>
#include <rng.h>

struct bed {
	struct env_mem *mem;
	struct dirty *dirty;
	struct pager pager;
	struct tree_ctx ctx;
	struct bts_error error;
	struct commit_record record;
};

static void bed_commit(struct bed *bed, bts_txid txid)
{
	struct history_page pages[2] = {{txid + 20, (uint32_t)txid * 3}, {txid + 21, (uint32_t)txid * 5}};

	bed->ctx.stamp = txid;
	assert_int_equal(history_make_room(&bed->ctx, &bed->record), BTS_OK);
	bed->record.txid = txid;
	history_chain(&bed->record, pages, 2);
	history_append(&bed->record);
}

static void bed_jump(struct bed *bed, bts_txid first)
{
	history_segment_add(&bed->record, bed->record.txid, bed->record.chain, first);
	bed->record.txid = first;
	history_chain(&bed->record, NULL, 0);
	history_append(&bed->record);
}

static void bed_init(struct bed *bed)
{
	memset(bed, 0, sizeof(*bed));
	bed->mem = env_mem_new(1 << 20);
	assert_int_equal(dirty_new(env_mem_env(bed->mem), 4096, &bed->dirty), BTS_OK);
	bed->pager.env = env_mem_env(bed->mem);
	bed->pager.page_size = 4096;
	bed->pager.page_shift = 12;
	bed->ctx = (struct tree_ctx){
		.pager = &bed->pager, .limit = 16, .dirty = bed->dirty, .error = &bed->error};
	bed->record.epoch = 2;
	bed->record.epoch_random = 77;
	bed->record.history.id = LAYOUT_TREE_HISTORY;
	bed->record.snapshots.id = LAYOUT_TREE_SNAPSHOTS;
	memset(bed->record.database, 7, 16);
}

static void bed_fini(struct bed *bed)
{
	dirty_free(bed->dirty);
	env_mem_free(bed->mem);
}

static enum bts_standing bed_ask(struct bed *bed, const struct bts_position *claimed)
{
	enum bts_standing standing;

	assert_int_equal(history_standing(&bed->ctx, &bed->record, claimed, &standing), BTS_OK);
	return standing;
}

static void history_answers(void **unused)
{
	struct bts_position at[400], claim, none = {.txid = 0};
	struct bed bed;

	(void)unused;
	bed_init(&bed);
	for (bts_txid txid = 1; txid < 400; txid++) {
		bed_commit(&bed, txid * 3);
		meta_position(&bed.record, &at[txid]);
	}
	assert_true(bed.record.history.entries > 300);
	for (bts_txid txid = 1; txid < 400; txid++) {
		assert_int_equal(bed_ask(&bed, &at[txid]), BTS_STANDING_KNOWN);
		claim = at[txid];
		claim.chain[15] ^= 1;
		assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_DIVERGED);
		claim = at[txid];
		claim.txid--;
		assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_BASE_UNKNOWN);
	}
	assert_int_equal(bed_ask(&bed, &none), BTS_STANDING_EMPTY);
	memcpy(none.database, bed.record.database, 16);
	assert_int_equal(bed_ask(&bed, &none), BTS_STANDING_EMPTY);
	none.database[0]++;
	assert_int_equal(bed_ask(&bed, &none), BTS_STANDING_WRONG_DATABASE);
	claim = at[10];
	claim.database[0]++;
	assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_WRONG_DATABASE);
	claim = at[10];
	claim.epoch_random++;
	assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_DIVERGED);
	claim = at[399];
	claim.txid++;
	assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_AHEAD);
	claim.epoch++;
	assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_AHEAD);
	claim.epoch -= 2;
	assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_DIVERGED);
	bed_fini(&bed);
}

static void history_gaps(void **unused)
{
	struct bts_position opened, claim;
	struct bed bed;

	(void)unused;
	bed_init(&bed);
	bed_commit(&bed, 1);
	bed_commit(&bed, 2);
	bed_jump(&bed, 2 + META_JUMP);
	meta_position(&bed.record, &opened);
	assert_int_equal(bed_ask(&bed, &opened), BTS_STANDING_KNOWN);
	claim = opened;
	claim.txid = 3;
	assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_BASE_UNKNOWN);
	for (bts_txid txid = 0; txid < 100; txid++)
		bed_commit(&bed, bed.record.txid + 1);
	assert_int_equal(bed_ask(&bed, &opened), BTS_STANDING_KNOWN);
	assert_int_equal(bed_ask(&bed, &claim), BTS_STANDING_BASE_UNKNOWN);
	assert_int_equal(bed.record.segment_count, 0);
	bed_fini(&bed);
}

/* Any mixture of openings and commits finds room, and a commit spills before openings could run out of it. */
static void history_room(void **unused)
{
	struct rng rng;
	struct bed bed;

	(void)unused;
	rng_init(&rng, 5);
	bed_init(&bed);
	bed_commit(&bed, 1);
	for (int i = 0; i < 3000; i++) {
		uint8_t bytes[BTS_RECORD_MAX];

		if (rng_one_in(&rng, 3))
			for (uint64_t k = rng_below(&rng, 60); k > 0; k--)
				bed_jump(&bed, bed.record.txid + 100);
		else
			bed_commit(&bed, bed.record.txid + 1);
		assert_in_range(bed.record.recent_count, 1, META_RECENT_MAX);
		assert_in_range(bed.record.segment_count, 0, META_SEGMENTS_INLINE);
		assert_true(bed.record.recent[bed.record.recent_count - 1].txid == bed.record.txid);
		bed.record.page_size = 4096;
		assert_true(meta_record_encode(&bed.record, bytes) <= BTS_RECORD_MAX);
	}
	bed_fini(&bed);
}

/* The chain depends on everything that a position stands for. */
static void history_chain_covers(void **unused)
{
	struct commit_record one = {.epoch = 1, .txid = 5}, two;
	struct history_page pages[2] = {{20, 1}, {21, 2}};

	(void)unused;
	two = one;
	history_chain(&one, pages, 2);
	history_chain(&two, pages, 1);
	assert_memory_not_equal(one.chain, two.chain, 16);
	for (int what = 0; what < 7; what++) {
		struct commit_record a = {.epoch = 1, .txid = 5}, b = a;

		b.chain[0] ^= what == 0;
		b.epoch += what == 1;
		b.epoch_random += what == 2;
		b.txid += what == 3;
		b.catalog.root.crc += what == 4;
		b.free.head.pgno += what == 5;
		b.snapshots.root.crc += what == 6;
		history_chain(&a, pages, 2);
		history_chain(&b, pages, 2);
		assert_memory_not_equal(a.chain, b.chain, 16);
	}
}

static enum bts_standing bed_reached(struct bed *bed, uint32_t epoch, uint64_t epoch_random, bts_txid txid)
{
	enum bts_standing standing;

	assert_int_equal(
		history_reached(&bed->ctx, &bed->record, epoch, epoch_random, txid, &standing), BTS_OK);
	return standing;
}

/* Which transactions a history holds, by its epochs and gaps, inline and moved to the tree. */
static void history_reaches(void **unused)
{
	struct bts_position fork;
	struct bed bed;

	(void)unused;
	bed_init(&bed);
	for (bts_txid txid = 1; txid <= 10; txid++)
		bed_commit(&bed, txid);
	bed_jump(&bed, 100); /* an unclean exit: 11 to 99 never were */
	bed_commit(&bed, 101);
	meta_position(&bed.record, &fork);
	fork.txid = 102; /* of a sibling that went on in the old epoch */
	history_segment_add(&bed.record, 101, bed.record.chain, 5000);
	bed.record.epoch = 3;
	bed.record.epoch_random = 78;
	bed.record.txid = 5000;
	history_chain(&bed.record, NULL, 0);
	history_append(&bed.record);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(bed_reached(&bed, 2, 77, 10), BTS_STANDING_KNOWN);
		assert_int_equal(bed_reached(&bed, 2, 77, 50), BTS_STANDING_DIVERGED);
		assert_int_equal(bed_reached(&bed, 2, 77, 101), BTS_STANDING_KNOWN);
		assert_int_equal(bed_reached(&bed, 2, 77, 102), BTS_STANDING_DIVERGED);
		assert_int_equal(bed_reached(&bed, 2, 77, 5000), BTS_STANDING_DIVERGED);
		assert_int_equal(bed_reached(&bed, 2, 76, 5), BTS_STANDING_DIVERGED);
		assert_int_equal(bed_reached(&bed, 1, 77, 5), BTS_STANDING_DIVERGED);
		assert_int_equal(bed_reached(&bed, 3, 78, 5000), BTS_STANDING_KNOWN);
		assert_int_equal(bed_reached(&bed, 3, 79, 5000), BTS_STANDING_DIVERGED);
		assert_int_equal(bed_reached(&bed, 3, 78, 90000), BTS_STANDING_AHEAD);
		assert_int_equal(bed_reached(&bed, 4, 1, 5), BTS_STANDING_AHEAD);
		assert_int_equal(bed_ask(&bed, &fork), BTS_STANDING_DIVERGED);
		for (bts_txid txid = 5001; txid <= 5000 + META_RECENT_MAX; txid++)
			bed_commit(&bed, txid);
		assert_true(bed.record.history.entries > 0);
	}
	bed_fini(&bed);
}

/* An old database keeps its newest positions, one in so many of the older ones, and answers no claim wrongly. */
static void history_thins(void **unused)
{
	enum { COMMITS = 9000, DENSE = 200 };
	struct bts_position *at = calloc(COMMITS + 1, sizeof(*at));
	unsigned known = 0;
	struct bed bed;

	(void)unused;
	assert_non_null(at);
	bed_init(&bed);
	for (bts_txid txid = 1; txid <= COMMITS; txid++) {
		bed_commit(&bed, txid);
		meta_position(&bed.record, &at[txid]);
		if (txid % META_RECENT_MAX == 0)
			assert_int_equal(history_thin(&bed.ctx, &bed.record, DENSE), BTS_OK);
	}
	assert_in_range(bed.record.history.entries, DENSE / 2, DENSE + 4 * META_RECENT_MAX + COMMITS / 1024 + 2);
	for (bts_txid txid = 1; txid <= COMMITS; txid++) {
		enum bts_standing standing = bed_ask(&bed, &at[txid]);

		assert_true(standing == BTS_STANDING_KNOWN ||
			    (standing == BTS_STANDING_BASE_UNKNOWN && txid + DENSE <= COMMITS));
		known += standing == BTS_STANDING_KNOWN && txid + 2 * DENSE < COMMITS;
	}
	assert_in_range(known, COMMITS / 1024, COMMITS / 1024 + 1);
	bed_fini(&bed);
	free(at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(history_answers),
		cmocka_unit_test(history_gaps),
		cmocka_unit_test(history_room),
		cmocka_unit_test(history_chain_covers),
		cmocka_unit_test(history_thins),
		cmocka_unit_test(history_reaches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
