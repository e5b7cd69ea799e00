/*
 * Everything at once against the naive oracle: savepoints, ranges, renaming, bulk loads, streamed values, named
 * snapshots, serializable reads, groups, compaction and failing allocations, mixed in transactions of several
 * handles that conflict and are replayed; after each commit the file is checked, from time to time a follower
 * gets a frame of all that, the file is opened again, or opened from what a power loss would leave.
 *
 * Arguments: seed, rounds.
 */
#include "apply_bed.h"
#include "model_txn.h"

#include <errno.h>

#define HANDLES 3
#define WRITERS 4
#define NAMES 5 /* of snapshots */
#define EXTRAS 32
#define READS 16
#define STREAMED 90000u

enum extra_kind { EXTRA_CREATE, EXTRA_DELETE, EXTRA_STREAM };

struct extra { /* what a transaction did that the model does not know; a rollback cuts the list */
	enum extra_kind kind;
	unsigned which;
	uint64_t serial;
};

struct seen { /* a key that a serializable transaction has read */
	uint64_t identity;
	struct bts_slice bucket, key;
	uint8_t bucket_bytes[BTS_BUCKET_NAME_MAX], key_bytes[BTS_KEY_MAX];
	bts_txid version; /* 0: absent */
};

struct writer {
	struct model_txn t;
	unsigned handle;
	bool serializable;
	unsigned most; /* steps between two looks at it: short ones often pass by each other */
	struct extra extras[EXTRAS];
	bool names[NAMES]; /* at the snapshot */
	struct seen seen[READS];
	unsigned seen_count;
	struct bts_stream *stream;
	uint64_t stream_serial;
	size_t stream_at, stream_size, stream_done;
	bool stream_known;
	struct bts_slice stream_key;
	uint8_t stream_bytes[BTS_KEY_MAX], stream_fill;
};

struct named {
	bool there;
	bts_txid txid, changed; /* of its state; of its newest creation or deletion */
	struct oracle state;
};

struct mixed {
	struct model m;
	struct env_mem *mem;
	uint32_t page_size;
	struct bts *handles[HANDLES], *follower;
	struct writer writers[WRITERS];
	struct named named[NAMES];
	bts_txid deleted, moved; /* newest deletion of any name; newest compaction */
	uint64_t serial, loads, streams, snaps, groups, replays, conflicts, faults, ships, moves;
};

static uint64_t seed;
static unsigned rounds = 1200;
static uint8_t value_bytes[STREAMED];

static struct rng *dice(struct mixed *x)
{
	return &x->m.rng;
}

static struct bts_slice snap_name(unsigned which, char text[8])
{
	return (struct bts_slice){text, (size_t)snprintf(text, 8, "s%u", which)};
}

static struct bts *mixed_open(struct mixed *x, struct bts_env *env, unsigned handle)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	bts_options_init(&options);
	options.env = env;
	options.page_size = x->page_size;
	options.map_bytes = UINT64_C(256) << 20;
	options.txn_memory = handle == 1 ? 128 << 10 : 0; /* one spills */
	if (bts_open("/p", &options, &db, &error))
		fail_msg("open: %s", error.text);
	return db;
}

/* A failing allocation, now and then; the end of that, and whether it was met. */
static void fault_begin(struct mixed *x)
{
	if (rng_one_in(dice(x), 6))
		env_mem_fail_memory(x->mem, 1 + rng_below(dice(x), 12), rng_one_in(dice(x), 3) ? ENV_MEM_STICKY : 0);
}

static bool fault_end(struct mixed *x, enum bts_err err)
{
	env_mem_fail_clear(x->mem);
	x->faults += err == BTS_MEMORY || err == BTS_FULL;
	return err == BTS_MEMORY || err == BTS_FULL;
}

static struct oracle_bucket *some_bucket(struct mixed *x, struct writer *w, struct bts_bucket **handle)
{
	struct oracle_bucket *bucket = oracle_bucket(&w->t.view, model_name(&x->m));

	if (bucket)
		assert_int_equal(bts_bucket(w->t.txn, bucket->name, 0, handle, NULL), BTS_OK);
	return bucket;
}

