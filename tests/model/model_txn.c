/* A transaction beside its oracle: see model_txn.h. */
#include "model_txn.h"

#include "cmocka.h"

#define MODEL_NAMES 6
#define MODEL_VALUE_MAX (300u << 10)

static uint8_t model_bytes[MODEL_VALUE_MAX];

struct bts_slice model_name(struct model *m)
{
	static const size_t sizes[MODEL_NAMES] = {1, 2, 8, 60, 254, 255};
	static uint8_t names[MODEL_NAMES][BTS_BUCKET_NAME_MAX];
	unsigned which = (unsigned)rng_below(&m->rng, MODEL_NAMES);

	memset(names[which], 'a' + (int)which, sizeof(names[which]));
	return (struct bts_slice){names[which], sizes[which]};
}

/* Few enough that they meet again, with long common prefixes, as long as a key may be, and some of zeros and
 * 0xff. */
struct bts_slice model_key(struct model *m, uint8_t key[BTS_KEY_MAX])
{
	static const size_t prefixes[] = {0, 0, 0, 0, 0, 3, 17, 200, 1016};
	size_t size = prefixes[rng_below(&m->rng, sizeof(prefixes) / sizeof(*prefixes))];
	uint64_t number = rng_below(&m->rng, size == 0 ? 1500 : 150);

	memset(key, size % 2 ? 'k' : 0xff, size);
	for (unsigned i = 0; i < 8 && size < BTS_KEY_MAX; i++) {
		key[size++] = (uint8_t)(number & 3 ? number & 3 : 0xff);
		number >>= 2;
		if (number == 0)
			break;
	}
	return (struct bts_slice){key, size};
}

static struct bts_slice model_value(struct model *m)
{
	static const unsigned limits[] = {1, 30, 30, 30, 200, 200, 200, 200, 2000, 2000};
	uint64_t dice = rng_below(&m->rng, 1000), limit, size, word;

	if (dice < 960)
		limit = limits[dice % 10];
	else if (dice < 980)
		limit = m->page_size;
	else
		limit = dice < 998 ? 70000 : MODEL_VALUE_MAX;
	size = rng_below(&m->rng, limit);
	if (limit == m->page_size && rng_one_in(&m->rng, 2)) /* around where a value leaves the leaf */
		size = m->page_size / 4 - 40 + rng_below(&m->rng, 60);
	word = rng_next(&m->rng);
	memset(model_bytes, (int)(word & 0xff), size);
	for (uint64_t i = 0; i < size; i += 61)
		model_bytes[i] = (uint8_t)(word >> i % 57);
	return (struct bts_slice){model_bytes, size};
}

static bool model_same(struct bts_slice a, struct bts_slice b)
{
	return oracle_compare(a, b) == 0;
}

void model_log(struct model_ops *ops, enum model_kind kind, const struct oracle_bucket *bucket,
	struct bts_slice key, struct bts_slice value)
{
	struct model_op *op;

	if (ops->count == ops->cap) {
		ops->cap = ops->cap * 2 + 64;
		ops->ops = realloc(ops->ops, ops->cap * sizeof(*ops->ops));
		assert_non_null(ops->ops);
		for (size_t i = 0; i < ops->count; i++)
			ops->ops[i].name.data = ops->ops[i].name_bytes, ops->ops[i].base.data = ops->ops[i].base_bytes;
	}
	op = &ops->ops[ops->count++];
	*op = (struct model_op){
		.kind = kind, .identity = bucket->identity, .name = {NULL, bucket->name.size}};
	memcpy(op->name_bytes, bucket->name.data, bucket->name.size);
	op->name.data = op->name_bytes;
	memcpy(op->base_bytes, bucket->base_bytes, bucket->base.size);
	op->base = (struct bts_slice){op->base_bytes, bucket->base.size};
	op->entry = oracle_entry_new(key, value, 0);
}

void model_ops_cut(struct model_ops *ops, size_t count)
{
	while (ops->count > count)
		oracle_entry_drop(ops->ops[--ops->count].entry);
}

void model_ops_fini(struct model_ops *ops)
{
	model_ops_cut(ops, 0);
	free(ops->ops);
	*ops = (struct model_ops){0};
}

