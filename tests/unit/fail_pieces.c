/* Scenarios of the failure tests: values in pieces, bulk loads, exclusive transactions, a second handle that spills, differences. */
#include "fail_scenario.h"

#include "cmocka.h"

#define FAIL_PIECE 40000u
#define FAIL_SPILL_MEMORY (64u << 10)

static const uint8_t fail_piece[FAIL_PIECE] = {1, 2, 3};

static enum bts_err fail_stream(
	struct fail_bed *bed, struct bts_txn *txn, struct bts_bucket *bucket, uint64_t size)
{
	struct bts_slice key = {size == BTS_SIZE_UNKNOWN ? "unknown" : "stream", 6};
	struct bts_stream *stream;
	enum bts_err err = bts_put_begin(txn, bucket, key, size, 0, &stream, &bed->error);

	for (unsigned i = 0; i < 3 && !err; i++) {
		err = bts_put_write(stream, (struct bts_slice){fail_piece, FAIL_PIECE});
		if (err)
			bts_put_abort(stream);
	}
	return err ? err : bts_put_end(stream, &bed->error);
}

static enum bts_err fail_load(struct fail_bed *bed, struct bts_txn *txn, struct bts_bucket *bucket)
{
	struct bts_load *load;
	enum bts_err err = bts_load_begin(txn, bucket, 0, &load, &bed->error);

	for (unsigned i = 0; i < 200 && !err; i++) {
		uint8_t key[2] = {(uint8_t)(0x80 + i / 100), (uint8_t)(i % 100)};

		err = bts_load_add(load, (struct bts_slice){key, 2}, (struct bts_slice){fail_piece, 300 + i});
		if (err)
			bts_load_abort(load);
	}
	return err ? err : bts_load_end(load, &bed->error);
}

/* In db, which need not be the bed's.  Repeated as a whole when memory was short. */
static enum bts_err fail_pieces_once(struct fail_bed *bed, struct bts *db, unsigned flags)
{
	struct bts_txn *txn = NULL;
	struct bts_bucket *bucket;
	enum bts_err err = bts_begin(db, BTS_WRITE | flags, &txn, &bed->error);

	if (!err)
		err = bts_bucket(txn, (struct bts_slice){"pieces", 6}, BTS_CREATE, &bucket, &bed->error);
	if (!err)
		err = bts_del_range(
			txn, bucket, (struct bts_slice){"\x80", 1}, (struct bts_slice){NULL, 0}, NULL);
	if (!err)
		err = fail_load(bed, txn, bucket);
	if (!err)
		err = fail_stream(bed, txn, bucket, 3 * FAIL_PIECE);
	if (!err)
		err = fail_stream(bed, txn, bucket, BTS_SIZE_UNKNOWN);
	if (err) {
		bts_abort(txn);
		return err;
	}
	err = bts_commit(txn, &bed->error);
	if (err == BTS_CONFLICT)
		bts_abort(txn);
	if (err)
		return err;
	bed->commits++;
	if (bed->recording) {
		bed->hashes[bed->commits] = fail_hash(bed->db);
		bed->hash_count = bed->commits + 1;
	}
	return BTS_OK;
}

enum bts_err fail_pieces(struct fail_bed *bed)
{
	enum bts_err err;

	if (bed->arm)
		bed->arm(bed, bed->mem);
	err = fail_pieces_once(bed, bed->db, BTS_EXCLUSIVE);
	return err == BTS_MEMORY && bed->again ? fail_pieces_once(bed, bed->db, BTS_EXCLUSIVE) : err;
}

/* Two handles in turns: each follows the other's allocator; the second one's transactions spill. */
enum bts_err fail_turns(struct fail_bed *bed)
{
	struct bts_options options;
	struct bts *second = NULL;
	enum bts_err err;

	bts_options_init(&options);
	options.env = env_mem_env(bed->mem);
	options.map_bytes = 64 << 20;
	options.txn_memory = FAIL_SPILL_MEMORY;
	if (bed->arm)
		bed->arm(bed, bed->mem);
	err = bts_open(FAIL_PATH, &options, &second, &bed->error);
	if (err == BTS_MEMORY && bed->again)
		err = bts_open(FAIL_PATH, &options, &second, &bed->error);
	for (unsigned i = 0; i < 4 && !err; i++) {
		struct bts *db = i % 2 ? second : bed->db;

		err = fail_pieces_once(bed, db, 0);
		if (err == BTS_MEMORY && bed->again)
			err = fail_pieces_once(bed, db, 0);
	}
	bts_close(second);
	return err;
}

static uint64_t fail_fold(uint64_t sum, struct bts_slice bytes)
{
	for (size_t i = 0; i < bytes.size; i++)
		sum = (sum ^ ((const uint8_t *)bytes.data)[i]) * UINT64_C(1099511628211);
	return sum * 31 + bytes.size;
}

/* All changes from where the diff stands, with the values, into *sum. */
static enum bts_err fail_changes(struct fail_bed *bed, struct bts_diff *diff, uint64_t *sum)
{
	struct bts_change change = {.size = sizeof(change)};
	enum bts_err err;

	for (;;) {
		struct bts_slice value = {0};

		err = bts_diff_next(diff, &change, &bed->error);
		if (err == BTS_MEMORY && bed->again)
			err = bts_diff_next(diff, &change, &bed->error);
		if (!err && change.kind == BTS_CHANGE_PUT)
			err = bts_diff_value(diff, &value, &bed->error);
		if (err)
			return err == BTS_NOT_FOUND ? BTS_OK : err;
		*sum = fail_fold(fail_fold(fail_fold(*sum + change.kind, change.bucket), change.key), value);
	}
}

static enum bts_err fail_diff_open(struct fail_bed *bed, struct bts_txn *older, struct bts_txn *newer, struct bts_diff **diff)
{
	enum bts_err err = bts_diff_open(older, newer, NULL, diff, &bed->error);

	return err == BTS_MEMORY && bed->again ? bts_diff_open(older, newer, NULL, diff, &bed->error) : err;
}

/* Of everything, of what two commits changed, and from a place in it on: what is told is all there is, or it ends in an error. */
enum bts_err fail_diff(struct fail_bed *bed)
{
	static uint64_t whole;
	const struct bts_slice bucket = {"pieces", 6}, key = {"\x81", 1};
	struct bts_txn *older = NULL, *newer = NULL;
	struct bts_diff *diff = NULL;
	uint64_t sum = 0;
	enum bts_err err = bts_begin(bed->db, BTS_READ, &older, &bed->error);

	for (unsigned i = 0; i < 2 && !err; i++)
		err = fail_pieces_once(bed, bed->db, 0);
	if (!err)
		err = bts_begin(bed->db, BTS_READ, &newer, &bed->error);
	if (bed->arm && !err)
		bed->arm(bed, bed->mem);
	for (unsigned i = 0; i < 2 && !err; i++) {
		err = fail_diff_open(bed, i ? older : NULL, newer, &diff);
		if (!err)
			err = fail_changes(bed, diff, &sum);
		if (!err)
			err = bts_diff_seek(diff, bucket, key, &bed->error);
		if (err == BTS_MEMORY && bed->again)
			err = bts_diff_seek(diff, bucket, key, &bed->error);
		if (!err)
			err = fail_changes(bed, diff, &sum);
		bts_diff_close(diff);
		diff = NULL;
	}
	if (bed->recording)
		whole = sum;
	if (!err)
		assert_true(sum == whole);
	bts_abort(older);
	bts_abort(newer);
	return err;
}
