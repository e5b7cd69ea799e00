/* Buckets: list, look, create or change, drop. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "durable.h"
#include "handle.h"
#include "jsonout.h"
#include "names.h"
#include "reply.h"
#include "request.h"
#include "role.h"

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

static enum bts_err handle_buckets_next(struct bts_txn *txn, struct bts_slice after, union names_info *info, struct bts_slice *name)
{
	enum bts_err err = bts_bucket_next(txn, after, &info->bucket);

	if (!err)
		*name = info->bucket.name;
	return err;
}

static void handle_buckets_json(struct buf *b, const union names_info *info)
{
	handle_bucket_json(b, &info->bucket);
}

static int handle_buckets_visible(const struct request *r, const union names_info *info)
{
	return auth_allows(r, AUTH_READ, info->bucket.name);
}

void handle_buckets_get(struct request *r)
{
	/* the last name that could be the server's own */
	static const unsigned char reserved[BTS_BUCKET_NAME_MAX] = {0, [1 ... BTS_BUCKET_NAME_MAX - 1] = 0xff};
	static const struct names_kind kind = {.what = "bucket",
		.name_max = BTS_BUCKET_NAME_MAX,
		.skip = {reserved, sizeof(reserved)},
		.next = handle_buckets_next,
		.json = handle_buckets_json,
		.visible = handle_buckets_visible};

	names_reply(r, &kind);
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
