/*
 * The build lock: who forms a batch, or changes what the file is.  Within a process a mutex of the handle comes first, then the lock in
 * shared memory, which a process that dies leaves to the next one.
 */
#include "db.h"

#include "error.h"
#include "flush.h"
#include "lease.h"
#include "ring.h"

/* Among the threads of this handle. */
static enum bts_err db_build_wait(struct bts *db, unsigned timeout_ms, struct bts_error *error)
{
	const struct bts_env_ops *ops = db->env->ops;
	uint64_t began;
	uint32_t never = 0;

	if (timeout_ms == 0) {
		pthread_mutex_lock(&db->build);
		return BTS_OK;
	}
	if (pthread_mutex_trylock(&db->build) == 0)
		return BTS_OK;
	began = ops->clock_ms(db->env);
	do {
		if (ops->clock_ms(db->env) - began >= timeout_ms)
			return error_set(error, BTS_BUSY, 0,
				"%s: another thread of this handle has been forming a batch for %u ms (a group, an exclusive transaction)",
				db->path, timeout_ms);
		ops->wait(db->env, &never, 0, 1);
	} while (pthread_mutex_trylock(&db->build) != 0);
	return BTS_OK;
}

/*
 * The last builder died.  It may have numbered pages and written them to free places: nobody reaches them, the numbers are gone.
 * Or it held the flush lock too and was making an opening commit (I4, R3), which may be D by now: the next is built upon that.
 */
static enum bts_err db_build_inherit(struct bts *db, struct bts_error *error)
{
	struct shared_durable durable;
	uint64_t ring;
	enum bts_err err;

	shared_lose_numbers(db->shared);
	shared_leases_doubt(db->shared);
	err = flush_settle(db, error);
	if (err)
		return err;
	if (shared_durable_txid(db->shared) > shared_tip_txid(db->shared)) {
		shared_durable(db->shared, &db->tip, &durable);
		shared_tip(db->shared, NULL, &ring);
		shared_publish_tip(db->shared, &db->tip, ring);
	}
	shared_lock_settled(db->shared, SHARED_LOCK_BUILD);
	return BTS_OK;
}

static enum bts_err db_build_lock_within(struct bts *db, unsigned timeout_ms, struct bts_error *error)
{
	bool orphaned;
	enum bts_err err = db_usable(db, error); /* in the child of a fork the mutex may be held for ever */

	if (err == BTS_OK)
		err = db_build_wait(db, timeout_ms, error);
	if (err)
		return err;
	err = db_usable(db, error);
	if (err == BTS_OK)
		err = shared_lock(db->shared, SHARED_LOCK_BUILD, timeout_ms, &orphaned, error);
	if (err) {
		pthread_mutex_unlock(&db->build);
		return err;
	}
	if (orphaned && shared_role(db->shared) == META_FOLLOWER) /* who held it has built nothing (role.c) */
		shared_lock_settled(db->shared, SHARED_LOCK_BUILD);
	else if (orphaned)
		err = db_build_inherit(db, error);
	if (err)
		db_build_leave(db);
	return err;
}

enum bts_err db_build_lock(struct bts *db, struct bts_error *error)
{
	return db_build_lock_within(db, db->lock_timeout_ms, error);
}

enum bts_err db_build_enter(struct bts *db, struct bts_error *error)
{
	return db_build_enter_within(db, db->lock_timeout_ms, error);
}

enum bts_err db_build_enter_within(struct bts *db, unsigned timeout_ms, struct bts_error *error)
{
	enum bts_err err = db_build_lock_within(db, timeout_ms, error);

	if (err)
		return err;
	err = db_may_commit(db, error); /* the role does not change while the lock is held */
	if (err == BTS_OK && db->late)
		err = db_start_late(db, error);
	if (err == BTS_OK) {
		shared_tip(db->shared, &db->tip, &db->tip_ring);
		lease_inherit(db);
		err = ring_follow(db, error);
	}
	if (err)
		db_build_leave(db);
	else
		lease_collect(db);
	return err;
}

void db_build_leave(struct bts *db)
{
	shared_unlock(db->shared, SHARED_LOCK_BUILD);
	pthread_mutex_unlock(&db->build);
}