static void note_put(struct writer *w, struct oracle_bucket *bucket, struct bts_slice key, struct bts_slice value)
{
	oracle_put(bucket, key, value, model_stamp(&w->t));
	model_log(&w->t.ops, MODEL_PUT, bucket, key, value);
}

static struct extra *extra_add(struct mixed *x, struct writer *w, enum extra_kind kind, unsigned which)
{
	struct extra *extra = &w->extras[w->t.extra++];

	*extra = (struct extra){kind, which, ++x->serial};
	return extra;
}

static bool name_there(const struct writer *w, unsigned which)
{
	bool there = w->names[which];

	for (size_t i = 0; i < w->t.extra; i++)
		if (w->extras[i].which == which && w->extras[i].kind != EXTRA_STREAM)
			there = w->extras[i].kind == EXTRA_CREATE;
	return there;
}

static void step_snapshot(struct mixed *x, struct writer *w)
{
	unsigned which = (unsigned)rng_below(dice(x), NAMES);
	bool there = name_there(w, which), create = rng_one_in(dice(x), 2);
	char text[8];
	struct bts_slice name = snap_name(which, text);
	enum bts_err err;

	if (w->t.extra == EXTRAS)
		return;
	fault_begin(x);
	err = create ? bts_snapshot_create(w->t.txn, name, NULL) : bts_snapshot_delete(w->t.txn, name, NULL);
	if (fault_end(x, err))
		return;
	assert_int_equal(err, create ? there ? BTS_EXISTS : BTS_OK : there ? BTS_OK : BTS_NOT_FOUND);
	if (err == BTS_OK)
		extra_add(x, w, create ? EXTRA_CREATE : EXTRA_DELETE, which);
	x->snaps += err == BTS_OK;
}

static void step_names(struct mixed *x, struct writer *w)
{
	struct bts_snapshot_info info;
	struct bts_slice after = {0};
	char text[8];

	(void)x;
	for (unsigned i = 0; i < NAMES; i++) {
		if (!name_there(w, i))
			continue;
		assert_int_equal(bts_snapshot_next(w->t.txn, after, &info), BTS_OK);
		after = snap_name(i, text);
		assert_int_equal(oracle_compare(info.name, after), 0);
	}
	assert_int_equal(bts_snapshot_next(w->t.txn, after, &info), BTS_NOT_FOUND);
}

static int order_slices(const void *a, const void *b)
{
	return oracle_compare(*(const struct bts_slice *)a, *(const struct bts_slice *)b);
}

/* Sorted keys behind `from`, which nothing is behind any more. */
static void load_fill(struct mixed *x, struct writer *w, struct oracle_bucket *bucket, struct bts_load *load,
	struct bts_bucket *handle, struct bts_slice from)
{
	static uint8_t bytes[200][BTS_KEY_MAX];
	struct bts_slice keys[200], last = from;
	size_t count = rng_below(dice(x), 200);
	bool wanted = !rng_one_in(dice(x), 5), done[200] = {false};
	static struct bts_slice values[200];
	static uint8_t sizes[200][2];
	enum bts_err err;

	for (size_t i = 0; i < count; i++)
		keys[i] = model_key(&x->m, bytes[i]);
	qsort(keys, count, sizeof(*keys), order_slices);
	for (size_t i = 0; i < count; i++) {
		values[i] = (struct bts_slice){value_bytes, rng_one_in(dice(x), 25) ? 20000 : rng_below(dice(x), 300)};
		sizes[i][0] = (uint8_t)rng_next(dice(x));
		memset(value_bytes, sizes[i][0], values[i].size);
		fault_begin(x);
		err = bts_load_add(load, keys[i], values[i]);
		if (fault_end(x, err))
			continue;
		if (last.size && oracle_compare(keys[i], last) <= 0) {
			assert_int_equal(err, BTS_INVALID);
			continue;
		}
		assert_int_equal(err, BTS_OK);
		done[i] = true;
		last = keys[i];
		if (rng_one_in(dice(x), 50))
			assert_int_equal(bts_put(w->t.txn, handle, keys[0], values[i], 0), BTS_INVALID);
	}
	if (!wanted) {
		bts_load_abort(load);
		return;
	}
	fault_begin(x);
	err = bts_load_end(load, NULL);
	if (fault_end(x, err))
		return;
	assert_int_equal(err, BTS_OK);
	for (size_t i = 0; i < count; i++)
		if (done[i]) {
			memset(value_bytes, sizes[i][0], values[i].size);
			note_put(w, bucket, keys[i], values[i]);
		}
	x->loads++;
}

