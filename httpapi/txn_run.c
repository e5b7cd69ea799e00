/* A transaction of the API run in one of the engine. */
#include "txn_run.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "jsonout.h"
#include "range.h"
#include "ttl.h"

#define TXN_NUMBER_MAX 65536 /* bytes of a number, which may have zeros before it; longer values are not read for one */

struct txn_runner {
	struct bts_txn *txn;
	const struct txn_room *room;
	struct txn_outcome *out;
	struct ttl_view ttl;
	int ttl_used; /* this transaction has given a key a time to live, which a later put of it is to take away */
	struct bts_bucket *bucket; /* the one that is open */
	struct bts_slice name;
};

static void txn_refuse(struct txn_runner *r, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void txn_refuse(struct txn_runner *r, unsigned status, const char *code, const char *format, ...)
{
	struct txn_problem *problem = &r->out->problem;
	va_list args;

	r->out->end = TXN_REFUSED;
	problem->status = status;
	problem->code = code;
	va_start(args, format);
	vsnprintf(problem->why, sizeof(problem->why), format, args);
	va_end(args);
}

/* Leaves r->bucket NULL where there is none, refused. */
static enum bts_err txn_open(struct txn_runner *r, struct bts_slice name)
{
	enum bts_err err;

	if (r->bucket && r->name.size == name.size && !memcmp(r->name.data, name.data, name.size))
		return BTS_OK;
	r->bucket = NULL;
	err = bts_bucket(r->txn, name, 0, &r->bucket, NULL);
	r->name = name;
	if (err != BTS_NOT_FOUND)
		return err;
	txn_refuse(r, 404, "bucket-not-found", "there is no such bucket");
	return BTS_OK;
}

/*
 * BTS_NOT_FOUND is no failure here: *present tells.  A large value is not read (data NULL): other writes wait meanwhile, and few
 * operations need it.
 */
static enum bts_err txn_peek(struct txn_runner *r, const struct txn_op *op, struct bts_slice *value,
	bts_txid *version, uint64_t *expires_ms, int *present)
{
	enum bts_err err = ttl_peek(&r->ttl, r->bucket, op->bucket, op->key, value, version, expires_ms);

	*present = !err;
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err txn_read(struct txn_runner *r, const struct txn_op *op, struct bts_slice *value)
{
	return value->data ? BTS_OK : bts_get(r->txn, r->bucket, op->key, value);
}

/* ---- conditions ---- */

static enum bts_err txn_holds(struct txn_runner *r, const struct txn_op *op, int *holds)
{
	struct bts_slice value;
	uint64_t expires;
	bts_txid version = 0;
	enum bts_err err;
	int present;

	err = txn_peek(r, op, &value, &version, &expires, &present);
	if (!err && present && op->test == TXN_VALUE && value.size == op->value.size)
		err = txn_read(r, op, &value);
	if (err)
		return err;
	r->out->version = version;
	if (op->test == TXN_EXISTS)
		*holds = present == op->exists;
	else if (op->test == TXN_VERSION)
		*holds = version == op->version;
	else
		*holds = present && value.size == op->value.size &&
			 !memcmp(value.data, op->value.data, value.size);
	return BTS_OK;
}

/* Which list is run; NULL: none, told in the outcome. */
static enum bts_err txn_judge(struct txn_runner *r, const struct txn *txn, const struct txn_list **list)
{
	const struct txn_list *conditions = &txn->conditions;
	struct txn_problem *problem = &r->out->problem;
	enum bts_err err;
	int holds = 1;

	*list = NULL;
	problem->list = conditions->name;
	for (; holds && problem->index < conditions->count; problem->index += holds) {
		const struct txn_op *op = &conditions->ops[problem->index];

		err = txn_open(r, op->bucket);
		if (err || !r->bucket)
			return err;
		err = txn_holds(r, op, &holds);
		if (err)
			return err;
	}
	if (holds) {
		*list = &txn->then;
	} else if (txn->otherwise.given) {
		*list = &txn->otherwise;
	} else {
		txn_refuse(r, 412, "precondition-failed", "condition %zu does not hold", problem->index);
		r->out->end = TXN_UNMET;
	}
	return BTS_OK;
}

/* ---- operations ---- */

static enum bts_err txn_put(
	struct txn_runner *r, const struct txn_op *op, struct bts_slice value, uint64_t expires_ms)
{
	enum bts_err err = bts_put(r->txn, r->bucket, op->key, value, 0);

	r->out->changed = 1;
	if (!err && (expires_ms || r->ttl_used))
		err = ttl_set(r->txn, op->bucket, op->key, expires_ms);
	/* What was opened before there was any record knows of none. */
	if (!err && expires_ms && !r->ttl_used)
		err = ttl_open(&r->ttl, r->txn);
	r->ttl_used |= expires_ms != 0;
	return err;
}

static uint64_t txn_expires(const struct txn_op *op)
{
	return op->ttl_ms ? ttl_now_ms() + op->ttl_ms : 0;
}

static void txn_written(struct txn_runner *r, uint64_t expires_ms)
{
	struct buf *b = &r->out->results;
	char text[TTL_TEXT_MAX];

	buf_printf(b, "\"version\":%" PRIu64, (uint64_t)bts_txn_id(r->txn));
	if (expires_ms) {
		ttl_text(expires_ms, text);
		buf_printf(b, ",\"expires\":\"%s\"", text);
	}
	buf_str(b, "}");
}

void txn_found(struct buf *b, bts_txid version, uint64_t expires_ms)
{
	char text[TTL_TEXT_MAX];

	buf_printf(b, "{\"found\":true,\"version\":%" PRIu64 ",", (uint64_t)version);
	if (expires_ms) {
		ttl_text(expires_ms, text);
		buf_printf(b, "\"expires\":\"%s\",", text);
	}
}

static enum bts_err txn_do_get(struct txn_runner *r, const struct txn_op *op)
{
	struct buf *b = &r->out->results;
	struct bts_slice value;
	uint64_t expires = 0;
	bts_txid version;
	enum bts_err err;
	int present;

	err = txn_peek(r, op, &value, &version, &expires, &present);
	if (err)
		return err;
	if (!present) {
		buf_str(b, "{\"found\":false}");
	} else if (b->size > r->room->max || value.size > r->room->max - b->size) {
		txn_refuse(r, 422, "result-too-large",
			"a value of %zu bytes: the results may have %zu in all", value.size, r->room->max);
	} else {
		err = txn_read(r, op, &value);
		if (err)
			return err;
		txn_found(b, version, expires);
		jsonout_bytes(b, "value", value);
		buf_str(b, "}");
	}
	return BTS_OK;
}

static enum bts_err txn_do_delete(struct txn_runner *r, const struct txn_op *op)
{
	struct bts_slice value;
	uint64_t expires;
	bts_txid version;
	enum bts_err err;
	int present;

	err = txn_peek(r, op, &value, &version, &expires, &present);
	if (!err && present) {
		r->out->changed = 1;
		err = bts_del(r->txn, r->bucket, op->key);
		if (!err && expires)
			err = ttl_set(r->txn, op->bucket, op->key, 0);
	}
	buf_printf(&r->out->results, "{\"deleted\":%s}", present ? "true" : "false");
	return err;
}

static enum bts_err txn_do_delete_range(struct txn_runner *r, const struct txn_op *op)
{
	struct range range = {0};
	uint64_t deleted = 0;
	enum bts_err err = BTS_OK;

	if (op->prefix.size)
		range_prefix(&range, op->prefix);
	if (op->from.size)
		range_from(&range, op->from);
	if (op->to.size)
		range_to(&range, op->to);
	if (!range_empty(&range))
		err = bts_del_range(
			r->txn, r->bucket, range_slice(&range.low), range_slice(&range.high), &deleted);
	r->out->changed |= deleted != 0;
	buf_printf(&r->out->results, "{\"deleted\":%" PRIu64 "}", deleted);
	return err;
}

static enum bts_err txn_do_incr(struct txn_runner *r, const struct txn_op *op)
{
	struct bts_slice value;
	uint64_t expires = 0;
	bts_txid version;
	int64_t number = 0;
	enum bts_err err;
	int present, bad = 0;
	char text[24];

	err = txn_peek(r, op, &value, &version, &expires, &present);
	if (err)
		return err;
	if (present && value.size > TXN_NUMBER_MAX) {
		bad = -1;
	} else if (present) {
		err = txn_read(r, op, &value);
		if (err)
			return err;
		bad = txn_number(value, &number);
	}
	if (bad < 0)
		txn_refuse(r, 409, "not-a-number", "the value is not a decimal integer");
	else if (bad > 0 || __builtin_add_overflow(number, op->by, &number))
		txn_refuse(r, 409, "overflow", "the number would not fit 64 bits");
	else if (!present && !op->create)
		txn_refuse(r, 404, "not-found", "there is no such key in the bucket");
	if (r->out->end != TXN_DONE)
		return BTS_OK;
	if (op->ttl_ms)
		expires = txn_expires(op);
	snprintf(text, sizeof(text), "%" PRId64, number);
	buf_printf(&r->out->results, "{\"number\":%" PRId64 ",", number);
	txn_written(r, expires);
	return txn_put(r, op, (struct bts_slice){text, strlen(text)}, expires);
}

static enum bts_err txn_do(struct txn_runner *r, const struct txn_op *op)
{
	uint64_t expires;

	switch (op->kind) {
	case TXN_GET:
		return txn_do_get(r, op);
	case TXN_DELETE:
		return txn_do_delete(r, op);
	case TXN_DELETE_RANGE:
		return txn_do_delete_range(r, op);
	case TXN_INCR:
		return txn_do_incr(r, op);
	default:
		expires = txn_expires(op);
		buf_str(&r->out->results, "{");
		txn_written(r, expires);
		return txn_put(r, op, op->value, expires);
	}
}

/* After each operation: what its results take, is it too much? */
static void txn_measure(struct txn_runner *r)
{
	const struct buf *b = &r->out->results;

	if (b->size > r->room->max)
		txn_refuse(r, 422, "result-too-large", "the results may have %zu bytes in all", r->room->max);
	else if (b->failed || r->room->hold(r->room->arg, b->cap))
		txn_refuse(r, 503, "out-of-memory", "no memory for these results now");
}

static enum bts_err txn_run_list(struct txn_runner *r, const struct txn_list *list)
{
	struct txn_problem *problem = &r->out->problem;
	struct buf *b = &r->out->results;
	enum bts_err err;

	problem->list = list->name;
	buf_str(b, "[");
	for (problem->index = 0; problem->index < list->count; problem->index++) {
		const struct txn_op *op = &list->ops[problem->index];

		if (problem->index)
			buf_str(b, ",\n");
		err = txn_open(r, op->bucket);
		if (!err && r->bucket)
			err = txn_do(r, op);
		if (err)
			return err;
		if (r->out->end == TXN_DONE)
			txn_measure(r);
		if (r->out->end != TXN_DONE)
			return BTS_OK;
	}
	buf_str(b, "]");
	return BTS_OK;
}

enum bts_err txn_run(
	const struct txn *txn, struct bts_txn *in, const struct txn_room *room, struct txn_outcome *out)
{
	struct txn_runner r = {.txn = in, .room = room, .out = out};
	const struct txn_list *list;
	enum bts_err err;

	buf_fini(&out->results);
	memset(out, 0, sizeof(*out));
	err = ttl_open(&r.ttl, in);
	if (!err)
		err = txn_judge(&r, txn, &list);
	if (err || !list)
		return err;
	out->branch = list;
	return txn_run_list(&r, list);
}
