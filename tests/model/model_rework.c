/* Ranges, renaming and savepoints of the random model: see model_txn.h. */
#include "model_txn.h"

#include "cmocka.h"

void model_range(
	struct model *m, struct model_txn *t, struct oracle_bucket *bucket, struct bts_bucket *handle)
{
	uint8_t bytes[2][BTS_KEY_MAX];
	struct bts_slice from = model_key(m, bytes[0]), to = model_key(m, bytes[1]);
	size_t low, high, most = bucket->count / (1 + rng_below(&m->rng, 30));
	uint64_t deleted = 0, expected = 0;
	bool exact;

	if (rng_one_in(&m->rng, 12))
		from.size = 0;
	if (rng_one_in(&m->rng, 12))
		to.size = 0;
	low = from.size ? oracle_at(bucket, from, &exact) : 0;
	high = to.size ? oracle_at(bucket, to, &exact) : bucket->count;
	if (low < high && high - low > most) { /* mostly short ones, or the model runs empty */
		high = low + most;
		to = (struct bts_slice){bytes[1], bucket->entries[high]->key.size};
		memcpy(bytes[1], bucket->entries[high]->key.data, to.size);
	}
	assert_int_equal(bts_del_range(t->txn, handle, from, to, &deleted), BTS_OK);
	if (low < high)
		model_log(&t->ops, MODEL_RANGE, bucket, from, to);
	for (; low < high; high--, expected++) {
		model_log(&t->ops, MODEL_DEL, bucket, bucket->entries[high - 1]->key, (struct bts_slice){0});
		oracle_del(bucket, bucket->entries[high - 1]->key);
	}
	assert_int_equal(deleted, expected);
	m->ranges++;
}

void model_rename(struct model *m, struct model_txn *t)
{
	struct bts_slice from = model_name(m), to = model_name(m);
	struct oracle_bucket *bucket = oracle_bucket(&t->view, from);
	enum bts_err err = bts_bucket_rename(t->txn, from, to, NULL);

	assert_int_equal(err, !bucket ? BTS_NOT_FOUND : oracle_bucket(&t->view, to) ? BTS_EXISTS : BTS_OK);
	m->buckets++;
	if (err)
		return;
	model_close_cursors(t, from);
	model_log(&t->ops, MODEL_RENAME, bucket, (struct bts_slice){0}, to);
	oracle_rename(&t->view, from, to, model_stamp(t));
}

static void model_forget(struct model_txn *t, unsigned from)
{
	while (t->mark_count > from)
		oracle_fini(&t->marks[--t->mark_count].view);
}

void model_marks_fini(struct model_txn *t)
{
	model_forget(t, 0);
}

/* Make one, go back to one, or let one go. */
void model_savepoint(struct model *m, struct model_txn *t)
{
	struct model_mark *mark;
	unsigned at;

	m->marks++;
	if (t->mark_count == 0 || (t->mark_count < MODEL_MARKS && rng_one_in(&m->rng, 2))) {
		mark = &t->marks[t->mark_count++];
		assert_int_equal(bts_savepoint(t->txn, &mark->id, NULL), BTS_OK);
		oracle_copy(&mark->view, &t->view);
		mark->ops = t->ops.count;
		mark->extra = t->extra;
		return;
	}
	at = (unsigned)rng_below(&m->rng, t->mark_count);
	mark = &t->marks[at];
	if (rng_one_in(&m->rng, 2)) {
		assert_int_equal(bts_savepoint_release(t->txn, mark->id, NULL), BTS_OK);
		model_forget(t, at);
		return;
	}
	model_close_cursors(t, (struct bts_slice){0});
	assert_int_equal(bts_savepoint_rollback(t->txn, mark->id, NULL), BTS_OK);
	oracle_fini(&t->view);
	oracle_copy(&t->view, &mark->view);
	model_ops_cut(&t->ops, mark->ops);
	t->extra = mark->extra;
	model_forget(t, at + 1);
}