/* Names as they are now are what an operation's bucket is looked for by at the commit. */
static void model_view(struct model_txn *t, const struct oracle *from)
{
	oracle_copy(&t->view, from);
	for (size_t i = 0; i < t->view.count; i++) {
		struct oracle_bucket *bucket = t->view.buckets[i];

		memcpy(bucket->base_bytes, bucket->name_bytes, bucket->name.size);
		bucket->base = (struct bts_slice){bucket->base_bytes, bucket->name.size};
	}
}

void model_begin(struct model *m, struct model_txn *t, unsigned flags)
{
	memset(t, 0, sizeof(*t));
	assert_int_equal(bts_begin(m->db, flags, &t->txn, NULL), BTS_OK);
	model_view(t, &m->now);
	t->snapshot = bts_txn_id(t->txn);
	t->writing = (flags & BTS_WRITE) != 0;
	t->whole_database = (flags & BTS_CONFLICT_DATABASE) != 0;
	assert_int_equal(t->snapshot, m->now.txid);
}

void model_adopt(struct model *m, struct model_txn *t, struct bts_txn *txn, const struct oracle *view)
{
	memset(t, 0, sizeof(*t));
	t->txn = txn;
	model_view(t, view);
	t->snapshot = bts_txn_id(txn);
	t->writing = t->nested = true;
	assert_true(t->snapshot > m->now.txid);
}

bts_txid model_stamp(const struct model_txn *t)
{
	return t->nested ? t->snapshot : 0;
}

void model_close_cursors(struct model_txn *t, struct bts_slice name)
{
	for (unsigned i = 0; i < MODEL_CURSORS; i++) {
		struct model_cursor *c = &t->cursors[i];

		if (c->cursor != NULL && (name.size == 0 || model_same(c->name, name))) {
			bts_cursor_close(c->cursor);
			c->cursor = NULL;
		}
	}
}

static void model_drop(struct model_txn *t, struct bts_slice name)
{
	struct oracle_bucket *bucket = oracle_bucket(&t->view, name);
	enum bts_err err;

	model_close_cursors(t, name);
	err = bts_bucket_drop(t->txn, name, NULL);
	assert_int_equal(err, bucket ? BTS_OK : BTS_NOT_FOUND);
	if (err)
		return;
	model_log(&t->ops, MODEL_DROP, bucket, (struct bts_slice){0}, (struct bts_slice){0});
	oracle_drop(&t->view, name);
}

static void model_step_bucket(struct model *m, struct model_txn *t)
{
	struct bts_slice name = model_name(m), meta = {model_bytes, rng_below(&m->rng, 4) * 85};
	struct oracle_bucket *bucket = oracle_bucket(&t->view, name);
	struct bts_bucket *handle;
	struct bts_error error;

	m->buckets++;
	if (rng_one_in(&m->rng, 4)) {
		model_drop(t, name);
		while (rng_one_in(&m->rng, 20) && t->view.count > 0) /* none left: the catalog is empty too */
			for (size_t n = t->view.count; n > 0; n--)
				model_drop(t, t->view.buckets[0]->name);
		return;
	}
	assert_int_equal(bts_bucket(t->txn, name, BTS_CREATE, &handle, &error), BTS_OK);
	if (!bucket) {
		bucket = oracle_create(&t->view, name, model_stamp(t), 0);
		model_log(&t->ops, MODEL_CREATE, bucket, (struct bts_slice){0}, (struct bts_slice){0});
	}
	if (rng_one_in(&m->rng, 3))
		return;
	memset(model_bytes, (int)rng_below(&m->rng, 3), meta.size);
	assert_int_equal(bts_bucket_set_meta(t->txn, handle, meta), BTS_OK);
	if (model_same(meta, (struct bts_slice){bucket->meta, bucket->meta_size}))
		return;
	memcpy(bucket->meta, meta.data, meta.size);
	bucket->meta_size = meta.size;
	bucket->version = model_stamp(t);
	model_log(&t->ops, MODEL_META, bucket, (struct bts_slice){0}, meta);
}

static void model_put(
	struct model *m, struct model_txn *t, struct oracle_bucket *bucket, struct bts_bucket *handle)
{
	uint8_t bytes[BTS_KEY_MAX];
	struct bts_slice key = model_key(m, bytes), value = model_value(m);
	const struct oracle_entry *old = oracle_get(bucket, key);
	unsigned flags = rng_one_in(&m->rng, 5) ? BTS_PUT_NEW : rng_one_in(&m->rng, 5) ? BTS_PUT_EXISTING : 0;
	enum bts_err err = bts_put(t->txn, handle, key, value, flags);