/* Cut the end off a bucket, then load there. */
static void step_load(struct mixed *x, struct writer *w)
{
	uint8_t bytes[BTS_KEY_MAX];
	struct bts_slice from = model_key(&x->m, bytes);
	uint64_t deleted = 0, expected = 0;
	struct bts_bucket *handle;
	struct oracle_bucket *bucket = some_bucket(x, w, &handle);
	struct bts_load *load;
	enum bts_err err;
	bool exact;

	if (!bucket)
		return;
	fault_begin(x);
	err = bts_del_range(w->t.txn, handle, from, (struct bts_slice){0}, &deleted);
	if (fault_end(x, err))
		return;
	assert_int_equal(err, BTS_OK);
	if (oracle_at(bucket, from, &exact) < bucket->count)
		model_log(&w->t.ops, MODEL_RANGE, bucket, from, (struct bts_slice){0});
	for (size_t low = oracle_at(bucket, from, &exact); bucket->count > low; expected++) {
		const struct oracle_entry *last = bucket->entries[bucket->count - 1];
		struct bts_slice key = last->key;

		model_log(&w->t.ops, MODEL_DEL, bucket, key, (struct bts_slice){0});
		oracle_del(bucket, w->t.ops.ops[w->t.ops.count - 1].entry->key);
	}
	assert_int_equal(deleted, expected);
	fault_begin(x);
	err = bts_load_begin(w->t.txn, handle, rng_one_in(dice(x), 2) ? 0 : 50 + (unsigned)rng_below(dice(x), 51), &load, NULL);
	if (fault_end(x, err))
		return;
	assert_int_equal(err, BTS_OK);
	if (bucket->count) {
		from = bucket->entries[bucket->count - 1]->key;
		memcpy(bytes, from.data, from.size);
		from = (struct bts_slice){bytes, from.size};
	} else {
		from.size = 0;
	}
	load_fill(x, w, bucket, load, handle, from);
}

static bool stream_lives(const struct writer *w)
{
	return w->stream_at < w->t.extra && w->extras[w->stream_at].serial == w->stream_serial;
}

static void stream_begin(struct mixed *x, struct writer *w)
{
	struct bts_bucket *handle;
	enum bts_err err;

	if (w->t.extra == EXTRAS)
		return;
	if (!oracle_bucket(&w->t.view, (struct bts_slice){"s", 1})) {
		struct oracle_bucket *bucket;

		assert_int_equal(bts_bucket(w->t.txn, (struct bts_slice){"s", 1}, BTS_CREATE, &handle, NULL), BTS_OK);
		bucket = oracle_create(&w->t.view, (struct bts_slice){"s", 1}, model_stamp(&w->t), 0);
		model_log(&w->t.ops, MODEL_CREATE, bucket, (struct bts_slice){0}, (struct bts_slice){0});
		return; /* a savepoint between would drop the stream's bucket */
	}
	if (oracle_bucket(&w->t.view, (struct bts_slice){"s", 1})->identity == 0)
		return;
	assert_int_equal(bts_bucket(w->t.txn, (struct bts_slice){"s", 1}, 0, &handle, NULL), BTS_OK);
	w->stream_key = model_key(&x->m, w->stream_bytes);
	w->stream_size = rng_below(dice(x), rng_one_in(dice(x), 3) ? 300 : STREAMED);
	w->stream_done = 0;
	w->stream_known = rng_one_in(dice(x), 2);
	w->stream_fill = (uint8_t)rng_next(dice(x));
	fault_begin(x);
	err = bts_put_begin(w->t.txn, handle, w->stream_key, w->stream_known ? w->stream_size : BTS_SIZE_UNKNOWN, 0,
		&w->stream, NULL);
	if (fault_end(x, err)) {
		w->stream = NULL;
		return;
	}
	assert_int_equal(err, BTS_OK);
	w->stream_at = w->t.extra;
	w->stream_serial = extra_add(x, w, EXTRA_STREAM, 0)->serial;
}

