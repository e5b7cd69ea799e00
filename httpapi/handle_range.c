/* Ranges of keys: the parameters that name one, and DELETE /v1/buckets/{bucket}/keys, which is one commit. */
#include <inttypes.h>
#include <stdlib.h>

#include "durable.h"
#include "handle.h"
#include "range.h"
#include "reply.h"
#include "request.h"

const struct bts_slice *handle_key_param(struct request *r, const char *name, size_t max, int *bad)
{
	const struct bts_slice *value = *bad ? NULL : request_param(r, name);

	if (!value || !value->size)
		return NULL;
	if (value->size > max) {
		reply_problem(r, 400, "key-too-long", NULL,
			"the parameter %s has %zu bytes, at most %d are allowed", name, value->size,
			BTS_KEY_MAX);
		*bad = 1;
	}
	return value;
}

int handle_range_params(struct request *r, struct range *range)
{
	int bad = 0;
	const struct bts_slice *prefix = handle_key_param(r, "prefix", BTS_KEY_MAX, &bad);
	const struct bts_slice *from = handle_key_param(r, "from", BTS_KEY_MAX, &bad);
	const struct bts_slice *to = handle_key_param(r, "to", BTS_KEY_MAX, &bad);

	if (bad)
		return -1;
	if (prefix)
		range_prefix(range, *prefix);
	if (from)
		range_from(range, *from);
	if (to)
		range_to(range, *to);
	return 0;
}

struct handle_deletion {
	struct range range;
	uint64_t deleted;
};

static enum bts_err handle_range_run(struct writer_op *op, struct bts_txn *txn, int *changed)
{
	struct handle_deletion *d = op->arg;
	struct bts_bucket *bucket;
	enum bts_err err;

	d->deleted = 0;
	err = bts_bucket(txn, op->bucket, 0, &bucket, &op->error);
	if (err == BTS_NOT_FOUND) {
		op->result = WRITER_NO_BUCKET;
		return BTS_OK;
	}
	if (!err && !range_empty(&d->range))
		err = bts_del_range(
			txn, bucket, range_slice(&d->range.low), range_slice(&d->range.high), &d->deleted);
	op->result = d->deleted ? WRITER_DONE : WRITER_UNCHANGED;
	*changed = d->deleted != 0;
	return err;
}

static void handle_range_done(struct request *r)
{
	const struct handle_deletion *d = r->state;
	struct buf b = {0};

	if (handle_write_failed(r))
		return;
	r->token = 1;
	buf_printf(&b, "{\"deleted\":%" PRIu64 ",\"txid\":%" PRIu64, d->deleted, (uint64_t)r->txid);
	durable_members(r, &b);
	buf_str(&b, "}\n");
	reply_buf(r, r->unreached ? 202 : 200, "application/json", &b);
}

void handle_range_delete(struct request *r)
{
	struct handle_deletion *d = calloc(1, sizeof(*d));
	int all = d ? request_param_flag(r, "all") : -1, bounded;

	r->state = d;
	r->state_free = free;
	if (!d)
		reply_error(r, BTS_MEMORY, NULL);
	if (all < 0 || handle_range_params(r, &d->range))
		return;
	bounded = d->range.low.size || d->range.high.size;
	if (bounded == all) {
		reply_problem(r, 400, "invalid-parameter", NULL,
			all ? "all=1 is for all keys: without prefix, from and to"
			    : "say what to delete: prefix, from, to, or all=1");
		return;
	}
	r->op.kind = WRITER_CALL;
	r->op.bucket = r->bucket;
	r->op.bytes = sizeof(*d);
	r->op.call = handle_range_run;
	r->op.arg = d;
	request_write(r, handle_range_done);
}