	m->puts++;
	if (old && flags == BTS_PUT_NEW) {
		assert_int_equal(err, BTS_EXISTS);
	} else if (!old && flags == BTS_PUT_EXISTING) {
		assert_int_equal(err, BTS_NOT_FOUND);
	} else {
		assert_int_equal(err, BTS_OK);
		oracle_put(bucket, key, value, model_stamp(t));
		model_log(&t->ops, MODEL_PUT, bucket, key, value);
	}
}

static void model_del(
	struct model *m, struct model_txn *t, struct oracle_bucket *bucket, struct bts_bucket *handle)
{
	uint8_t bytes[BTS_KEY_MAX];
	struct bts_slice key = model_key(m, bytes);
	bool there;

	m->dels++;
	if (bucket->count && rng_one_in(&m->rng, 2)) { /* one that is there */
		const struct oracle_entry *entry = bucket->entries[rng_below(&m->rng, bucket->count)];

		memcpy(bytes, entry->key.data, entry->key.size);
		key = (struct bts_slice){bytes, entry->key.size};
	}
	there = oracle_get(bucket, key) != NULL;
	assert_int_equal(bts_del(t->txn, handle, key), there ? BTS_OK : BTS_NOT_FOUND);
	if (!there)
		return;
	oracle_del(bucket, key);
	model_log(&t->ops, MODEL_DEL, bucket, key, (struct bts_slice){0});
}

static void model_get(
	struct model *m, struct model_txn *t, const struct oracle_bucket *bucket, struct bts_bucket *handle)
{
	uint8_t bytes[BTS_KEY_MAX];
	struct bts_slice key = model_key(m, bytes), value;
	const struct oracle_entry *entry = oracle_get(bucket, key);
	bts_txid version;
	enum bts_err err = bts_get_version(t->txn, handle, key, &value, &version);

	m->gets++;
	assert_int_equal(err, entry ? BTS_OK : BTS_NOT_FOUND);
	if (!entry)
		return;
	assert_true(model_same(value, entry->value));
	assert_int_equal(version, entry->version);
}

static void model_cursor_expect(struct model *m, struct model_cursor *c, enum bts_err err,
	const struct oracle_entry *entry, struct bts_slice key, struct bts_slice value)
{
	m->steps++;
	assert_int_equal(err, entry ? BTS_OK : BTS_NOT_FOUND);
	if (!entry)
		return;
	assert_true(model_same(key, entry->key));
	assert_true(model_same(value, entry->value));
	assert_int_equal(bts_cursor_version(c->cursor), entry->version);
	memcpy(c->key, key.data, key.size);
	c->key_size = key.size;
	c->placed = true;
}

/* next is the first key above the place, prev the last below it, whatever happened to the entry there. */
static void model_cursor_step(struct model *m, struct model_cursor *c, const struct oracle_bucket *bucket)
{
	struct bts_slice key = {0}, value = {0}, place = {c->key, c->key_size};
	uint64_t dice = rng_below(&m->rng, 20);
	size_t at, last = bucket->count - 1; /* wraps when empty: then never an index */
	uint8_t bytes[BTS_KEY_MAX];
	bool exact = false;
	enum bts_err err;

	if (dice == 0) {
		struct bts_slice to = model_key(m, bytes);

		at = oracle_at(bucket, to, &exact);
		err = bts_cursor_seek(c->cursor, to, &key, &value);
		memcpy(c->key, to.data, to.size);
		c->key_size = to.size;
		/* Not placed in a tree without nodes: then next and prev begin at an end, with the same
		 * outcome or none. */
		c->placed = bucket->count > 0;
	} else if (dice == 1 || (dice >= 3 && dice < 12 && !c->placed)) {
		at = 0;
		err = dice == 1 ? bts_cursor_first(c->cursor, &key, &value)
				: bts_cursor_next(c->cursor, &key, &value);
	} else if (dice == 2 || !c->placed) {
		at = last;
		err = dice == 2 ? bts_cursor_last(c->cursor, &key, &value)
				: bts_cursor_prev(c->cursor, &key, &value);
	} else if (dice < 12) {
		at = oracle_at(bucket, place, &exact);
		at += exact;
		err = bts_cursor_next(c->cursor, &key, &value);
	} else {
		at = oracle_at(bucket, place, &exact) - 1;
		err = bts_cursor_prev(c->cursor, &key, &value);
	}
	model_cursor_expect(m, c, err, at < bucket->count ? bucket->entries[at] : NULL, key, value);
	if (bucket->count == 0) /* where it stands in nothing is not promised */
		model_cursor_expect(m, c, bts_cursor_first(c->cursor, &key, &value), NULL, key, value),
			c->placed = false;
}