static void stream_end(struct mixed *x, struct writer *w)
{
	bool lives = stream_lives(w), whole = w->stream_done == w->stream_size || !w->stream_known;
	struct oracle_bucket *bucket = oracle_bucket(&w->t.view, (struct bts_slice){"s", 1});
	struct bts_stream *stream = w->stream;
	enum bts_err err;

	w->stream = NULL;
	if (rng_one_in(dice(x), 8)) {
		bts_put_abort(stream);
		return;
	}
	fault_begin(x);
	err = bts_put_end(stream, NULL);
	if (fault_end(x, err))
		return;
	assert_int_equal(err, lives && whole && bucket ? BTS_OK : BTS_INVALID);
	if (err)
		return;
	memset(value_bytes, w->stream_fill, w->stream_done);
	note_put(w, bucket, w->stream_key, (struct bts_slice){value_bytes, w->stream_done});
	x->streams++;
}

static void step_stream(struct mixed *x, struct writer *w)
{
	size_t piece;
	enum bts_err err;

	if (!w->stream) {
		stream_begin(x, w);
		return;
	}
	piece = rng_below(dice(x), w->stream_size - w->stream_done + 1);
	if (rng_one_in(dice(x), 3))
		piece = w->stream_size - w->stream_done;
	memset(value_bytes, w->stream_fill, piece);
	fault_begin(x);
	err = bts_put_write(w->stream, (struct bts_slice){value_bytes, piece});
	if (!fault_end(x, err)) {
		assert_int_equal(err, stream_lives(w) ? BTS_OK : BTS_INVALID);
		w->stream_done += err ? 0 : piece;
	}
	if (rng_one_in(dice(x), 3))
		stream_end(x, w);
}

/* A key read before anything else was done in its bucket is what the commit must find again. */
static void step_read(struct mixed *x, struct writer *w)
{
	struct seen *seen = &w->seen[w->seen_count];
	struct bts_bucket *handle;
	struct oracle_bucket *bucket = some_bucket(x, w, &handle);
	struct bts_slice value;
	bts_txid version;
	enum bts_err err;

	if (!bucket || !bucket->identity || !w->serializable || w->seen_count == READS)
		return;
	seen->key = model_key(&x->m, seen->key_bytes);
	err = bts_get_version(w->t.txn, handle, seen->key, &value, &version);
	if (err == BTS_OK && version == 0)
		return; /* its own */
	for (size_t i = 0; i < w->t.ops.count; i++)
		if (w->t.ops.ops[i].identity == bucket->identity)
			return; /* perhaps deleted by itself */
	assert_true(err == BTS_OK || err == BTS_NOT_FOUND);
	seen->version = err ? 0 : version;
	seen->identity = bucket->identity;
	memcpy(seen->bucket_bytes, bucket->base.data, bucket->base.size);
	seen->bucket = (struct bts_slice){seen->bucket_bytes, bucket->base.size};
	w->seen_count++;
}

static void step(struct mixed *x, struct writer *w)
{
	uint64_t n = rng_below(dice(x), 60);

	if (n < 2)
		step_load(x, w);
	else if (n < 5)
		step_snapshot(x, w);
	else if (n < 6)
		step_names(x, w);
	else if (n < 10)
		step_stream(x, w);
	else if (n < 13)
		step_read(x, w);
	else if (n < 14 && w->t.extra < EXTRAS)
		model_savepoint(&x->m, &w->t);
	else
		model_step(&x->m, &w->t);
}

static void writer_names(struct mixed *x, struct writer *w)
{
	for (unsigned i = 0; i < NAMES; i++)
		w->names[i] = x->named[i].there;
}

static void writer_begin(struct mixed *x, struct writer *w, unsigned flags)
{

	memset(w, 0, sizeof(*w));
	w->handle = (unsigned)rng_below(dice(x), HANDLES);
	w->serializable = rng_one_in(dice(x), 3);
	w->most = rng_one_in(dice(x), 3) ? 60 : 3;
	if (w->serializable)
		flags |= BTS_SERIALIZABLE;
	if (rng_one_in(dice(x), 12))
		flags |= BTS_CONFLICT_DATABASE;
	x->m.db = x->handles[w->handle];
	model_begin(&x->m, &w->t, flags);
	writer_names(x, w);
}

