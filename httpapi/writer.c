/* All writes of a primary: one thread, one queue, one flush for what is queued. */
#include "writer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "role.h"
#include "ttl.h"

#define WRITER_QUEUE_OPS 16384
#define WRITER_QUEUE_BYTES ((size_t)256 << 20)
#define WRITER_BATCH_OPS 8192
#define WRITER_BATCH_BYTES ((size_t)16 << 20)
#define WRITER_AHEAD 8 /* keys whose ways down are taken side by side */

struct writer {
	struct role *role;
	writer_done_fn *done;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t work;
	struct writer_op *first, **last;
	size_t ops, bytes;
	int stopping;
	int kicked; /* what is queued is to be taken */
	struct writer_stat stat;
	bts_txid txid; /* thread's own: the newest commit */
	uint64_t group_us; /* and when the present group began */
	unsigned expected; /* operations from the present one on that bts_expect was told of */
	int no_ttl; /* in this group no entry has had a time to live yet */
};

static int writer_tags_have(const struct writer_tags *tags, bts_txid version)
{
	unsigned i;

	if (tags->any)
		return 1;
	for (i = 0; i < tags->count; i++)
		if (tags->versions[i] == version)
			return 1;
	return 0;
}

int writer_holds(const struct writer_conditions *c, int present, bts_txid version)
{
	if (c->match.given && !(present && writer_tags_have(&c->match, version)))
		return 0;
	return !(c->none_match.given && present && writer_tags_have(&c->none_match, version));
}

/* BTS_OK with op->result set and *changed telling whether there is something to commit, or why it failed. */
static enum bts_err writer_run_key(struct writer *w, struct writer_op *op, struct bts_txn *txn,
	struct bts_bucket *bucket, int *changed)
{
	struct bts_slice present;
	bts_txid version = 0;
	uint64_t expires = 0;
	struct ttl_view ttl = {.txn = txn};
	enum bts_err err = w->no_ttl ? BTS_OK : ttl_open(&ttl, txn);

	if (err)
		return err;
	w->no_ttl = !ttl.records;
	err = ttl_peek(&ttl, bucket, op->bucket, op->key, &present, &version, &expires);
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (err && op->kind == WRITER_DELETE) {
		op->result = WRITER_NOT_FOUND;
		return BTS_OK;
	}
	op->version = version;
	if (!writer_holds(&op->conditions, !err, version)) {
		op->result = WRITER_PRECONDITION;
		return BTS_OK;
	}
	*changed = 1;
	if (op->kind == WRITER_DELETE) {
		op->result = WRITER_DONE;
		err = bts_del(txn, bucket, op->key);
	} else {
		op->result = err ? WRITER_CREATED : WRITER_DONE;
		op->expires_ms = op->ttl_ms ? ttl_now_ms() + op->ttl_ms : 0;
		err = bts_put(txn, bucket, op->key, op->value, 0);
	}
	return !err && (expires || op->expires_ms) ? ttl_set(txn, op->bucket, op->key, op->expires_ms) : err;
}

static enum bts_err writer_run_load(
	struct writer_op *op, struct bts_txn *txn, struct bts_bucket *bucket, int *changed)
{
	uint64_t expires = op->ttl_ms ? ttl_now_ms() + op->ttl_ms : 0;
	enum bts_err err;
	size_t i;

	op->result = op->pair_count ? WRITER_DONE : WRITER_UNCHANGED;
	for (i = 0; i < op->pair_count; i++) {
		err = bts_put(txn, bucket, op->pairs[i].key, op->pairs[i].value, 0);
		if (!err && expires)
			err = ttl_set(txn, op->bucket, op->pairs[i].key, expires);
		if (err)
			return err;
		*changed = 1;
	}
	return BTS_OK;
}

static enum bts_err writer_run_bucket(struct writer_op *op, struct bts_txn *txn, int *changed)
{
	struct bts_bucket_info info;
	struct bts_bucket *bucket;
	enum bts_err err;

	err = bts_bucket(txn, op->bucket, 0, &bucket, &op->error);
	if (!err) {
		op->result = WRITER_UNCHANGED;
		err = bts_bucket_info(txn, bucket, &info);
		if (err || !op->value.data ||
			(info.meta.size == op->value.size &&
				!memcmp(info.meta.data, op->value.data, op->value.size)))
			return err;
		op->result = WRITER_DONE;
	} else if (err == BTS_NOT_FOUND) {
		op->result = WRITER_CREATED;
		err = bts_bucket(txn, op->bucket, BTS_CREATE, &bucket, &op->error);
		if (err)
			return err;
	} else {
		return err;
	}
	*changed = 1;
	return op->value.data ? bts_bucket_set_meta(txn, bucket, op->value) : BTS_OK;
}