static void model_step_cursor(struct model *m, struct model_txn *t)
{
	struct model_cursor *c = &t->cursors[rng_below(&m->rng, MODEL_CURSORS)];
	struct oracle_bucket *bucket;
	struct bts_bucket *handle;

	if (c->cursor != NULL && rng_one_in(&m->rng, 50)) {
		bts_cursor_close(c->cursor);
		c->cursor = NULL;
	}
	if (c->cursor == NULL) {
		bucket = oracle_bucket(&t->view, model_name(m));
		if (bucket == NULL)
			return;
		memset(c, 0, sizeof(*c));
		memcpy(c->name_bytes, bucket->name.data, bucket->name.size);
		c->name = (struct bts_slice){c->name_bytes, bucket->name.size};
		assert_int_equal(bts_bucket(t->txn, c->name, 0, &handle, NULL), BTS_OK);
		assert_int_equal(bts_cursor_open(t->txn, handle, &c->cursor, NULL), BTS_OK);
	}
	bucket = oracle_bucket(&t->view, c->name);
	assert_non_null(bucket);
	for (uint64_t n = rng_below(&m->rng, 8); n > 0; n--)
		model_cursor_step(m, c, bucket);
}

static void model_step_list(struct model *m, struct model_txn *t)
{
	struct bts_slice after = rng_one_in(&m->rng, 3) ? (struct bts_slice){0} : model_name(m);
	const struct oracle_bucket *bucket = after.size	     ? oracle_bucket_after(&t->view, after)
					     : t->view.count ? t->view.buckets[0]
							     : NULL;
	struct bts_bucket_info info;
	enum bts_err err = bts_bucket_next(t->txn, after, &info);

	m->buckets++;
	assert_int_equal(err, bucket ? BTS_OK : BTS_NOT_FOUND);
	if (!bucket)
		return;
	assert_true(model_same(info.name, bucket->name));
	assert_true(model_same(info.meta, (struct bts_slice){bucket->meta, bucket->meta_size}));
	assert_int_equal(info.entries, bucket->count);
	if (bucket->version)
		assert_int_equal(info.version, bucket->version);
}

void model_step(struct model *m, struct model_txn *t)
{
	uint64_t dice = rng_below(&m->rng, 200);
	struct bts_slice name = model_name(m);
	struct oracle_bucket *bucket = oracle_bucket(&t->view, name);
	struct bts_bucket *handle;
	struct bts_error error;

	if (t->writing && (dice == 199 || dice == 198)) {
		model_savepoint(m, t);
		return;
	}
	if (t->writing && dice == 197) {
		model_rename(m, t);
		return;
	}
	if (dice < 3 && t->writing) {
		model_step_bucket(m, t);
		return;
	}
	if (dice < 6) {
		model_step_list(m, t);
		return;
	}
	if (dice < 60) {
		model_step_cursor(m, t);
		return;
	}
	assert_int_equal(bts_bucket(t->txn, name, 0, &handle, &error), bucket ? BTS_OK : BTS_NOT_FOUND);
	if (!bucket)
		return;
	if (dice < 100 || !t->writing)
		model_get(m, t, bucket, handle);
	else if (dice < 155)
		model_put(m, t, bucket, handle);
	else if (dice < 158)
		model_range(m, t, bucket, handle);
	else
		model_del(m, t, bucket, handle);
}

static bool model_within(struct bts_slice key, const struct oracle_entry *range)
{
	return (range->key.size == 0 || oracle_compare(key, range->key) >= 0) &&
	       (range->value.size == 0 || oracle_compare(key, range->value) < 0);
}

/* Did somebody else touch what op touches since the snapshot?  *may: it could be told from its neighbours
 * only. */
