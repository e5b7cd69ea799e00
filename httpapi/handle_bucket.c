/* Buckets: list, look, create or change, drop. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "durable.h"
#include "handle.h"
#include "jsonout.h"
#include "reply.h"
#include "request.h"
#include "role.h"

#define BUCKETS_LIMIT_DEFAULT 1000
#define BUCKETS_LIMIT_MAX 10000

static void handle_bucket_json(struct buf *b, const struct bts_bucket_info *info)
{
	char type[INPUT_CONTENT_TYPE_MAX + 1];

	buf_str(b, "{");
	jsonout_bytes(b, "name", info->name);
	buf_printf(b,
		",\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"version\":%" PRIu64
		",\"content_type\":",
		info->entries, info->bytes, info->pages, (uint64_t)info->version);
	handle_content_type(info->meta, type);
	jsonout_string(b, type);
	buf_str(b, "}");
}

/* ---- the list ---- */

struct handle_buckets {
	struct bts_txn *txn;
	uint64_t limit, count;
	char after[BTS_BUCKET_NAME_MAX];
	size_t after_size;
	enum bts_err broken;
	int begun;
	const struct request *request; /* whose end is that of the reply */
};

static int handle_buckets_fill(void *arg, struct buf *b)
{
	struct handle_buckets *s = arg;
	struct bts_slice after = {s->after, s->after_size};
	struct bts_bucket_info info;
	enum bts_err err;

	if (!s->begun)
		buf_str(b, "{\"items\":[");
	s->begun = 1;
	err = bts_bucket_next(s->txn, after, &info);
	if (err && err != BTS_NOT_FOUND) {
		s->broken = err;
		return -1;
	}
	if (err || s->count == s->limit) {
		buf_printf(b, "],\"txid\":%" PRIu64 ",\"next\":", (uint64_t)bts_txn_id(s->txn));
		if (err) {
			buf_str(b, "null");
		} else {
			buf_str(b, "\"");
			handle_cursor(b, after);
			buf_str(b, "\"");
		}
		buf_str(b, "}\n");
		return 0;
	}
	if (auth_allows(s->request, AUTH_READ, info.name)) {
		if (s->count++)
			buf_str(b, ",\n");
		handle_bucket_json(b, &info);
	}
	s->after_size = info.name.size;
	memcpy(s->after, info.name.data, info.name.size);
	return 1;
}

static void handle_buckets_release(void *arg)
{
	struct handle_buckets *s = arg;

	bts_abort(s->txn);
	free(s);
}

void handle_buckets_get(struct request *r)
{
	struct handle_buckets *s = calloc(1, sizeof(*s));
	const struct bts_slice *after = request_param(r, "after");
	struct reply_stream stream = {handle_buckets_fill, handle_buckets_release, s};
	char name[BTS_KEY_MAX];

	if (!s) {
		reply_error(r, BTS_MEMORY, NULL);
		return;
	}
	s->request = r;
	s->limit = BUCKETS_LIMIT_DEFAULT;
	if (request_param_u64(r, "limit", 1, BUCKETS_LIMIT_MAX, &s->limit))
		goto fail;
	if (after && after->size) {
		s->after_size = handle_cursor_key(*after, name);
		if (!s->after_size || s->after_size > sizeof(s->after)) {
			reply_problem(r, 400, "invalid-parameter", NULL,
				"after is neither a cursor nor a bucket name");
			goto fail;
		}
		memcpy(s->after, name, s->after_size);
	}
	if (!s->after_size || handle_reserved((struct bts_slice){s->after, s->after_size})) {
		/* after the last name that could be the server's own */
		s->after_size = sizeof(s->after);
		memset(s->after, 0xff, s->after_size);
		s->after[0] = 0;
	}
	s->txn = handle_begin(r);
	if (!s->txn)
		goto fail;
	if (!reply_stream(r, 200, "application/json", &stream))
		return;
	reply_error(r, s->broken ? s->broken : BTS_MEMORY, bts_txn_error(s->txn));
fail:
	handle_buckets_release(s);
}

/* ---- one ---- */

/* The bucket as JSON; ends the transaction. */
static void handle_bucket_reply(
	struct request *r, unsigned status, struct bts_txn *txn, struct bts_bucket *bucket)
{
	struct bts_bucket_info info;
	struct buf b = {0};
	enum bts_err err;

	err = bts_bucket_info(txn, bucket, &info);
	if (err) {
		reply_error(r, err, bts_txn_error(txn));
	} else {
		handle_bucket_json(&b, &info);
		buf_str(&b, "\n");
		reply_buf(r, status, "application/json", &b);
	}
	bts_abort(txn);
}

void handle_bucket_get(struct request *r)
{
	struct bts_txn *txn = handle_begin(r);
	struct bts_bucket *bucket = txn ? handle_open_bucket(r, txn) : NULL;

	if (bucket)
		handle_bucket_reply(r, 200, txn, bucket);
}

static void handle_bucket_written(struct request *r)
{
	unsigned status = r->op.result == WRITER_CREATED ? 201 : r->op.kind == WRITER_BUCKET_DROP ? 204 : 200;
	struct bts_bucket *bucket;
	struct bts_txn *txn;

	if (handle_write_failed(r))
		return;
	r->token = 1;
	if (status == 204 || r->unreached) {
		durable_reply(r, status);
		return;
	}
	durable_tell(r);
	/* Somebody may have dropped it again; the answer to this request stays what it was. */
	if (bts_begin(role_db(request_role(r)), BTS_READ, &txn, NULL)) {
		reply_empty(r, status);
	} else if (bts_bucket(txn, r->bucket, 0, &bucket, NULL)) {
		bts_abort(txn);
		reply_empty(r, status);
	} else {
		handle_bucket_reply(r, status, txn, bucket);
	}
}

void handle_bucket_put(struct request *r)
{
	struct bts_slice body = {r->body.data, r->body.size};
	char type[INPUT_CONTENT_TYPE_MAX + 1], why[160];
	const char *code = input_bucket_parse(body, type, why);
	char *meta;

	if (code) {
		reply_problem(r, 400, code, NULL, "%s", why);
		return;
	}
	r->op.kind = WRITER_BUCKET_PUT;
	r->op.bucket = r->bucket;
	if (*type) {
		meta = malloc(BTS_BUCKET_META_MAX);
		if (!meta) {
			reply_error(r, BTS_MEMORY, NULL);
			return;
		}
		r->state = meta;
		r->state_free = free;
		r->op.value.data = meta;
		r->op.value.size = (size_t)snprintf(meta, BTS_BUCKET_META_MAX, "content_type=%s", type);
	}
	request_write(r, handle_bucket_written);
}

void handle_bucket_delete(struct request *r)
{
	r->op.kind = WRITER_BUCKET_DROP;
	r->op.bucket = r->bucket;
	request_write(r, handle_bucket_written);
}
