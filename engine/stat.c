/* Figures about a file and this handle. */
#include "txn.h"

#include "error.h"
#include "redirect.h"

#include <string.h>

#define STAT_STUCK_MS 1000u

/* The free set of the published record, counted: by its log, so that a process that only reads can tell too. */
static enum bts_err stat_free_pages(
	struct bts *db, struct redirect *table, const struct commit_record *record, uint64_t *pages, struct bts_error *error)
{
	struct space space;
	enum bts_err err = db_load_space(db, table, record, &space, error);

	if (err)
		return err;
	*pages = space_free_pages(&space);
	space_fini(&space);
	return BTS_OK;
}

/* Who has held a lock of the commit path for so long that it looks stopped. */
static void stat_stuck(struct bts *db, struct bts_stat *stat)
{
	uint64_t now = db->env->ops->clock_ms(db->env), since;
	uint32_t pid;

	/* The innermost: who holds an outer one for long may be waiting for it. */
	for (int which = SHARED_LOCKS - 1; which >= 0 && stat->stuck_pid == 0; which--) {
		if (!shared_lock_owner(db->shared, (enum shared_lock)which, &pid, &since) ||
			now < since + STAT_STUCK_MS)
			continue;
		stat->stuck_pid = pid;
		stat->stuck_ms = now - since;
	}
}

static enum bts_err stat_fill(struct bts *db, struct bts_stat *stat, struct bts_error *error)
{
	struct shared_reader reader;
	struct redirect *table;
	struct commit_record record;
	struct bts_file_identity id;
	bool unclean, fell_back;
	bts_txid highest;
	enum bts_err err;
	int os = db->env->ops->file_identity(db->file, &id);

	if (os)
		return error_os(error, os, "cannot stat %s", db->path);
	err = readers_pinned(db, &stat->readers, &stat->oldest_reader, &stat->pinned_pages, error);
	if (err)
		return err;
	/* Registered, so that the log pages read below stay what they are. */
	err = redirect_enter(db, REDIRECT_HEAD, &reader, &record, &table, error);
	if (err)
		return err;
	err = stat_free_pages(db, table, &record, &stat->free_pages, error);
	redirect_drop(db, table);
	shared_reader_leave(db->shared, &reader);
	if (err)
		return err;
	shared_unclean(db->shared, &unclean, &fell_back, &highest);
	stat->page_size = record.page_size;
	stat->epoch = record.epoch;
	stat->epoch_random = record.epoch_random;
	memcpy(stat->database, record.database, sizeof(stat->database));
	memcpy(stat->chain, record.chain, sizeof(stat->chain));
	meta_root_digest(&record, stat->root_digest);
	stat->follower = shared_role(db->shared) == META_FOLLOWER;
	stat->clean_open = shared_was_clean(db->shared);
	stat->fell_back = fell_back;
	stat->poisoned = shared_poisoned(db->shared);
	stat->txid = record.txid;
	stat->durable_txid = shared_durable_txid(db->shared);
	stat_stuck(db, stat);
	stat->file_bytes = id.size;
	stat->pages = record.high_water;
	stat->first_page = record.first;
	stat->buckets = record.buckets;
	return BTS_OK;
}

enum bts_err bts_stat(struct bts *db, struct bts_stat *out, struct bts_error *error)
{
	struct bts_stat stat = {0};
	size_t size = out->size;
	enum bts_err err;

	if (size < sizeof(size) || size > sizeof(stat))
		return error_set(error, BTS_INVALID, 0, "struct bts_stat of %zu bytes: set size first", size);
	err = stat_fill(db, &stat, error);
	if (err)
		return err;
	stat.commits = atomic_load(&db->commits);
	stat.flushes = atomic_load(&db->flushes);
	stat.pages_written = atomic_load(&db->pages_written);
	stat.conflicts = atomic_load(&db->conflicts);
	stat.size = size;
	memcpy(out, &stat, size);
	return BTS_OK;
}