static int writer_is_key(const struct writer_op *op)
{
	return op->kind == WRITER_PUT || op->kind == WRITER_DELETE;
}

/* Tell the engine of the keys of the next operations, as far as they are of the same bucket. */
static void writer_expect(
	struct writer *w, const struct writer_op *op, struct bts_txn *txn, struct bts_bucket *bucket)
{
	struct bts_slice keys[WRITER_AHEAD], name = op->bucket;

	if (w->expected)
		return;
	for (; op && w->expected < WRITER_AHEAD && writer_is_key(op) && op->bucket.size == name.size &&
		!memcmp(op->bucket.data, name.data, name.size);
		op = op->next)
		keys[w->expected++] = op->key;
	if (w->expected > 1)
		bts_expect(txn, bucket, keys, w->expected);
}

static enum bts_err writer_run(struct writer *w, struct writer_op *op, struct bts_txn *txn, int *changed)
{
	struct bts_bucket *bucket;
	enum bts_err err;

	if (op->kind == WRITER_CALL)
		return op->call(op, txn, changed);
	if (op->kind == WRITER_BUCKET_PUT)
		return writer_run_bucket(op, txn, changed);
	if (op->kind == WRITER_BUCKET_DROP) {
		err = bts_bucket_drop(txn, op->bucket, &op->error);
		op->result = err ? WRITER_NO_BUCKET : WRITER_DONE;
		*changed = !err;
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	}
	err = bts_bucket(txn, op->bucket, 0, &bucket, &op->error);
	if (err == BTS_NOT_FOUND) {
		op->result = WRITER_NO_BUCKET;
		return BTS_OK;
	}
	if (err)
		return err;
	if (op->kind == WRITER_LOAD)
		return writer_run_load(op, txn, bucket, changed);
	writer_expect(w, op, txn, bucket);
	return writer_run_key(w, op, txn, bucket, changed);
}

static void writer_fail(struct writer_op *op, enum bts_err err, const struct bts_error *error)
{
	op->result = WRITER_FAILED;
	if (error && error->code == err) /* else it is of an earlier call: a key that was looked for in vain */
		op->error = *error;
	if (!op->error.code) {
		op->error.code = err;
		snprintf(op->error.text, sizeof(op->error.text), "%s", bts_err_name(err));
	}
}

/* One operation as a transaction of the group. */
static void writer_step(struct writer *w, struct bts_group *group, struct writer_op *op)
{
	struct bts_txn *txn = NULL;
	enum bts_err err;
	int changed = 0;

	memset(&op->error, 0, sizeof(op->error));
	op->txid = w->txid;
	op->version = 0;
	op->taken_us = w->group_us;
	op->expires_ms = 0;
	err = bts_group_txn(group, &txn, &op->error);
	if (!err)
		err = writer_run(w, op, txn, &changed);
	w->expected -= w->expected > 0;
	if (!writer_is_key(op) || op->ttl_ms)
		w->no_ttl = 0; /* it may have given one */
	if (err) {
		const struct bts_error *error = txn ? bts_txn_error(txn) : NULL;

		writer_fail(op, err, op->error.code ? NULL : error);
		bts_abort(txn);
	} else if (changed) {
		err = bts_commit_id(txn, &op->txid, &op->error);
		if (err)
			writer_fail(op, err, NULL);
		else
			w->txid = op->txid;
	} else {
		bts_abort(txn);
	}
}

static enum bts_err writer_group(struct writer *w, struct writer_op *ops, struct bts_error *error)
{
	struct bts *db = role_db(w->role);
	struct bts_group *group = NULL;
	struct writer_op *op;
	bts_txid before = role_txid(w->role);
	enum bts_err err;

	if (!db) /* it was a follower when the write was let in, and is one again */
		return BTS_READ_ONLY;
	err = bts_group_begin(db, &group, error);
	if (err)
		return err;
	if (before < w->txid)
		before = w->txid;
	w->txid = before;
	w->expected = 0;
	w->no_ttl = 0;
	for (op = ops; op; op = op->next)
		writer_step(w, group, op);
	err = bts_group_commit(group, error);
	if (err)
		w->txid = before;
	return err;
}

static unsigned writer_bucket(uint64_t value)
{
	unsigned bits = value ? 64 - (unsigned)__builtin_clzll(value) : 0;

	return bits < WRITER_HISTOGRAM ? bits : WRITER_HISTOGRAM - 1;
}

static uint64_t writer_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Before the results are handed back: who has one and asks for the counts finds it among them. */
static void writer_account(struct writer *w, struct writer_op *ops, size_t count, uint64_t us, enum bts_err err)
{
	struct writer_op *op;

	for (op = ops; op; op = op->next)
		if (op->result == WRITER_FAILED)
			role_note(w->role, op->error.code);
	pthread_mutex_lock(&w->lock);
	w->stat.operations += count;
	w->stat.groups++;
	w->stat.group_failures += err != BTS_OK;
	w->stat.flush_us += us;
	w->stat.flush_histogram[writer_bucket(us / 64)]++;
	w->stat.batch_histogram[writer_bucket(count - 1)]++;
	pthread_mutex_unlock(&w->lock);
}

