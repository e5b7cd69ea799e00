/*
 * Opening and closing a file (M1 to M3, I4, I6, I10, I11, G5).
 *
 * The first process to open recovers, alone: choose a slot, make it durable again, publish it.  A process that joins finds
 * tip, head and D published; what writers that died may have left is settled under the locks they held.  A follower's file has
 * one process that writes it, the heir of the one before.  The last process to close hands slack back and seals.
 */
#include "db.h"

#include "base/ensure.h"
#include "async.h"
#include "base/fault.h"
#include "compact.h"
#include "deadline.h"
#include "error.h"
#include "flush.h"
#include "homes.h"
#include "park.h"
#include "pending.h"
#include "recover.h"
#include "role.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define DB_PENDING_LIMIT (UINT64_C(1) << 30)
#define DB_TXN_MEMORY (UINT64_C(64) << 20)
#define DB_CLOSE_COMPACT (UINT64_C(64) << 20)
#define DB_ROLE_TRIES 16 /* readings of a slot */
#define DB_OPEN_FLAGS (BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER | BTS_OPEN_FENCE | BTS_OPEN_DEADLINE)

void bts_options_init(struct bts_options *options)
{
	memset(options, 0, sizeof(*options));
	options->size = sizeof(*options);
	options->close_compact = DB_CLOSE_COMPACT;
}

static enum bts_err db_check_options(const struct bts_options *given, struct bts_options *options, struct bts_error *error)
{
	bts_options_init(options);
	if (given != NULL) {
		if (given->size != sizeof(*options))
			return error_set(error, BTS_INVALID, 0, "struct bts_options of %zu bytes: use bts_options_init",
				given->size);
		*options = *given;
	}
	if (options->flags & ~DB_OPEN_FLAGS ||
		(options->flags & (BTS_OPEN_READ_ONLY | BTS_OPEN_FOLLOWER)) == (BTS_OPEN_READ_ONLY | BTS_OPEN_FOLLOWER) ||
		(options->flags & (BTS_OPEN_READ_ONLY | BTS_OPEN_DEADLINE)) == (BTS_OPEN_READ_ONLY | BTS_OPEN_DEADLINE) ||
		(options->flags & (BTS_OPEN_FENCE | BTS_OPEN_FOLLOWER)) == BTS_OPEN_FENCE)
		return error_set(error, BTS_INVALID, 0, "bts_open: impossible flags %#x", options->flags);
	if (options->page_size == 0)
		options->page_size = BTS_PAGE_SIZE_MIN;
	if (options->page_size < BTS_PAGE_SIZE_MIN || options->page_size > BTS_PAGE_SIZE_MAX ||
		(options->page_size & (options->page_size - 1)) != 0)
		return error_set(error, BTS_INVALID, 0, "page size %u (a power of two from %d to %d)", options->page_size,
			BTS_PAGE_SIZE_MIN, BTS_PAGE_SIZE_MAX);
	if (options->pending_limit == 0)
		options->pending_limit = DB_PENDING_LIMIT;
	if (options->txn_memory == 0)
		options->txn_memory = DB_TXN_MEMORY;
	if (options->env == NULL)
		options->env = bts_env_posix();
	return BTS_OK;
}

static struct bts *db_new(const struct bts_options *options, const char *path)
{
	struct bts_env *env = options->env;
	struct bts *db = env->ops->memory(env, NULL, sizeof(*db));
	bool named;

	if (db == NULL)
		return NULL;
	memset(db, 0, sizeof(*db));
	db->env = env;
	db->read_only = (options->flags & BTS_OPEN_READ_ONLY) != 0;
	db->limits = *options;
	db->txn_memory = options->txn_memory;
	db->lock_timeout_ms = options->lock_timeout_ms;
	pthread_mutex_init(&db->build, NULL);
	pthread_mutex_init(&db->flush, NULL);
	pthread_mutex_init(&db->publish, NULL);
	pthread_mutex_init(&db->redirect_lock, NULL);
	db->envelope = env->ops->memory(env, NULL, sizeof(*db->envelope));
	named = beside_init(&db->beside, env, path);
	db->path = db->beside.given;
	db->snapshots = env->ops->memory(env, NULL, SHARED_READERS_MAX * sizeof(*db->snapshots));
	if (!named || db->snapshots == NULL || db->envelope == NULL || queue_new(db) ||
		async_new(db, options->async_delay_ms)) {
		db_free(db);
		return NULL;
	}
	return db;
}

