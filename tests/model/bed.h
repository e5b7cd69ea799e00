/*
 * Short words for tests through the public interface.  Each fails the test when the call does not give what
 * is expected; a file of its own under a directory of its own, or in memory.
 */
#ifndef MODEL_BED_H
#define MODEL_BED_H

#include <btree_store.h>
#include "cmocka.h"
#include <env_mem.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct bed {
	struct env_mem *mem; /* NULL: the file system */
	char path[64];
	struct bts *db;
	struct bts_error error;
};

static inline struct bts_slice bed_text(const char *text)
{
	return (struct bts_slice){text, strlen(text)};
}

static inline void bed_remove(const struct bed *bed)
{
	char lock[80];

	snprintf(lock, sizeof(lock), "%s-lock", bed->path);
	unlink(bed->path);
	unlink(lock);
}

static inline enum bts_err bed_try_open(struct bed *bed, unsigned flags, struct bts **db)
{
	struct bts_options options;

	bts_options_init(&options);
	options.flags = flags;
	options.map_bytes = bed->mem ? (uint64_t)ENV_MEM_RESERVE_DEFAULT : UINT64_C(1) << 34;
	options.env = bed->mem ? env_mem_env(bed->mem) : NULL;
	return bts_open(bed->path, &options, db, &bed->error);
}

static inline void bed_open(struct bed *bed)
{
	if (bed_try_open(bed, 0, &bed->db))
		fail_msg("open: %s", bed->error.text);
}

static inline void bed_init_memory(struct bed *bed)
{
	memset(bed, 0, sizeof(*bed));
	bed->mem = env_mem_new(0);
	strcpy(bed->path, "/db");
	bed_open(bed);
}

static inline void bed_init_file(struct bed *bed)
{
	static int count;
	const char *folder = getenv("TMPDIR");

	memset(bed, 0, sizeof(*bed));
	snprintf(bed->path, sizeof(bed->path), "%.30s/bts-%d-%d", folder ? folder : "/tmp", (int)getpid(),
		count++);
	bed_remove(bed);
	bed_open(bed);
}

static inline void bed_reopen(struct bed *bed)
{
	bts_close(bed->db);
	bed_open(bed);
}

static inline void bed_report(void *arg, bts_pgno page, const char *text)
{
	(void)arg;
	fprintf(stderr, "check: page %llu: %s\n", (unsigned long long)page, text);
}

static inline void bed_check(struct bed *bed)
{
	struct bts_check_options options = {.report = bed_report};

	if (bts_check(bed->db, &options, &bed->error))
		fail_msg("check: %s", bed->error.text);
}

/* With a check of everything. */
static inline void bed_fini(struct bed *bed)
{
	bed_check(bed);
	bts_close(bed->db);
	if (bed->mem)
		assert_int_equal(env_mem_counters(bed->mem)->live_blocks, 0);
	else
		bed_remove(bed);
	env_mem_free(bed->mem);
}

static inline struct bts_stat bed_stat(struct bed *bed)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	assert_int_equal(bts_stat(bed->db, &stat, &bed->error), BTS_OK);
	return stat;
}

static inline struct bts_txn *bed_begin(struct bed *bed, unsigned flags)
{
	struct bts_txn *txn;

	if (bts_begin(bed->db, flags, &txn, &bed->error))
		fail_msg("begin: %s", bed->error.text);
	return txn;
}

static inline void bed_commit(struct bed *bed, struct bts_txn *txn)
{
	if (bts_commit(txn, &bed->error))
		fail_msg("commit: %s", bed->error.text);
}

static inline struct bts_bucket *bed_bucket(struct bts_txn *txn, const char *name)
{
	struct bts_bucket *bucket;

	assert_int_equal(bts_bucket(txn, bed_text(name), BTS_CREATE, &bucket, NULL), BTS_OK);
	return bucket;
}

static inline struct bts_bucket *bed_find(struct bts_txn *txn, const char *name)
{
	struct bts_bucket *bucket;

	assert_int_equal(bts_bucket(txn, bed_text(name), 0, &bucket, NULL), BTS_OK);
	return bucket;
}

static inline void bed_put(struct bts_txn *txn, const char *bucket, const char *key, const char *value)
{
	assert_int_equal(bts_put(txn, bed_bucket(txn, bucket), bed_text(key), bed_text(value), 0), BTS_OK);
}

/* value NULL: bucket or key is absent. */
static inline void bed_expect(struct bts_txn *txn, const char *name, const char *key, const char *value)
{
	struct bts_bucket *bucket;
	struct bts_slice found;
	enum bts_err err = bts_bucket(txn, bed_text(name), 0, &bucket, NULL);

	if (err == BTS_OK)
		err = bts_get(txn, bucket, bed_text(key), &found);
	if (value == NULL) {
		assert_int_equal(err, BTS_NOT_FOUND);
		return;
	}
	assert_int_equal(err, BTS_OK);
	assert_int_equal(found.size, strlen(value));
	assert_memory_equal(found.data, value, found.size);
}

/* The same by a read transaction of its own. */
static inline void bed_holds(struct bed *bed, const char *bucket, const char *key, const char *value)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);

	bed_expect(txn, bucket, key, value);
	bts_abort(txn);
}

/* A transaction of one put. */
static inline void bed_set(struct bed *bed, const char *bucket, const char *key, const char *value)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	bed_put(txn, bucket, key, value);
	bed_commit(bed, txn);
}

#endif