bool model_clash(
	const struct model *m, const struct model_txn *t, const struct model_op *op, bool *may)
{
	const struct oracle_bucket *bucket = oracle_bucket(&m->now, op->identity ? op->base : op->name);
	const struct oracle_bucket *target = oracle_bucket(&m->now, op->entry->value);
	bool absent;

	if (op->kind == MODEL_RENAME && target && target->version > t->snapshot)
		return true;
	if (op->identity == 0)
		return bucket && bucket->version > t->snapshot;
	if (!bucket || bucket->identity != op->identity)
		return true;
	if (op->kind == MODEL_META || op->kind == MODEL_RENAME)
		return bucket->version > t->snapshot;
	if (op->kind == MODEL_DROP && bucket->version > t->snapshot)
		return true;
	absent = op->kind != MODEL_DROP && !oracle_get(bucket, op->entry->key);
	for (size_t i = m->log.count; i-- > 0 && m->log.ops[i].txid > t->snapshot;) {
		const struct model_op *other = &m->log.ops[i];

		if (other->identity != op->identity || other->kind > MODEL_DEL)
			continue;
		if (op->kind == MODEL_RANGE) {
			if (model_within(other->entry->key, op->entry))
				return true;
			*may |= other->kind == MODEL_DEL;
			continue;
		}
		if (op->kind == MODEL_DROP || model_same(other->entry->key, op->entry->key))
			return true;
		*may |= absent && other->kind == MODEL_DEL;
	}
	return false;
}

/* What t did, done to the state of all. */
void model_apply(struct model *m, const struct model_ops *ops, struct oracle *o, bts_txid txid)
{
	for (size_t i = 0; i < ops->count; i++) {
		const struct model_op *op = &ops->ops[i];
		struct oracle_bucket *bucket = oracle_bucket(o, op->name);

		if (op->kind == MODEL_CREATE)
			bucket = oracle_create(o, op->name, txid, ++m->identities);
		model_log(&m->log, op->kind, bucket, op->entry->key, (struct bts_slice){0});
		m->log.ops[m->log.count - 1].txid = txid;
		if (op->kind == MODEL_PUT)
			oracle_put(bucket, op->entry->key, op->entry->value, txid);
		if (op->kind == MODEL_DEL)
			assert_true(oracle_del(bucket, op->entry->key));
		if (op->kind == MODEL_DROP)
			oracle_drop(o, op->name);
		if (op->kind == MODEL_RENAME)
			oracle_rename(o, op->name, op->entry->value, txid);
		if (op->kind == MODEL_META) {
			bucket->meta_size = op->entry->value.size;
			memcpy(bucket->meta, op->entry->value.data, bucket->meta_size);
			bucket->version = txid;
		}
	}
}

void model_end(struct model_txn *t)
{
	model_marks_fini(t);
	oracle_fini(&t->view);
	model_ops_fini(&t->ops);
	memset(t, 0, sizeof(*t));
}

void model_commit(struct model *m, struct model_txn *t)
{
	bool must = t->ops.count > 0 && t->whole_database && m->now.txid > t->snapshot, may = false;
	struct bts_error error = {0};
	bts_txid txid = 0;
	enum bts_err err;

	for (size_t i = 0; i < t->ops.count && !must; i++)
		must = model_clash(m, t, &t->ops.ops[i], &may);
	if (rng_one_in(&m->rng, 2))
		model_close_cursors(t, (struct bts_slice){0});
	err = bts_commit_id(t->txn, &txid, &error);
	if (err == BTS_CONFLICT && (must || may)) {
		m->conflicts++;
		assert_non_null(strstr(error.text, t->whole_database ? "transaction" : "bucket"));
		assert_int_equal(bts_refresh(t->txn, &error), BTS_OK);
		assert_int_equal(bts_txn_id(t->txn), m->now.txid);
		bts_abort(t->txn);
		model_end(t);
		return;
	}
	if (err)
		fail_msg("commit: %s: %s", bts_err_name(err), error.text);
	assert_false(must);
	if (t->ops.count == 0) {
		assert_int_equal(txid, t->snapshot);
	} else {
		assert_true(txid > m->now.txid);
		model_apply(m, &t->ops, &m->now, txid);
		m->now.txid = txid;
		m->commits++;
	}
	model_end(t);
}

void model_keep(struct model *m, struct model_txn *t, struct oracle *view)
{
	bts_txid txid;

	assert_int_equal(bts_commit_id(t->txn, &txid, NULL), BTS_OK);
	if (t->ops.count > 0) {
		assert_int_equal(txid, t->snapshot);
		model_apply(m, &t->ops, view, txid);
		view->txid = txid;
		m->commits++;
	} else {
		assert_int_equal(txid, view->txid);
	}
	model_end(t);
}

void model_abort(struct model_txn *t)
{
	bts_abort(t->txn);
	model_end(t);
}
