/* Single keys: GET, HEAD, DELETE and the small PUTs of /v1/buckets/{bucket}/keys/{key}; handle_upload.c has the large ones. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "byterange.h"
#include "durable.h"
#include "etag.h"
#include "handle.h"
#include "large.h"
#include "reply.h"
#include "request.h"
#include "server.h"
#include "ttl.h"
#include "work.h"

void handle_key_etag(struct request *r, bts_txid version)
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

/* ---- reading ---- */

struct kv_read {
	struct work_job job;
	struct bts_txn *txn;
	struct bts_bucket *bucket;
	struct bts_slice key, value;
	bts_txid version;
	uint64_t expires_ms;
	struct bts_get_state verified;
	enum bts_err err;
};

static void handle_key_missing(struct request *r)
{
	reply_problem(r, 404, "not-found", NULL, "there is no such key in the bucket");
}

/* The part of it that is asked for: 200, 206 with the header, or 0 after a reply that there is none. */
static unsigned handle_key_part(struct request *r, const struct kv_read *read, struct bts_slice *part)
{
	const char *wanted = r->head ? NULL : request_get_header(r, "Range");
	struct bts_slice only = request_get_value(r, "If-Range");
	uint64_t from, count;
	char text[80];

	*part = read->value;
	etag_text(read->version, text);
	if (!wanted || (only.data && (only.size != strlen(text) || memcmp(only.data, text, only.size))))
		return 200;
	switch (byterange_parse(wanted, read->value.size, &from, &count)) {
	case BYTERANGE_ALL:
		return 200;
	case BYTERANGE_NONE:
		snprintf(text, sizeof(text), "bytes */%zu", read->value.size);
		request_set_header(r, "Content-Range", text);
		reply_problem(r, 416, "range-not-satisfiable", NULL, "the value has %zu bytes", read->value.size);
		return 0;
	default:
		snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%zu", from, from + count - 1, read->value.size);
		request_set_header(r, "Content-Range", text);
		*part = (struct bts_slice){(const char *)read->value.data + from, (size_t)count};
		return 206;
	}
}

/* Takes the transaction: the value goes out from the map, and the reply's end ends it. */
static void handle_key_send(struct request *r, const struct kv_read *read)
{
	char type[INPUT_CONTENT_TYPE_MAX + 1];
	struct bts_bucket_info info;
	struct bts_slice part;
	unsigned status = 0;
	enum bts_err err;

	err = read->err ? read->err : bts_bucket_info(read->txn, read->bucket, &info);
	if (err)
		reply_error(r, err, bts_txn_error(read->txn));
	else
		status = handle_key_part(r, read, &part);
	if (!status) {
		bts_abort(read->txn);
		return;
	}
	handle_content_type(info.meta, type);
	handle_key_etag(r, read->version);
	handle_expires(r, read->expires_ms);
	request_set_header(r, "Accept-Ranges", "bytes");
	request_set_header(r, "X-Content-Type-Options", "nosniff");
	if (part.size >= HANDLE_LARGE || !part.data) /* a HEAD has only the size of a large one */
		reply_pieces(r, status, type, part, handle_end, read->txn);
	else
		reply_borrowed(r, status, type, part, handle_end, read->txn);
}

/* All of it is read and verified once, before the first byte goes out: in steps, so that others have their turn. */
static void handle_key_verify(struct kv_read *read, uint64_t most)
{
	read->err = bts_get_bounded(read->txn, read->bucket, read->key, most, &read->verified, &read->value);
}

static int handle_key_fetch(struct work_job *job)
{
	struct kv_read *read = (struct kv_read *)job;

	handle_key_verify(read, LARGE_STEP);
	return !read->err && !read->value.data;
}

static void handle_key_fetched(struct request *r)
{
	struct kv_read *read = r->state;

	handle_key_send(r, read);
	read->txn = NULL;
}

static void handle_key_read_free(void *state)
{
	struct kv_read *read = state;

	bts_abort(read->txn);
	free(read);
}

/* A large value, in a thread that may wait for the disk. */
static void handle_key_fetch_large(struct request *r, const struct kv_read *found)
{
	struct kv_read *read = malloc(sizeof(*read));

	if (!read) {
		reply_error(r, BTS_MEMORY, NULL);
		bts_abort(found->txn);
		return;
	}
	*read = *found;
	read->job = (struct work_job){.step = handle_key_fetch, .owner = r};
	r->state = read;
	r->state_free = handle_key_read_free;
	work_queue(request_server(r)->work, &read->job);
	request_suspend(r, handle_key_fetched);
}

/* There is a value, but not one that the conditions want. */
static void handle_key_refuse(struct request *r, struct writer_conditions *conditions, bts_txid version)
{
	conditions->none_match.given = 0;
	if (writer_holds(conditions, 1, version)) {
		handle_key_etag(r, version);
		reply_empty(r, 304);
	} else {
		handle_key_precondition(r, version, 1);
	}
}

void handle_key_get(struct request *r)
{
	struct writer_conditions conditions;
	struct kv_read read = {.key = r->key};
	struct ttl_view ttl;
	enum bts_err err;

	if (handle_conditions(r, &conditions))
		return;
	read.txn = handle_begin(r);
	read.bucket = read.txn ? handle_open_bucket(r, read.txn) : NULL;
	if (!read.bucket)
		return;
	err = ttl_open(&ttl, read.txn);
	if (!err)
		err = ttl_peek(&ttl, read.bucket, r->bucket, r->key, &read.value, &read.version, &read.expires_ms);
	if (!err && writer_holds(&conditions, 1, read.version)) {
		if (!read.value.data && !r->head)
			handle_key_verify(&read, read.value.size > LARGE_INLINE ? 0 : UINT64_MAX);
		if (!read.value.data && !read.err && !r->head)
			handle_key_fetch_large(r, &read);
		else
			handle_key_send(r, &read);
		return;
	}
	if (err == BTS_NOT_FOUND)
		handle_key_missing(r);
	else if (err)
		reply_error(r, err, bts_txn_error(read.txn));
	else
		handle_key_refuse(r, &conditions, read.version);
	bts_abort(read.txn);
}

/* ---- writing ---- */

void handle_key_written(struct request *r)
{
	if (handle_write_failed(r))
		return;
	if (r->op.result == WRITER_PRECONDITION) {
		handle_key_precondition(r, r->op.version, r->op.version != 0);
	} else if (r->op.result == WRITER_NOT_FOUND) {
		handle_key_missing(r);
	} else {
		r->token = 1;
		if (r->op.kind == WRITER_DELETE) {
			durable_reply(r, 204);
		} else {
			handle_key_etag(r, r->op.txid);
			handle_expires(r, r->op.expires_ms);
			durable_reply(r, r->op.result == WRITER_CREATED ? 201 : 200);
		}
	}
}

void handle_key_write(struct request *r, enum writer_kind kind)
{
	if (handle_conditions(r, &r->op.conditions) || handle_ttl(r, &r->op.ttl_ms))
		return;
	r->op.kind = kind;
	r->op.bucket = r->bucket;
	r->op.key = r->key;
	r->op.value = (struct bts_slice){r->body.size ? r->body.data : "", r->body.size};
	r->op.bytes = r->key.size + r->body.size;
	request_write(r, handle_key_written);
}

void handle_key_delete(struct request *r)
{
	handle_key_write(r, WRITER_DELETE);
}
