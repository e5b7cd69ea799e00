/* Single keys: GET, HEAD, PUT, DELETE /v1/buckets/{bucket}/keys/{key}. */
#include <string.h>

#include "durable.h"
#include "etag.h"
#include "handle.h"
#include "reply.h"
#include "request.h"

static void handle_key_etag(struct request *r, bts_txid version)
{
	char text[24];

	etag_text(version, text);
	request_set_header(r, "ETag", text);
}

static void handle_key_precondition(struct request *r, bts_txid version, int present)
{
	if (present)
		handle_key_etag(r, version);
	reply_problem(r, 412, "precondition-failed", NULL,
		present ? "the value has another version" : "there is no such key");
}

/* Takes txn: the value goes out from the map, and the reply's end ends the transaction. */
static void handle_key_send(struct request *r, struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_slice value, bts_txid version)
{
	struct bts_bucket_info info;
	char type[INPUT_CONTENT_TYPE_MAX + 1];
	enum bts_err err;

	err = bts_bucket_info(txn, bucket, &info);
	if (err) {
		reply_error(r, err, bts_txn_error(txn));
		bts_abort(txn);
		return;
	}
	handle_content_type(info.meta, type);
	handle_key_etag(r, version);
	request_set_header(r, "X-Content-Type-Options", "nosniff");
	reply_borrowed(r, 200, type, value, handle_end, txn);
}

void handle_key_get(struct request *r)
{
	struct writer_conditions conditions;
	struct bts_bucket *bucket;
	struct bts_slice value;
	struct bts_txn *txn;
	bts_txid version;
	enum bts_err err;

	if (handle_conditions(r, &conditions))
		return;
	txn = handle_begin(r);
	bucket = txn ? handle_open_bucket(r, txn) : NULL;
	if (!bucket)
		return;
	err = bts_get_version(txn, bucket, r->key, &value, &version);
	if (!err && writer_holds(&conditions, 1, version)) {
		handle_key_send(r, txn, bucket, value, version);
		return;
	}
	if (err == BTS_NOT_FOUND) {
		reply_problem(r, 404, "not-found", NULL, "there is no such key in the bucket");
	} else if (err) {
		reply_error(r, err, bts_txn_error(txn));
	} else {
		conditions.none_match.given = 0;
		if (writer_holds(&conditions, 1, version)) {
			handle_key_etag(r, version);
			reply_empty(r, 304);
		} else {
			handle_key_precondition(r, version, 1);
		}
	}
	bts_abort(txn);
}

static void handle_key_written(struct request *r)
{
	if (handle_write_failed(r))
		return;
	if (r->op.result == WRITER_PRECONDITION) {
		handle_key_precondition(r, r->op.version, r->op.version != 0);
	} else if (r->op.result == WRITER_NOT_FOUND) {
		reply_problem(r, 404, "not-found", NULL, "there is no such key in the bucket");
	} else {
		r->token = 1;
		if (r->op.kind == WRITER_DELETE) {
			durable_reply(r, 204);
		} else {
			handle_key_etag(r, r->op.txid);
			durable_reply(r, r->op.result == WRITER_CREATED ? 201 : 200);
		}
	}
}

static void handle_key_write(struct request *r, enum writer_kind kind)
{
	if (handle_conditions(r, &r->op.conditions))
		return;
	r->op.kind = kind;
	r->op.bucket = r->bucket;
	r->op.key = r->key;
	r->op.value = (struct bts_slice){r->body.size ? r->body.data : "", r->body.size};
	r->op.bytes = r->key.size + r->body.size;
	request_write(r, handle_key_written);
}

void handle_key_put(struct request *r)
{
	handle_key_write(r, WRITER_PUT);
}

void handle_key_delete(struct request *r)
{
	handle_key_write(r, WRITER_DELETE);
}