void db_free(struct bts *db)
{
	struct bts_env *env = db->env;

	async_free(db);
	queue_free(db);
	park_free(db);
	compact_forget(db);
	homes_fini(db);
	redirect_fini(db);
	if (db->log.file != NULL)
		env->ops->file_close(db->log.file);
	for (unsigned i = 0; i < 2; i++)
		if (db->spare[i].file != NULL)
			env->ops->file_close(db->spare[i].file);
	space_fini(&db->space);
	pager_fini(&db->pager);
	shared_close(db->shared);
	if (db->file != NULL)
		env->ops->file_close(db->file);
	pthread_mutex_destroy(&db->build);
	pthread_mutex_destroy(&db->flush);
	pthread_mutex_destroy(&db->publish);
	pthread_mutex_destroy(&db->redirect_lock);
	env->ops->memory(env, db->envelope, 0);
	env->ops->memory(env, db->snapshots, 0);
	beside_fini(&db->beside);
	env->ops->memory(env, db, 0);
}

static enum bts_err db_check_poison(const struct bts *db, struct bts_error *error)
{
	if (shared_poisoned(db->shared))
		return error_set(error, BTS_POISONED, 0,
			"%s: an earlier write or flush failed; close it in every process and open it again", db->path);
	return BTS_OK;
}

enum bts_err db_usable(struct bts *db, struct bts_error *error)
{
	if (shared_foreign(db->shared))
		return error_set(error, BTS_INVALID, 0, "%s was opened by another process, before a fork: open it again",
			db->path);
	if (!db->writer)
		return error_set(error, BTS_READ_ONLY, 0, "%s is open for reading only", db->path);
	return db_check_poison(db, error);
}

enum bts_err db_may_write(struct bts *db, struct bts_error *error)
{
	enum bts_err err = db_usable(db, error);

	if (err == BTS_OK && !db->follower && shared_role(db->shared) != META_PRIMARY)
		err = error_set(error, BTS_FENCED, 0, "%s takes no writes: it was fenced, another one is primary or about to be",
			db->path);
	return err;
}

enum bts_err db_may_commit(struct bts *db, struct bts_error *error)
{
	enum bts_err err = db_may_write(db, error);

	return err == BTS_OK && !db->follower ? deadline_check(db, error) : err;
}

enum bts_err db_poison(struct bts *db, struct bts_error *error, int os, const char *what)
{
	shared_poison(db->shared);
	error_os(error, os == 0 ? EIO : os, "%s failed, %s is poisoned until every process has closed it", what, db->path);
	/* Whatever errno says: BTS_FULL and BTS_MEMORY promise that nothing was changed. */
	if (error != NULL)
		error->code = BTS_IO;
	return BTS_IO;
}

size_t db_snapshots(struct bts *db)
{
	return shared_readers(db->shared, db->snapshots, SHARED_READERS_MAX, NULL);
}

void db_reclaim(struct bts *db)
{
	/* Before the readers are scanned (I1).  A follower's allocator belongs to the state that its slot holds. */
	bts_txid durable = db->follower ? db->slot.record.txid : shared_durable_txid(db->shared);
	size_t count = db_snapshots(db);

	if (SABOTAGE(FAULT_I1_NO_READERS))
		count = 0;
	space_reclaim(&db->space, durable, db->snapshots, count);
}

static enum bts_err db_open_file(struct bts *db, const struct bts_options *options, struct bts_error *error)
{
	struct recover_create create = { .page_size = options->page_size, .role = META_PRIMARY };
	struct bts_env *env = db->env;
	enum bts_err err;
	int os;