static void writer_abort(struct writer *w)
{
	if (w->t.txn)
		model_abort(&w->t);
	w->stream = NULL;
}

static bool writer_changed(const struct writer *w)
{
	for (size_t i = 0; i < w->t.extra; i++)
		if (w->extras[i].kind != EXTRA_STREAM)
			return true;
	return w->t.ops.count > 0;
}

static bool seen_differs(const struct mixed *x, const struct seen *seen)
{
	const struct oracle_bucket *bucket = oracle_bucket(&x->m.now, seen->bucket);
	const struct oracle_entry *entry = bucket ? oracle_get(bucket, seen->key) : NULL;

	return !bucket || bucket->identity != seen->identity || (entry ? entry->version : 0) != seen->version;
}

/* Must it conflict, and may it? */
static bool writer_clash(struct mixed *x, struct writer *w, bool *may)
{
	bts_txid snapshot = w->t.snapshot;
	bool must = w->t.whole_database && x->m.now.txid > snapshot;

	*may = w->serializable && x->m.now.txid > snapshot;
	for (size_t i = 0; i < w->t.ops.count && !must; i++) {
		*may |= w->t.ops.ops[i].kind == MODEL_DROP && x->moved > snapshot;
		must = model_clash(&x->m, &w->t, &w->t.ops.ops[i], may);
	}
	for (size_t i = 0; i < w->t.extra; i++) {
		const struct extra *extra = &w->extras[i];

		if (extra->kind == EXTRA_STREAM)
			continue;
		must |= x->named[extra->which].changed > snapshot;
		*may |= extra->kind == EXTRA_CREATE && x->deleted > snapshot;
	}
	for (unsigned i = 0; i < w->seen_count; i++)
		must |= seen_differs(x, &w->seen[i]);
	return must;
}

/* Names that w has created are of the state after the batch, which is now. */
static void names_apply(struct mixed *x, const struct writer *w, bts_txid version)
{
	for (size_t i = 0; i < w->t.extra; i++) {
		struct named *named = &x->named[w->extras[i].which];

		if (w->extras[i].kind == EXTRA_STREAM)
			continue;
		if (named->there)
			oracle_fini(&named->state);
		named->there = w->extras[i].kind == EXTRA_CREATE;
		named->changed = version;
		named->txid = 0;
		memset(&named->state, 0, sizeof(named->state));
		if (!named->there)
			x->deleted = version;
	}
}

static void names_settle(struct mixed *x)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (x->named[i].there && x->named[i].txid == 0) {
			oracle_copy(&x->named[i].state, &x->m.now);
			x->named[i].txid = x->m.now.txid;
		}
}

static void mixed_check(struct mixed *x)
{
	bed_assert_clean(x->handles[rng_below(dice(x), HANDLES)]);
}

static void writer_commit(struct mixed *x, struct writer *w)
{
	bool may, changed = writer_changed(w), must = writer_clash(x, w, &may) && changed;
	bool raced = x->m.now.txid > w->t.snapshot;
	struct bts_error error = {0};
	bts_txid txid = 0;
	enum bts_err err;

	w->stream = NULL;
	fault_begin(x);
	if (rng_one_in(dice(x), 12)) /* of a page: the first write of a commit */
		env_mem_fail(x->mem, ENV_MEM_WRITE, 1, ENOSPC, 0);
	err = bts_commit_id(w->t.txn, &txid, &error);
	if (fault_end(x, err)) {
		model_end(&w->t);
		mixed_check(x);
		return;
	}
	if (err == BTS_CONFLICT && (must || may)) {
		x->conflicts++;
		assert_true(bts_conflict_winner(w->t.txn) <= x->m.now.txid);
		model_abort(&w->t);
		return;
	}
	if (err)
		fail_msg("commit: %s: %s", bts_err_name(err), error.text);
	assert_false(must);
	if (!changed) {
		assert_int_equal(txid, w->t.snapshot);
	} else {
		assert_true(txid > x->m.now.txid);
		model_apply(&x->m, &w->t.ops, &x->m.now, txid);
		x->m.now.txid = txid;
		names_apply(x, w, txid);
		names_settle(x);
		x->m.commits++;
		x->replays += raced;
	}
	model_end(&w->t);
	mixed_check(x);
}

