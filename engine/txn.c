/* Transactions: begin, commit, refresh, abort.  What is done in between is in ops.c, the commit itself in queue.c. */
#include "txn.h"

#include "ops.h"

#include "base/ensure.h"
#include "error.h"
#include "flush.h"
#include "lease.h"
#include "park.h"
#include "redirect.h"

#include <string.h>

#define TXN_UPDATE_TRIES 1000   /* conflicts bts_update meets before it gives up */
#define TXN_BACK_OFF_MS 32u     /* and the longest it waits between two */

static enum bts_err txn_snapshot(struct bts_txn *txn)
{
	struct bts *db = txn->db;
	struct commit_record record;
	struct redirect *table;
	enum bts_err err;

	if (txn->kept != 0)
		return park_again(txn);
	txn->state = &txn->own;
	txn->fences = shared_fences(db->shared);
	err = redirect_enter(db, txn->writing ? REDIRECT_HEAD : REDIRECT_LIGHT, &txn->reader, &record, &table, &txn->error);
	if (err)
		return err;
	err = state_init(&txn->own, db, &record, txn->writing, &txn->error);
	if (err) {
		redirect_drop(db, table);
		shared_reader_leave(db->shared, &txn->reader);
		return err;
	}
	state_redirect(&txn->own, table);
	if (txn->writing)
		tree_way_begin(&txn->own.ctx, &txn->way);
	txn->own.ctx.stamp = shared_assigned(db->shared) + 1;
	txn->registered = true;
	return BTS_OK;
}

/*
 * With the build lock, until the transaction ends: nobody commits meanwhile.  What was built before becomes durable first, so
 * that the snapshot, which is the newest, holds nothing that could still be lost (I8).
 */
static enum bts_err txn_exclusive(struct bts_txn *txn)
{
	struct bts *db = txn->db;
	enum bts_err err = db_build_enter(db, &txn->error);

	if (err)
		return err;
	txn->exclusive = true;
	err = flush_to(db, db->tip.txid, NULL, NULL, NULL, &txn->error);
	if (err == BTS_OK)
		err = txn_snapshot(txn);
	if (err) {
		txn->exclusive = false;
		db_build_leave(db);
	}
	return err;
}

static void txn_drop_snapshot(struct bts_txn *txn)
{
	if (txn->kept != 0) {
		shared_reader_rest(txn->db->shared, &txn->reader);
		txn->registered = false;
		return;
	}
	state_fini(&txn->own);
	lease_end(&txn->leases);
	if (txn->registered)
		shared_reader_leave(txn->db->shared, &txn->reader);
	txn->registered = false;
}

enum bts_err txn_expired(struct bts_txn *txn)
{
	return error_set(&txn->error, BTS_EXPIRED, 0, "the snapshot of transaction %llu was held for too long and was told to end",
		(unsigned long long)txn->own.record.txid);
}

static enum bts_err txn_check_flags(unsigned flags, struct bts_error *error)
{
	unsigned kind = flags & (BTS_READ | BTS_WRITE);

	if (kind != BTS_READ && kind != BTS_WRITE)
		return error_set(error, BTS_INVALID, 0, "bts_begin: exactly one of BTS_READ and BTS_WRITE");
	if (flags & BTS_READ && flags & (BTS_EXCLUSIVE | BTS_ASYNC))
		return error_set(error, BTS_INVALID, 0, "bts_begin: BTS_EXCLUSIVE and BTS_ASYNC are for write transactions");
	if (flags & ~(BTS_READ | BTS_WRITE | BTS_CONFLICT_DATABASE | BTS_EXCLUSIVE | BTS_SERIALIZABLE | BTS_ASYNC |
			    BTS_CONFLICT_STATE))
		return error_set(error, BTS_INVALID, 0, "bts_begin: unknown flags %#x", flags);
	return BTS_OK;
}

static struct bts_txn *txn_memory(struct bts *db)
{
	return db->env->ops->memory(db->env, NULL, sizeof(struct bts_txn));
}

