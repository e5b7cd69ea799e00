/* Groups: a state at the newest commit that many transactions change one after the other, made durable by one flush. */
#include "txn.h"

#include "base/fault.h"
#include "error.h"
#include "flush.h"
#include "lease.h"

#include <string.h>

enum bts_err group_open(struct bts_group *group, struct bts *db, struct bts_error *error)
{
	enum bts_err err;

	memset(group, 0, offsetof(struct bts_group, way));
	group->db = db;
	err = db_may_commit(db, error);
	if (err)
		return err;
	group->last = SABOTAGE(FAULT_M2_NUMBERS_AGAIN) ? 0 : shared_assigned(db->shared);
	if (group->last < db->tip.txid)
		group->last = db->tip.txid;
	/* I4: numbers may run ahead of D by less than an opening commit jumps. */
	if (group->last - shared_durable_txid(db->shared) >= META_JUMP / 2) {
		err = flush_to(db, db->tip.txid, NULL, NULL, NULL, error);
		if (err == BTS_OK && group->last - db->tip.txid >= META_JUMP / 2)
			err = db_jump(db, error);
		if (err)
			return err;
		if (group->last < db->tip.txid)
			group->last = db->tip.txid;
	}
	err = state_init(&group->state, db, &db->tip, true, &group->error);
	if (err)
		return error_set(error, err, 0, "%s", group->error.text);
	return BTS_OK;
}

void group_close(struct bts_group *group)
{
	state_fini(&group->state);
}

bts_txid group_newest(const struct bts_group *group)
{
	return group->count > 0 ? group->last : group->state.record.txid;
}

enum bts_err group_build(struct bts_group *group, struct commit_built *built, struct bts_error *error)
{
	if (group->count == 0)
		return BTS_OK;
	group->state.ctx.error = &group->error;
	return commit_build(group->db, &group->state, group->last, built, error);
}

enum bts_err bts_group_begin(struct bts *db, struct bts_group **out, struct bts_error *error)
{
	struct bts_group *group;
	enum bts_err err;

	err = db_may_commit(db, error);
	if (err)
		return err;
	if (db->follower)
		return error_set(error, BTS_READ_ONLY, 0, "a follower's file takes no write transactions");
	group = db->env->ops->memory(db->env, NULL, sizeof(*group));
	if (group == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a group");
	err = db_build_enter(db, error);
	if (err)
		goto fail;
	/* Its transactions read the tip, and what they read may be told to somebody before this group commits (I8). */
	err = flush_to(db, db->tip.txid, NULL, NULL, NULL, error);
	if (err == BTS_OK)
		err = group_open(group, db, error);
	tree_way_begin(&group->state.ctx, &group->way);
	if (err) {
		db_build_leave(db);
		goto fail;
	}
	*out = group;
	return BTS_OK;
fail:
	db->env->ops->memory(db->env, group, 0);
	return err;
}

static void group_end(struct bts_group *group)
{
	struct bts *db = group->db;

	group_close(group);
	lease_end(&group->leases);
	db_build_leave(db);
	db->env->ops->memory(db->env, group->spare, 0);
	db->env->ops->memory(db->env, group, 0);
}

enum bts_err bts_group_commit(struct bts_group *group, struct bts_error *error)
{
	struct bts *db = group->db;
	uint64_t count = group->count;
	struct commit_built built;
	enum bts_err err;

	if (group->txn != NULL)
		return error_set(error, BTS_INVALID, 0, "bts_group_commit: a transaction of the group has not ended");
	err = group_build(group, &built, error);
	group_end(group);
	if (err || count == 0)
		return err;
	err = flush_to(db, built.txid, &built, NULL, NULL, error);
	if (err == BTS_OK) {
		atomic_fetch_add(&db->commits, count);
		readers_enforce(db);
	}
	return err;
}

void bts_group_abort(struct bts_group *group)
{
	if (group == NULL)
		return;
	bts_abort(group->txn);
	group_end(group);
}
