/* Handles that stand for processes, and commits of one key, for the tests of the commit core. */
#ifndef MODEL_CORE_BED_H
#define MODEL_CORE_BED_H

#include "bed.h"

#define NEVER_MS 3600000u

static inline void open_one(struct bed *bed, unsigned timeout_ms, struct bts **db)
{
	struct bts_options options;

	bts_options_init(&options);
	options.map_bytes = ENV_MEM_RESERVE_DEFAULT;
	options.env = env_mem_env(bed->mem);
	options.async_delay_ms = NEVER_MS;
	options.lock_timeout_ms = timeout_ms;
	assert_int_equal(bts_open(bed->path, &options, db, &bed->error), BTS_OK);
}

/* Again after a conflict: with what a process that died had built. */
static inline void put_one(struct bts *db, unsigned flags, const char *value)
{
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;
	enum bts_err err;

	assert_int_equal(bts_begin(db, BTS_WRITE | flags, &txn, &error), BTS_OK);
	for (;;) {
		assert_int_equal(bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, &error), BTS_OK);
		assert_int_equal(bts_put(txn, bucket, bed_text("k"), bed_text(value), 0), BTS_OK);
		err = bts_commit(txn, &error);
		if (err != BTS_CONFLICT)
			break;
		assert_int_equal(bts_refresh(txn, &error), BTS_OK);
	}
	if (err)
		fail_msg("commit of %s: %s", value, error.text);
}

#endif