/* In that memory; NULL when it is. */
static struct bts_txn *txn_new(struct bts *db, struct bts_txn *txn, unsigned flags)
{
	if (txn == NULL)
		return NULL;
	memset(txn, 0, offsetof(struct bts_txn, own));
	txn->db = db;
	txn->flags = flags;
	txn->writing = (flags & BTS_WRITE) != 0;
	oplog_init(&txn->log, db->env, &db->beside, db->txn_memory / TXN_LOG_SHARE);
	return txn;
}

static enum bts_err txn_begin_new(struct bts *db, unsigned flags, struct bts_txn **out, struct bts_error *error)
{
	struct bts_txn *txn = txn_new(db, txn_memory(db), flags);
	enum bts_err err;

	if (txn == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a transaction");
	err = flags & BTS_EXCLUSIVE ? txn_exclusive(txn) : txn_snapshot(txn);
	if (err) {
		if (error != NULL)
			*error = txn->error;
		db->env->ops->memory(db->env, txn, 0);
		return err;
	}
	atomic_fetch_add(&db->transactions, 1);
	*out = txn;
	return BTS_OK;
}

/* As park_claim left it: the head has moved, or there is nothing to begin with. */
static enum bts_err txn_begin_read(struct bts *db, unsigned flags, struct bts_txn *txn, unsigned place, struct bts_txn **out,
	struct bts_error *error)
{
	enum bts_err err;

	if (txn == NULL) {
		err = txn_begin_new(db, flags, out, error);
		if (err == BTS_OK && place != 0)
			park_keep(*out, place);
		return err;
	}
	err = park_again(txn);
	if (err) {
		if (error != NULL)
			*error = txn->error;
		park_put(txn);
		return err;
	}
	*out = txn;
	return BTS_OK;
}

enum bts_err bts_begin(struct bts *db, unsigned flags, struct bts_txn **out, struct bts_error *error)
{
	unsigned place;
	enum bts_err err = flags == BTS_READ ? BTS_OK : txn_check_flags(flags, error);

	if (err)
		return err;
	if (!(flags & BTS_WRITE)) {
		struct bts_txn *txn = park_claim(db, &place);

		if (txn == NULL || !txn->registered)
			return txn_begin_read(db, flags, txn, place, out, error);
		*out = txn;
		return BTS_OK;
	}
	err = db_may_commit(db, error);
	if (err)
		return err;
	if (db->follower)
		return error_set(error, BTS_READ_ONLY, 0, "a follower's file takes no write transactions");
	return txn_begin_new(db, flags, out, error);
}

/* The registered snapshot and the state on it: both as `of` has them, who reads on meanwhile. */
static enum bts_err txn_beside(struct bts_txn *txn, const struct bts_txn *of)
{
	struct bts *db = txn->db;
	enum bts_err err;

	txn->state = &txn->own;
	txn->fences = of->fences;
	err = shared_reader_enter_beside(db->shared, &txn->reader, &of->reader, &txn->error);
	if (err)
		return err;
	err = state_init(&txn->own, db, &of->own.record, false, &txn->error);
	if (err) {
		shared_reader_leave(db->shared, &txn->reader);
		return err;
	}
	state_redirect(&txn->own, redirect_share(of->own.redirect));
	txn->registered = true;
	return BTS_OK;
}

enum bts_err bts_begin_same(struct bts_txn *of, struct bts_txn **out, struct bts_error *error)
{
	struct bts *db = of->db;
	struct bts_txn *txn;
	enum bts_err err;

