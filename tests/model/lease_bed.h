/* Words for the tests of large values that are written before their commit (engine/lease.h). */
#ifndef MODEL_LEASE_BED_H
#define MODEL_LEASE_BED_H

#include "bed.h"
#include "lease.h"

#define LEASE_PIECE 99991u
#define LEASE_SIZE UINT64_C(1300007)
#define DELAY_NEVER 3600000u

static inline void lease_open(struct bed *bed, struct bts_env *env, uint64_t txn_memory, struct bts **db)
{
	struct bts_options options;

	bts_options_init(&options);
	options.map_bytes = bed->mem ? (uint64_t)ENV_MEM_RESERVE_DEFAULT : UINT64_C(1) << 34;
	options.env = env ? env : bed->mem ? env_mem_env(bed->mem) : NULL;
	options.txn_memory = txn_memory;
	options.async_delay_ms = DELAY_NEVER;
	if (bts_open(bed->path, &options, db, &bed->error))
		fail_msg("open: %s", bed->error.text);
}

/* Bytes at an offset of a value: they depend on where they stand, and on whose they are. */
static inline void lease_fill(uint8_t *bytes, uint64_t at, size_t size, unsigned salt)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)((at + i) / 251 * 7 + at + i + salt * 31);
}

static inline struct bts_stream *lease_begin(struct bts_txn *txn, const char *key, uint64_t size)
{
	struct bts_stream *stream;
	struct bts_error error = {0};

	if (bts_put_begin(txn, bed_bucket(txn, "b"), bed_text(key), size, 0, &stream, &error))
		fail_msg("begin: %s", error.text);
	return stream;
}

static inline enum bts_err lease_pour(struct bts_stream *stream, uint64_t from, uint64_t to, unsigned salt)
{
	uint8_t piece[LEASE_PIECE]; /* not static: a test may look at another database from within a write */

	while (from < to) {
		size_t size = to - from < sizeof(piece) ? (size_t)(to - from) : sizeof(piece);
		enum bts_err err;

		lease_fill(piece, from, size, salt);
		err = bts_put_write(stream, (struct bts_slice){piece, size});
		if (err)
			return err;
		from += size;
	}
	return BTS_OK;
}

static inline void lease_stream(struct bts_txn *txn, const char *key, uint64_t size, unsigned salt)
{
	struct bts_stream *stream = lease_begin(txn, key, size);

	assert_int_equal(lease_pour(stream, 0, size, salt), BTS_OK);
	assert_int_equal(bts_put_end(stream, NULL), BTS_OK);
}

/* The value of a key, whole: its salt; 0: there is none. */
static inline unsigned lease_salt(struct bts_txn *txn, const char *key, uint64_t size, unsigned most)
{
	uint8_t piece[LEASE_PIECE]; /* not static: a test may look at another database from within a write */
	struct bts_bucket *bucket;
	struct bts_slice value;
	unsigned salt = 0;
	enum bts_err err = bts_bucket(txn, bed_text("b"), 0, &bucket, NULL);

	if (err == BTS_OK)
		err = bts_get(txn, bucket, bed_text(key), &value);
	if (err == BTS_NOT_FOUND)
		return 0;
	if (err)
		fail_msg("get %s: %s", key, bts_txn_error(txn)->text);
	assert_int_equal(value.size, size);
	do
		lease_fill(piece, 0, 64, ++salt);
	while (salt <= most && memcmp(piece, value.data, 64) != 0);
	assert_true(salt <= most);
	for (uint64_t at = 0; at < size; at += sizeof(piece)) {
		size_t part = size - at < sizeof(piece) ? (size_t)(size - at) : sizeof(piece);

		lease_fill(piece, at, part, salt);
		assert_memory_equal((const uint8_t *)value.data + at, piece, part);
	}
	return salt;
}

static inline void lease_holds(struct bts *db, const char *key, uint64_t size, unsigned salt)
{
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	assert_int_equal(lease_salt(txn, key, size, salt), salt);
	bts_abort(txn);
}

static inline unsigned lease_count(const struct bts_txn *txn)
{
	const struct lease *lease = txn->group ? txn->group->leases : txn->leases;
	unsigned count = 0;

	for (; lease; lease = lease->next)
		count++;
	return count;
}

/* Nothing is leased, and what the newest commit says is free is free to the allocator of this handle. */
static inline void lease_none_lost(struct bts *db)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	bed_put(txn, "b", "small", "v");
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
	assert_int_equal(bts_stat(db, &stat, NULL), BTS_OK);
	assert_int_equal(shared_leases(db->shared), 0);
	assert_int_equal(space_free_pages(&db->space), stat.free_pages);
}

static inline void lease_store(struct bts *db, const char *key, uint64_t size, unsigned salt)
{
	struct bts_error error = {0};
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE, &txn, NULL), BTS_OK);
	lease_stream(txn, key, size, salt);
	if (bts_commit(txn, &error))
		fail_msg("commit: %s", error.text);
}

#endif