static void step_group(struct mixed *x)
{
	struct bts *db = x->handles[rng_below(dice(x), HANDLES)];
	struct writer *w = calloc(1, sizeof(*w));
	struct bts_group *group;
	struct bts_txn *txn;
	bts_txid txid;

	assert_non_null(w);
	assert_int_equal(bts_group_begin(db, &group, NULL), BTS_OK);
	for (unsigned n = 1 + (unsigned)rng_below(dice(x), 4); n > 0; n--) {
		bool changed;

		memset(w, 0, sizeof(*w));
		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		model_adopt(&x->m, &w->t, txn, &x->m.now);
		writer_names(x, w);
		for (unsigned i = (unsigned)rng_below(dice(x), 60); i > 0; i--)
			step(x, w);
		if (rng_one_in(dice(x), 3)) {
			writer_abort(w);
			continue;
		}
		changed = writer_changed(w);
		assert_int_equal(bts_commit_id(txn, &txid, NULL), BTS_OK);
		if (changed) {
			assert_int_equal(txid, w->t.snapshot);
			model_apply(&x->m, &w->t.ops, &x->m.now, txid);
			x->m.now.txid = txid;
			names_apply(x, w, txid);
		}
		model_end(&w->t);
	}
	assert_int_equal(bts_group_commit(group, NULL), BTS_OK);
	names_settle(x);
	x->groups++;
	mixed_check(x);
	free(w);
}

/* Nobody else commits meanwhile. */
static void step_alone(struct mixed *x)
{
	struct writer *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	writer_begin(x, w, BTS_WRITE | BTS_EXCLUSIVE);
	for (unsigned i = (unsigned)rng_below(dice(x), 60); i > 0; i--)
		step(x, w);
	if (rng_one_in(dice(x), 3))
		writer_abort(w);
	else
		writer_commit(x, w);
	free(w);
}

static void verify_names(struct mixed *x, struct bts *db)
{
	char text[8];
	struct bts_txn *txn;

	for (unsigned i = 0; i < NAMES; i++) {
		enum bts_err err = bts_begin_at(db, snap_name(i, text), &txn, NULL);

		assert_int_equal(err, x->named[i].there ? BTS_OK : BTS_NOT_FOUND);
		if (err)
			continue;
		assert_int_equal(bts_txn_id(txn), x->named[i].txid);
		oracle_verify(txn, &x->named[i].state);
		bts_abort(txn);
	}
}

static void verify(struct mixed *x, struct bts *db)
{
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	oracle_verify(txn, &x->m.now);
	bts_abort(txn);
	verify_names(x, db);
}

static void quiet(struct mixed *x, unsigned handle)
{
	for (unsigned i = 0; i < WRITERS; i++)
		if (x->writers[i].t.txn && (handle == HANDLES || x->writers[i].handle == handle))
			writer_abort(&x->writers[i]);
}

static void reopen(struct mixed *x)
{
	unsigned one = (unsigned)rng_below(dice(x), HANDLES + 1);

	quiet(x, one);
	for (unsigned i = 0; i < HANDLES; i++)
		if (one == i || one == HANDLES)
			bts_close(x->handles[i]);
	for (unsigned i = 0; i < HANDLES; i++)
		if (one == i || one == HANDLES)
			x->handles[i] = mixed_open(x, env_mem_env(x->mem), i);
	if (one == HANDLES)
		model_ops_fini(&x->m.log);
	verify(x, x->handles[0]);
}

/* Everything that was acknowledged is in what a power loss leaves. */
static void lose_power(struct mixed *x)
{
	struct env_mem *left =
		env_mem_crash(x->mem, rng_one_in(dice(x), 2) ? env_mem_choose_durable : env_mem_choose_newest, NULL);
	struct bts *db = mixed_open(x, env_mem_env(left), 0);

	verify(x, db);
	bed_assert_clean(db);
	bts_close(db);
	env_mem_free(left);
}