	if (of->writing || !of->registered) /* a refresh that failed leaves none to stand on */
		return error_set(error, BTS_INVALID, 0, "bts_begin_same: of a read transaction with a snapshot only");
	if (shared_reader_expired(&of->reader))
		return error_set(error, BTS_EXPIRED, 0, "the snapshot of transaction %llu was held for too long and was told to end",
			(unsigned long long)of->own.record.txid);
	txn = txn_new(db, txn_memory(db), BTS_READ);
	if (txn == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a transaction");
	err = txn_beside(txn, of);
	if (err) {
		if (error != NULL)
			*error = txn->error;
		db->env->ops->memory(db->env, txn, 0);
		return err;
	}
	atomic_fetch_add(&db->transactions, 1);
	*out = txn;
	return BTS_OK;
}

static void txn_close_cursors(struct bts_txn *txn)
{
	while (txn->cursors != NULL)
		bts_cursor_close(txn->cursors);
}

/* Everything but the snapshot is over: frees txn, unless its group keeps the memory. */
static void txn_free(struct bts_txn *txn)
{
	struct bts *db = txn->db;

	oplog_fini(&txn->log);
	reads_fini(txn);
	if (txn->group == NULL)
		db->env->ops->memory(db->env, txn, 0);
	atomic_fetch_sub(&db->transactions, 1);
}

enum bts_err bts_group_txn(struct bts_group *group, struct bts_txn **out, struct bts_error *error)
{
	struct bts *db = group->db;
	struct bts_txn *txn;
	enum bts_err err;

	if (group->txn != NULL)
		return error_set(error, BTS_INVALID, 0, "bts_group_txn: the group's former transaction has not ended");
	if (group->count >= META_JUMP / 2 - 1) /* upon numbers that may be as far ahead of D already (I4, group_open) */
		return error_set(error, BTS_LIMIT, 0, "a group holds at most %llu transactions",
			(unsigned long long)META_JUMP / 2 - 1);
	txn = txn_new(db, group->spare != NULL ? group->spare : txn_memory(db), BTS_WRITE);
	if (txn == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a transaction");
	group->spare = txn;
	txn->group = group;
	txn->state = &group->state;
	txn->txid = group->last + 1;
	err = state_begin_nested(&group->state, txn->txid);
	if (err)
		return error_set(error, err, 0, "no memory for a transaction");
	group->state.ctx.error = &txn->error;
	group->txn = txn;
	atomic_fetch_add(&db->transactions, 1);
	*out = txn;
	return BTS_OK;
}

static void txn_end_nested(struct bts_txn *txn, bool keep)
{
	struct bts_group *group = txn->group;

	txn_close_cursors(txn);
	savepoint_end(txn);
	if (keep) {
		state_keep_nested(&group->state);
		group->last = txn->txid;
		group->count++;
	} else {
		state_rollback_nested(&group->state);
	}
	group->state.ctx.error = &group->error;
	group->txn = NULL;
	txn_free(txn);
}

static void txn_drop_open(struct bts_txn *txn)
{
	load_drop(txn);
	stream_drop(txn);
}

void bts_abort(struct bts_txn *txn)
{
	if (txn == NULL)
		return;
	if (txn->kept != 0) {
		txn_close_cursors(txn);
		park_put(txn);
		return;
	}
	txn_drop_open(txn);
	if (txn->group != NULL) {
		txn_end_nested(txn, false);
		return;
	}
	txn_close_cursors(txn);
	txn_drop_snapshot(txn);
	if (txn->exclusive)
		db_build_leave(txn->db);
	txn_free(txn);
}

enum bts_err bts_commit_id(struct bts_txn *txn, bts_txid *txid, struct bts_error *error)
{
	struct bts *db = txn->db;
	enum bts_err err;
	bts_txid id;

	txn_drop_open(txn);
	if (txn->group != NULL) {
		id = txn->changed ? txn->txid : group_newest(txn->group);
		txn_end_nested(txn, txn->changed);
		if (txid != NULL)
			*txid = id;
		return BTS_OK;
	}
	savepoint_end(txn);
	id = txn->own.record.txid;
	if (!txn->changed) {
		bts_abort(txn);
		if (txid != NULL)
			*txid = id;
		return BTS_OK;
	}
	err = txn->exclusive ? queue_commit_exclusive(txn, &id, error) : queue_commit(txn, &id, error);
	if (err == BTS_CONFLICT)
		return err;
	txn_close_cursors(txn);
	txn_drop_snapshot(txn);
	txn_free(txn);
	if (err == BTS_OK)
		readers_enforce(db);
	if (err == BTS_OK && txid != NULL)
		*txid = id;
	return err;
}

enum bts_err bts_commit(struct bts_txn *txn, struct bts_error *error)
{
	return bts_commit_id(txn, NULL, error);
}

static enum bts_err txn_refresh(struct bts_txn *txn)
{
	enum bts_err err;