	for (int tries = 0; tries < 2; tries++) {
		os = env->ops->file_open(env, db->path, BTS_FILE_WRITE, &db->file);
		if (db->read_only && (os == EACCES || os == EROFS || os == EPERM))
			os = env->ops->file_open(env, db->path, BTS_FILE_READ, &db->file), db->unwritable = true;
		if (os != ENOENT)
			break;
		if (options->flags & (BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER))
			return error_set(error, BTS_NOT_FOUND, os, "%s: no such file", db->path);
		err = recover_create(env, db->path, &create, error);
		if (err && err != BTS_EXISTS)
			return err;
	}
	db->beside.file = db->file;
	return os == 0 ? BTS_OK : error_os(error, os, "cannot open %s", db->path);
}

/* The state the handle stands on, whoever found it. */
static void db_stand_on(struct bts *db, const struct recover_state *state)
{
	db->slot = state->slot;
	db->slot_index = state->index;
}

static void db_publish(struct bts *db)
{
	shared_set_slot(db->shared, db->slot_index, db->slot.sequence);
	shared_set_pending(db->shared, db->slot.pending_salt, db->slot.pending_count);
	shared_publish(db->shared, &db->slot.record);
}

/* recover.c knows the file but not its name, and tells a stranger's file (BTS_INVALID) from a damaged one. */
static enum bts_err db_choose(struct bts *db, struct recover_state *state, struct bts_error *error)
{
	struct bts_error why = { 0 };
	enum bts_err err = recover_choose(db->env, db->file, state, &why);

	if (err == BTS_OK)
		return BTS_OK;
	return error_set(error, err == BTS_INVALID ? BTS_CORRUPT : err, why.os, "%s: %s", db->path, why.text);
}

/* Alone with the file: judge it, make it durable again (I6), publish. */
static enum bts_err db_recover(struct bts *db, struct bts_error *error)
{
	struct recover_state *state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	enum bts_err err;

	if (state == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to open %s", db->path);
	err = db_choose(db, state, error);
	if (err == BTS_OK && !state->clean && db->unwritable)
		err = error_set(error, BTS_NEEDS_RECOVERY, 0,
			"%s was not closed cleanly and this process may not write it", db->path);
	/* A new file's creator may have died, or not come yet, to flush the name. */
	if (err == BTS_OK && !db->unwritable && state->sequence <= RECOVER_CREATED) {
		int os = db->env->ops->path_sync_dir(db->env, db->path);

		if (os)
			err = error_os(error, os, "flushing the directory of %s", db->path);
	}
	/* Clean or not: the seal itself may be in the page cache only, left there by a death before its flush. */
	if (err == BTS_OK && !db->unwritable)
		err = recover_rewrite(db->env, db->file, state, error);
	if (err)
		goto done;
	db_stand_on(db, state);
	if (db->slot.pending_count != 0 && !db->slot.pending_log && db->unwritable)
		err = error_set(error, BTS_NEEDS_RECOVERY, 0, "%s has pages in %s.pending that are not home yet", db->path,
			db->path);
	else if (!db->unwritable && db->slot.role == META_FOLLOWER)
		err = pending_recover(db, true, error);
	if (err)
		goto done;
	shared_set_unclean(db->shared, !state->clean, state->fell_back, state->highest);
	shared_set_role(db->shared, db->slot.role);
	shared_set_promised(db->shared, db->slot.promised, db->slot.promised_random);
	shared_assign(db->shared, db->slot.record.txid);
	db_publish(db);
	err = shared_settle(db->shared, error);
done:
	db->env->ops->memory(db->env, state, 0);
	return err;
}

enum bts_err db_inherit(struct bts *db, struct bts_error *error)
{
	struct recover_state *state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	bts_txid durable = shared_head_txid(db->shared);
	uint64_t sequence;
	unsigned index;
	enum bts_err err;

	if (state == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to open %s", db->path);
	shared_slot(db->shared, &index, &sequence);
	err = recover_inherit(db->env, db->file, index, durable, state, error);
	if (err == BTS_OK)
		err = recover_rewrite(db->env, db->file, state, error);
	if (err == BTS_OK) {
		db_stand_on(db, state);
		if (db->slot.role == META_FOLLOWER)
			err = pending_recover(db, false, error);
	}
	if (err == BTS_OK) {
		shared_set_promised(db->shared, db->slot.promised, db->slot.promised_random);
		db_publish(db);
		if (db->slot.role == META_FOLLOWER)
			pending_tidy(db);
	}
	db->env->ops->memory(db->env, state, 0);
	return err;
}

static enum bts_err db_open_pager(struct bts *db, const struct bts_options *options, struct bts_error *error)
{
	return pager_init(&db->pager, db->env, db->file, db->slot.record.page_size, options->map_bytes, error);
}

/* A process that joins: role and identity stand in the slot that holds D, which may move on while it is read. */
enum bts_err db_learn_slot(struct bts *db, struct bts_error *error)
{
	static const uint64_t offsets[2] = { 0, LAYOUT_META_B_OFFSET };
	struct shared_durable durable;
	uint8_t bytes[LAYOUT_META_SIZE];
	enum bts_err err = BTS_CORRUPT;
	size_t got;