static void compact(struct mixed *x)
{
	struct bts *db = x->handles[rng_below(dice(x), HANDLES)];
	struct bts_compact_info info = {.size = sizeof(info)};
	struct bts_stat stat = {.size = sizeof(stat)};

	assert_int_equal(bts_compact_step(db, 1 + rng_below(dice(x), 60), &info, NULL), BTS_OK);
	assert_int_equal(bts_stat(db, &stat, NULL), BTS_OK);
	if (stat.txid > x->m.now.txid)
		x->moved = x->m.now.txid = stat.txid;
	x->moves += info.pages_moved;
	mixed_check(x);
}

static void ship(struct mixed *x)
{
	struct bts *db = x->handles[rng_below(dice(x), HANDLES)];

	if (bed_position(db).txid > bed_position(x->follower).txid)
		bed_ship(db, x->follower, dice(x));
	bed_assert_same(db, x->follower);
	verify_names(x, x->follower);
	x->ships++;
}

static void round_one(struct mixed *x)
{
	struct writer *w = &x->writers[rng_below(dice(x), WRITERS)];
	uint64_t n = rng_below(dice(x), 200);

	if (n < 2) {
		reopen(x);
	} else if (n < 4) {
		lose_power(x);
	} else if (n < 8) {
		ship(x);
	} else if (n < 14) {
		verify(x, x->handles[rng_below(dice(x), HANDLES)]);
	} else if (n < 24) {
		compact(x);
	} else if (n < 34) {
		step_group(x);
	} else if (n < 38) {
		step_alone(x);
	} else {
		if (!w->t.txn)
			writer_begin(x, w, BTS_WRITE);
		for (unsigned i = (unsigned)rng_below(dice(x), 1 + w->most); i > 0; i--)
			step(x, w);
		if (rng_one_in(dice(x), 10))
			writer_abort(w);
		else if (rng_one_in(dice(x), 2))
			writer_commit(x, w);
	}
}

static void run(uint64_t number, uint32_t page_size)
{
	struct mixed *x = calloc(1, sizeof(*x));
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_env *env;

	assert_non_null(x);
	rng_init(dice(x), number);
	x->page_size = x->m.page_size = page_size;
	x->mem = env_mem_new(0);
	env_mem_seed(x->mem, number);
	env = env_mem_env(x->mem);
	for (unsigned i = 0; i < HANDLES; i++)
		x->handles[i] = mixed_open(x, env, i);
	bed_create(env, "/f", x->handles[0], page_size);
	x->follower = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(bts_stat(x->handles[0], &stat, NULL), BTS_OK);
	x->m.now.txid = stat.txid;
	for (unsigned i = 0; i < rounds; i++)
		round_one(x);
	quiet(x, HANDLES);
	verify(x, x->handles[0]);
	ship(x);
	printf("seed %" PRIu64 ", %u: %" PRIu64 " commits (%" PRIu64 " behind others), %" PRIu64 " conflicts, %" PRIu64
	       " groups, %" PRIu64 " loads, %" PRIu64 " streams, %" PRIu64 " names, %" PRIu64 " faults, %" PRIu64
	       " frames, %" PRIu64 " moved\n",
		number, page_size, x->m.commits, x->replays, x->conflicts, x->groups, x->loads, x->streams, x->snaps,
		x->faults, x->ships, x->moves);
	for (unsigned i = 0; i < HANDLES; i++)
		bts_close(x->handles[i]);
	bts_close(x->follower);
	for (unsigned i = 0; i < NAMES; i++)
		oracle_fini(&x->named[i].state);
	oracle_fini(&x->m.now);
	model_ops_fini(&x->m.log);
	assert_int_equal(env_mem_counters(x->mem)->live_blocks, 0);
	env_mem_free(x->mem);
	free(x);
}

static void test_small_pages(void **state)
{
	(void)state;
	run(seed, 4096);
}

static void test_large_pages(void **state)
{
	(void)state;
	run(seed + 1, 16384);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_pages),
		cmocka_unit_test(test_large_pages),
	};

	seed = rng_seed_from(argc, argv, 7);
	if (argc > 2)
		rounds = (unsigned)strtoul(argv[2], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
