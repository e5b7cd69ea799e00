/* Groups: a state at the newest commit that many transactions change one after the other, made durable by one flush. */
#include "txn.h"

#include "error.h"

#include <string.h>

enum bts_err group_open(struct bts_group *group, struct bts *db, struct bts_error *error)
{
	enum bts_err err;

	memset(group, 0, sizeof(*group));
	group->db = db;
	err = db_may_write(db, error);
	if (err)
		return err;
	err = state_init(&group->state, db, &db->slot.record, true, &group->error);
	if (err)
		return error_set(error, err, 0, "%s", group->error.text);
	group->last = shared_assigned(db->shared);
	if (group->last < db->slot.record.txid)
		group->last = db->slot.record.txid;
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

enum bts_err group_finish(struct bts_group *group, struct bts_error *error)
{
	if (group->count == 0)
		return BTS_OK;
	group->state.ctx.error = &group->error;
	return commit_state(group->db, &group->state, group->last, group->count, error);
}

enum bts_err bts_group_begin(struct bts *db, struct bts_group **out, struct bts_error *error)
{
	struct bts_group *group;
	enum bts_err err;

	err = db_may_write(db, error);
	if (err)
		return err;
	if (db->follower)
		return error_set(error, BTS_READ_ONLY, 0, "a follower's file takes no write transactions");
	group = db->env->ops->memory(db->env, NULL, sizeof(*group));
	if (group == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a group");
	pthread_mutex_lock(&db->build);
	err = group_open(group, db, error);
	if (err) {
		pthread_mutex_unlock(&db->build);
		db->env->ops->memory(db->env, group, 0);
		return err;
	}
	*out = group;
	return BTS_OK;
}

static void group_end(struct bts_group *group)
{
	struct bts *db = group->db;

	group_close(group);
	pthread_mutex_unlock(&db->build);
	db->env->ops->memory(db->env, group, 0);
}

enum bts_err bts_group_commit(struct bts_group *group, struct bts_error *error)
{
	enum bts_err err;

	if (group->txn != NULL)
		return error_set(error, BTS_INVALID, 0, "bts_group_commit: a transaction of the group has not ended");
	err = group_finish(group, error);
	group_end(group);
	return err;
}

void bts_group_abort(struct bts_group *group)
{
	if (group == NULL)
		return;
	bts_abort(group->txn);
	group_end(group);
}