	for (unsigned i = 0; i < DB_ROLE_TRIES && err == BTS_CORRUPT; i++) {
		int os;

		shared_durable(db->shared, NULL, &durable);
		os = db->env->ops->file_pread(db->file, bytes, sizeof(bytes), offsets[durable.index], &got);
		if (os)
			err = error_os(error, os, "cannot read %s", db->path);
		else if (got == sizeof(bytes))
			err = meta_slot_decode(bytes, &db->slot, error);
		if (err == BTS_OK && db->slot.sequence < durable.sequence)
			err = error_set(error, BTS_CORRUPT, 0, "%s: meta %c is not the one that processes agree on", db->path,
				durable.index ? 'B' : 'A');
	}
	if (err)
		return err;
	shared_head(db->shared, &db->slot.record);
	return BTS_OK;
}

static enum bts_err db_join(struct bts *db, bool alone, const struct bts_options *options, struct bts_error *error)
{
	enum bts_err err = alone ? db_recover(db, error) : db_learn_slot(db, error);

	if (err)
		return err;
	db->follower = db->slot.role == META_FOLLOWER || options->flags & BTS_OPEN_FOLLOWER;
	if (db->read_only)
		return db_open_pager(db, options, error);
	err = db_check_poison(db, error);
	if (err == BTS_OK)
		err = role_check(db, options->flags, alone, error);
	if (err == BTS_OK)
		err = shared_announce_writer(db->shared, error);
	if (err == BTS_OK && db->follower)
		err = role_join(db, alone, error);
	if (err == BTS_OK)
		err = db_open_pager(db, options, error);
	if (err)
		return err;
	db->writer = true;
	if (db->follower && shared_role(db->shared) != META_FOLLOWER)
		err = role_take(db, error);
	if (err == BTS_OK && options->flags & BTS_OPEN_DEADLINE)
		shared_deadline_use(db->shared);
	if (err == BTS_OK)
		err = db_start_writing(db, error);
	if (err)
		db->writer = false;
	return err;
}

/* M3: who only reads, and may not write the lock file, or finds nobody to join who uses one, reads a file at rest. */
static enum bts_err db_open_shared(struct bts *db, bool *alone, struct bts_error *error)
{
	struct bts_error why = { 0 };
	enum bts_err err = shared_open(db->env, db->path, db->file, &db->shared, alone, &why);

	if (err && db->read_only && (err == BTS_BUSY || err == BTS_NEEDS_RECOVERY || why.os == EACCES || why.os == EROFS ||
			why.os == EPERM)) {
		err = shared_open_private(db->env, db->path, db->file, &db->shared, &why);
		db->unwritable = *alone = true;
	}
	if (err && error != NULL)
		*error = why;
	return err;
}

enum bts_err bts_open(const char *path, const struct bts_options *given, struct bts **out, struct bts_error *error)
{
	struct bts_options options;
	struct bts *db;
	bool alone = false;
	enum bts_err err;