static void writer_report(const struct bts_error *error, size_t count)
{
	log_event("error", "commit-failed",
		LOG_FIELDS(LOG_TEXT("code", bts_err_name(error->code)), LOG_TEXT("detail", error->text),
			LOG_U64("operations", count)));
}

/* Run the batch to its end: every operation has its result. */
static void writer_batch(struct writer *w, struct writer_op *ops, size_t count)
{
	struct bts_error error = {0};
	uint64_t start = writer_now_us();
	struct writer_op *op;
	enum bts_err err;

	w->group_us = start;

	err = writer_group(w, ops, &error);
	if (err) {
		if (!error.code) {
			error.code = err;
			snprintf(error.text, sizeof(error.text), "%s", bts_err_name(err));
		}
		if (!role_poisoned(w->role))
			writer_report(&error, count);
		/* An error of the disk in a commit is never tried again (I7). */
		role_note(w->role, err == BTS_IO ? BTS_POISONED : err);
		for (op = ops; op; op = op->next)
			writer_fail(op, err, &error);
	} else {
		role_committed(w->role, w->txid);
	}
	writer_account(w, ops, count, writer_now_us() - start, err);
	if (err == BTS_FULL && count > 1) {
		for (op = ops; op; op = op->next) {
			struct writer_op *rest = op->next;

			op->next = NULL;
			writer_batch(w, op, 1);
			op->next = rest;
		}
	}
}

/* The next batch, off the queue; NULL when stopping and empty. */
static struct writer_op *writer_take(struct writer *w, size_t *count)
{
	struct writer_op *first, *op;
	size_t bytes = 0;

	pthread_mutex_lock(&w->lock);
	while (!(w->first && w->kicked) && !w->stopping)
		pthread_cond_wait(&w->work, &w->lock);
	first = op = w->first;
	*count = 0;
	while (op) {
		++*count;
		bytes += op->bytes;
		if (!op->next || *count == WRITER_BATCH_OPS || bytes >= WRITER_BATCH_BYTES)
			break;
		op = op->next;
	}
	if (op) {
		w->first = op->next;
		if (!w->first) {
			w->last = &w->first;
			w->kicked = 0;
		}
		op->next = NULL;
		w->ops -= *count;
		w->bytes -= bytes;
	}
	pthread_mutex_unlock(&w->lock);
	return first;
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	struct writer_op *ops;
	size_t count;

	pthread_setname_np(pthread_self(), "writer");
	while ((ops = writer_take(w, &count))) {
		writer_batch(w, ops, count);
		w->done(ops);
	}
	return NULL;
}

int writer_start(struct role *role, writer_done_fn *done, struct writer **out)
{
	struct writer *w = calloc(1, sizeof(*w));

	if (!w)
		return -1;
	w->role = role;
	w->done = done;
	w->last = &w->first;
	w->txid = role_txid(role);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	if (pthread_create(&w->thread, NULL, writer_main, w)) {
		free(w);
		return -1;
	}
	*out = w;
	return 0;
}

void writer_stop(struct writer *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = 1;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->work);
	free(w);
}

int writer_append(struct writer *w, struct writer_op *op)
{
	int full;

	op->next = NULL;
	pthread_mutex_lock(&w->lock);
	full = w->stopping || w->ops >= WRITER_QUEUE_OPS || w->bytes >= WRITER_QUEUE_BYTES;
	if (full) {
		w->stat.refused++;
	} else {
		*w->last = op;
		w->last = &op->next;
		w->ops++;
		w->bytes += op->bytes;
	}
	pthread_mutex_unlock(&w->lock);
	return full ? -1 : 0;
}

void writer_kick(struct writer *w)
{
	int begins;

	pthread_mutex_lock(&w->lock);
	begins = w->ops && !w->kicked;
	w->kicked |= begins;
	pthread_mutex_unlock(&w->lock);
	if (begins) /* woken with the lock free; at work, it looks when it is done, and this calls nobody */
		pthread_cond_signal(&w->work);
}

int writer_queue(struct writer *w, struct writer_op *op)
{
	int err = writer_append(w, op);

	writer_kick(w);
	return err;
}

void writer_stat(struct writer *w, struct writer_stat *stat)
{
	pthread_mutex_lock(&w->lock);
	*stat = w->stat;
	stat->queued = w->ops;
	stat->queued_bytes = w->bytes;
	pthread_mutex_unlock(&w->lock);
}