	if (txn->group != NULL)
		return error_set(&txn->error, BTS_INVALID, 0, "bts_refresh: a group's transaction is always the newest");
	if (txn->exclusive)
		return error_set(&txn->error, BTS_INVALID, 0, "bts_refresh: an exclusive transaction's snapshot is the newest");
	/* C4: the winner is built, but readers may not see it yet; without it the same conflict would come again. */
	if (txn->winner > shared_head_txid(txn->db->shared)) {
		err = flush_to(txn->db, txn->winner, NULL, NULL, NULL, &txn->error);
		if (err)
			return err;
	}
	txn->winner = 0;
	txn_drop_open(txn);
	txn_close_cursors(txn);
	txn_drop_snapshot(txn);
	oplog_fini(&txn->log);
	reads_fini(txn);
	txn->changed = false;
	txn->writing = (txn->flags & BTS_WRITE) != 0;
	err = txn_snapshot(txn);
	if (err) {
		/* There is no snapshot to stand on: an empty state that finds nothing and takes no write. */
		memset(&txn->own.record, 0, sizeof(txn->own.record));
		state_again(&txn->own);
		txn->writing = false;
	}
	return err;
}

enum bts_err bts_refresh(struct bts_txn *txn, struct bts_error *error)
{
	enum bts_err err = txn_refresh(txn);

	if (err && error != NULL)
		*error = txn->error;
	return err;
}

bts_txid bts_txn_id(const struct bts_txn *txn)
{
	return txn->group != NULL ? txn->txid : txn->own.record.txid;
}

const struct bts_error *bts_txn_error(const struct bts_txn *txn)
{
	return &txn->error;
}

/* What a callback gave back: in the words of its last failing call when that failed so, else by name. */
static void txn_explain(const struct bts_txn *txn, enum bts_err err, struct bts_error *error)
{
	if (error == NULL)
		return;
	*error = txn->error;
	if (error->code != err)
		error_set(error, err, 0, "%s", bts_err_name(err));
}

/* Those who lost to each other should not meet again at once: a random time, longer with each loss. */
static void txn_back_off(struct bts *db, int losses)
{
	uint32_t most = losses < 5 ? 1u << losses : TXN_BACK_OFF_MS, never = 0, random = 0;

	if (losses == 0 || db->env->ops->random(db->env, &random, sizeof(random)))
		return;
	random %= most + 1;
	if (random > 0)
		db->env->ops->wait(db->env, &never, 0, random);
}

enum bts_err bts_update(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error)
{
	struct bts_txn *txn;
	enum bts_err err = bts_begin(db, BTS_WRITE, &txn, error);

	if (err)
		return err;
	for (int i = 0; i < TXN_UPDATE_TRIES; i++) {
		err = fn(txn, arg);
		if (err) {
			txn_explain(txn, err, error);
			break;
		}
		err = bts_commit(txn, error);
		if (err != BTS_CONFLICT)
			return err;
		txn_back_off(db, i);
		err = bts_refresh(txn, error);
		if (err)
			break;
		err = BTS_CONFLICT;
	}
	bts_abort(txn);
	return err;
}

enum bts_err bts_view(struct bts *db, bts_txn_fn *fn, void *arg, struct bts_error *error)
{
	struct bts_txn *txn = NULL;
	enum bts_err err = bts_begin(db, BTS_READ, &txn, error);

	if (err)
		return err;
	err = fn(txn, arg);
	if (err)
		txn_explain(txn, err, error);
	bts_abort(txn);
	return err;
}