	err = db_check_options(given, &options, error);
	if (err)
		return err;
	db = db_new(&options, path);
	if (db == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to open %s", path);
	err = db_open_file(db, &options, error);
	if (err == BTS_OK)
		err = db_open_shared(db, &alone, error);
	if (err == BTS_OK)
		err = db_join(db, alone, &options, error);
	if (err) {
		db_free(db);
		return err;
	}
	*out = db;
	return BTS_OK;
}

/* Does this handle know of all that was written and flushed?  Not of what the process that follows now does. */
static bool db_knows(struct bts *db)
{
	return db->writer && (db->follower || shared_role(db->shared) != META_FOLLOWER);
}

/* A jump of I4 is owed: numbers above the newest commit were, or may have been, given to pages that are on the disk. */
static bool db_owes_jump(struct bts *db)
{
	bool unclean, fell_back;
	bts_txid highest;

	shared_unclean(db->shared, &unclean, &fell_back, &highest);
	if (unclean || shared_lost_numbers(db->shared))
		return true;
	return (!db_knows(db) || shared_lock_orphaned(db->shared, SHARED_LOCK_BUILD)) &&
		shared_assigned(db->shared) > shared_durable_txid(db->shared);
}

/*
 * I10.  Not by a process that only read when a jump is owed: a seal would hide that.  Not after poison: what the disk
 * holds is unknown, the next opener judges it.
 */
static void db_seal(struct bts *db)
{
	struct recover_state *state;
	struct bts_error ignored;

	if (db->unwritable || shared_poisoned(db->shared) || SABOTAGE(FAULT_I10_NO_SEAL) || !shared_last(db->shared))
		return;
	/* What writers that died had built, and nobody flushed. */
	if (db->writer && !db->follower && flush_settle(db, &ignored))
		return;
	/* Past the deadline: numbers above D are on the disk, in pages of commits that go now. */
	if (db->writer && !db->follower && shared_tip_txid(db->shared) > shared_durable_txid(db->shared))
		return;
	state = db_owes_jump(db) ? NULL : db->env->ops->memory(db->env, NULL, sizeof(*state));
	if (state == NULL)
		return;
	/* A failure here leaves an unclean exit, which the next opener handles. */
	if (recover_choose(db->env, db->file, state, &ignored) == BTS_OK && !state->clean &&
		(db_knows(db) || recover_rewrite(db->env, db->file, state, &ignored) == BTS_OK)) {
		enum bts_err err = recover_envelope(db->env, db->file, state, META_SEAL, &ignored);

		(void)err;
	}
	db->env->ops->memory(db->env, state, 0);
}

/* Not with something left undone by an earlier failure: that is the next opener's. */
static bool db_may_compact(struct bts *db)
{
	return db->writer && !db->follower && !db->unwritable && !shared_foreign(db->shared) && !shared_poisoned(db->shared) &&
	       !db_owes_jump(db) && shared_tip_txid(db->shared) == shared_durable_txid(db->shared);
}

void bts_close(struct bts *db)
{
	enum bts_err err = BTS_OK;

	if (db == NULL)
		return;
	ENSURE(atomic_load(&db->transactions) == 0 && park_idle(db));
	async_free(db);
	/* Nobody may be waiting for what this process built, and who only reads can not flush it (I10). */
	if (db->writer && !db->follower && !shared_foreign(db->shared) &&
		shared_tip_txid(db->shared) > shared_durable_txid(db->shared))
		err = flush_settle(db, NULL);
	if (err == BTS_OK && db_may_compact(db)) /* otherwise the exit is not clean */
		compact_close(db);
	if (db->writer && db->follower && !shared_foreign(db->shared) && !shared_poisoned(db->shared)) {
		(void)!homes_merge(db, HOMES_ALL, NULL); /* else the next opener does it */
		pending_discard(db);
	}
	db_seal(db);
	db_free(db);
}

enum bts_err bts_sync(struct bts *db, struct bts_error *error)
{
	bts_txid head = shared_head_txid(db->shared);
	struct bts_error why = { 0 };
	uint32_t term;
	enum bts_err err;

	if (shared_foreign(db->shared))
		return db_may_write(db, error);
	if (!db->writer || db->follower)
		return db_check_poison(db, error);
	term = shared_deadline_term(db->shared);
	err = head <= shared_durable_txid(db->shared) ? db_check_poison(db, error) : flush_to(db, head, NULL, NULL, NULL, &why);
	if (err == BTS_OK)
		return deadline_told(db, term, error);
	/* What was committed may be told of by nobody, and may stand all the same. */
	if (err == BTS_FENCED)
		return error_set(error, BTS_UNKNOWN, 0, "nothing committed before may be taken for done: %.200s", why.text);
	if (err && why.code && error != NULL)
		*error = why;
	return err;
}
