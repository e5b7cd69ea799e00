/* The operations of a transaction that does everything: see mixed.h. */
#include "mixed.h"

#include <errno.h>

static uint8_t value_bytes[STREAMED_MAX];

void mixed_fault_begin(struct mixed *x)
{
	if (rng_one_in(dice(x), 6))
		env_mem_fail_memory(
			x->mem, 1 + rng_below(dice(x), 12), rng_one_in(dice(x), 3) ? ENV_MEM_STICKY : 0);
	else if (rng_one_in(dice(x), 10))
		env_mem_fail(x->mem, ENV_MEM_RESERVE, 1 + rng_below(dice(x), 2), ENOSPC, 0);
}

bool mixed_fault_end(struct mixed *x, enum bts_err err)
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

static void note_put(
	struct writer *w, struct oracle_bucket *bucket, struct bts_slice key, struct bts_slice value)
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
	struct bts_slice name = mixed_name(which, text);
	enum bts_err err;

	if (w->t.extra == EXTRAS)
		return;
	mixed_fault_begin(x);
	err = create ? bts_snapshot_create(w->t.txn, name, NULL) : bts_snapshot_delete(w->t.txn, name, NULL);
	if (mixed_fault_end(x, err))
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
		after = mixed_name(i, text);
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
		values[i] = (struct bts_slice){
			value_bytes, rng_one_in(dice(x), 25) ? 20000 : rng_below(dice(x), 300)};
		sizes[i][0] = (uint8_t)rng_next(dice(x));
		memset(value_bytes, sizes[i][0], values[i].size);
		mixed_fault_begin(x);
		err = bts_load_add(load, keys[i], values[i]);
		if (mixed_fault_end(x, err))
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
	mixed_fault_begin(x);
	err = bts_load_end(load, NULL);
	if (mixed_fault_end(x, err))
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
	mixed_fault_begin(x);
	err = bts_del_range(w->t.txn, handle, from, (struct bts_slice){0}, &deleted);
	if (mixed_fault_end(x, err))
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
	mixed_fault_begin(x);
	err = bts_load_begin(w->t.txn, handle,
		rng_one_in(dice(x), 2) ? 0 : 50 + (unsigned)rng_below(dice(x), 51), &load, NULL);
	if (mixed_fault_end(x, err))
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

		assert_int_equal(
			bts_bucket(w->t.txn, (struct bts_slice){"s", 1}, BTS_CREATE, &handle, NULL), BTS_OK);
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
	if (rng_one_in(dice(x), 12)) {
		w->stream_size = (1u << 20) + rng_below(dice(x), STREAMED_MAX - (1u << 20));
		w->stream_known = true;
	}
	w->stream_fill = (uint8_t)rng_next(dice(x));
	mixed_fault_begin(x);
	err = bts_put_begin(w->t.txn, handle, w->stream_key,
		w->stream_known ? w->stream_size : BTS_SIZE_UNKNOWN, 0, &w->stream, NULL);
	if (mixed_fault_end(x, err)) {
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
	mixed_fault_begin(x);
	err = bts_put_end(stream, NULL);
	if (mixed_fault_end(x, err))
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
	mixed_fault_begin(x);
	if (rng_one_in(dice(x), 20)) /* a piece of a leased one is written at once */
		env_mem_fail(x->mem, ENV_MEM_WRITE, 1, ENOSPC, 0);
	err = bts_put_write(w->stream, (struct bts_slice){value_bytes, piece});
	if (!mixed_fault_end(x, err)) {
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
	if (bucket->count && rng_one_in(dice(x), 2)) { /* the last one: most loads change what is there */
		seen->key.size = bucket->entries[bucket->count - 1]->key.size;
		memcpy(seen->key_bytes, bucket->entries[bucket->count - 1]->key.data, seen->key.size);
	}
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

void mixed_step(struct mixed *x, struct writer *w)
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
