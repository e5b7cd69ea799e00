/* What several handlers share. */
#include "handle.h"

#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "etag.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "text.h"
#include "ttl.h"

static const char handle_meta_prefix[] = "content_type=";

int handle_reserved(struct bts_slice bucket)
{
	return bucket.size && *(const char *)bucket.data == '\0';
}

struct bts_txn *handle_begin(struct request *r)
{
	const struct bts_slice *snapshot = request_param(r, "snapshot");
	struct bts *db = role_db(request_role(r));
	struct bts_error error = {0};
	struct bts_txn *txn;
	enum bts_err err;

	if (!db) {
		reply_problem(r, 503, "unavailable", NULL, "this follower has not received the database yet");
		return NULL;
	}
	if (snapshot)
		return handle_begin_at(r, db, snapshot);
	if (role_follows(request_role(r))) { /* before: what comes in meanwhile makes it no fresher */
		r->begun_lag_ms = role_lag_ms(request_role(r));
		r->begun_ms = role_clock_ms();
	}
	err = bts_begin(db, BTS_READ, &txn, &error);
	if (err) {
		reply_error(r, err, &error);
		return NULL;
	}
	r->txid = bts_txn_id(txn);
	r->token = 1;
	return txn;
}

struct bts_bucket *handle_open_bucket(struct request *r, struct bts_txn *txn)
{
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	enum bts_err err;

	err = bts_bucket(txn, r->bucket, 0, &bucket, &error);
	if (!err)
		return bucket;
	bts_abort(txn);
	if (err == BTS_NOT_FOUND)
		reply_problem(r, 404, "bucket-not-found", NULL, "there is no such bucket");
	else
		reply_error(r, err, &error);
	return NULL;
}

void handle_end(void *txn)
{
	bts_abort(txn);
}

int handle_write_failed(struct request *r)
{
	r->txid = r->op.txid;
	if (r->op.result == WRITER_FAILED)
		reply_error(r, r->op.error.code, &r->op.error);
	else if (r->op.result == WRITER_NO_BUCKET)
		reply_problem(r, 404, "bucket-not-found", NULL, "there is no such bucket");
	else
		return 0;
	return 1;
}

static int handle_condition(struct request *r, const char *name, int weak, struct writer_tags *tags)
{
	struct buf text = {0};
	int failed, bad = 0;

	request_get_list(r, name, &text);
	failed = text.failed;
	if (failed)
		reply_problem(r, 503, "out-of-memory", NULL, "out of memory");
	else
		bad = etag_parse(text.data, weak, tags);
	if (bad)
		reply_problem(r, 400, "invalid-header", NULL, "%s is malformed, or has more than %d tags",
			name, WRITER_TAGS_MAX);
	buf_fini(&text);
	return failed || bad ? -1 : 0;
}

int handle_conditions(struct request *r, struct writer_conditions *conditions)
{
	if (handle_condition(r, "If-None-Match", 1, &conditions->none_match))
		return -1;
	return handle_condition(r, "If-Match", 0, &conditions->match);
}

int handle_ttl(struct request *r, uint64_t *ms)
{
	const struct bts_slice *text = request_param(r, "ttl");

	*ms = 0;
	if (!text)
		return 0;
	if (!text_duration_ms(text->data, text->size, ms) && *ms && *ms <= TTL_MAX_MS)
		return 0;
	snprintf(r->problem, sizeof(r->problem),
		"ttl is a duration above 0 and at most 36600d, as 500ms, 30s, 15m, 8h, 7d");
	request_refuse(r, 400, "invalid-parameter");
	return -1;
}

void handle_expires(struct request *r, uint64_t expires_ms)
{
	char text[TTL_TEXT_MAX];

	if (!expires_ms)
		return;
	ttl_text(expires_ms, text);
	request_set_header(r, "BTS-Expires", text);
}

void handle_content_type(struct bts_slice meta, char type[INPUT_CONTENT_TYPE_MAX + 1])
{
	size_t skip = sizeof(handle_meta_prefix) - 1, i;

	strcpy(type, "application/octet-stream");
	if (meta.size <= skip || meta.size - skip > INPUT_CONTENT_TYPE_MAX ||
		memcmp(meta.data, handle_meta_prefix, skip))
		return;
	for (i = skip; i < meta.size; i++)
		if (((const char *)meta.data)[i] < ' ' || ((const char *)meta.data)[i] > '~')
			return;
	memcpy(type, (const char *)meta.data + skip, meta.size - skip);
	type[meta.size - skip] = '\0';
}

/* Tells a cursor from a key that happens to begin with its mark (FNV-1a). */
static uint32_t handle_cursor_sum(const uint8_t *key, size_t size)
{
	uint32_t sum = 2166136261u;
	size_t i;

	for (i = 0; i < size; i++)
		sum = (sum ^ key[i]) * 16777619u;
	return sum;
}

void handle_cursor(struct buf *b, struct bts_slice key)
{
	uint8_t bytes[BTS_KEY_MAX + 4];
	uint32_t sum = handle_cursor_sum(key.data, key.size);

	memcpy(bytes, key.data, key.size);
	memcpy(bytes + key.size, &sum, 4);
	buf_str(b, "~");
	text_base64url(b, bytes, key.size + 4);
}

size_t handle_cursor_key(struct bts_slice text, char *out)
{
	uint8_t bytes[(BTS_KEY_MAX + 4) * 2];
	const char *s = text.data;
	uint32_t sum;
	long n = -1;

	if (text.size > 1 && text.size < sizeof(bytes) && s[0] == '~')
		n = text_base64url_decode(s + 1, text.size - 1, bytes);
	if (n > 4 && n <= BTS_KEY_MAX + 4) {
		memcpy(&sum, bytes + n - 4, 4);
		if (sum == handle_cursor_sum(bytes, (size_t)n - 4)) {
			memcpy(out, bytes, (size_t)n - 4);
			return (size_t)n - 4;
		}
	}
	if (text.size > BTS_KEY_MAX)
		return 0;
	memcpy(out, s, text.size);
	return text.size;
}
