/* What changed, as text: a difference of two states walked, an event a change. */
#include <inttypes.h>
#include <string.h>

#include "auth.h"
#include "handle.h"
#include "input.h"
#include "jsonout.h"
#include "range.h"
#include "text.h"
#include "watch_internal.h"

static const char *const text_ops[] = {
	[BTS_CHANGE_PUT] = "put",
	[BTS_CHANGE_DELETE] = "delete",
	[BTS_CHANGE_BUCKET_CREATED] = "bucket-created",
	[BTS_CHANGE_BUCKET_DROPPED] = "bucket-dropped",
	[BTS_CHANGE_BUCKET_META] = "bucket-changed",
};

/* The server's own buckets come first, and are passed over: from the name that is above all of theirs on. */
static enum bts_err text_skip_reserved(struct watch_walk *walk)
{
	uint8_t last[BTS_BUCKET_NAME_MAX];

	memset(last, 0xff, sizeof(last));
	last[0] = 0;
	return bts_diff_seek(walk->diff, (struct bts_slice){last, sizeof(last)}, (struct bts_slice){NULL, 0},
		&walk->error);
}

static enum bts_err text_skip_bucket(struct watch_walk *walk, struct bts_slice bucket)
{
	uint8_t last[BTS_KEY_MAX];

	memset(last, 0xff, sizeof(last));
	return bts_diff_seek(walk->diff, bucket, (struct bts_slice){last, sizeof(last)}, &walk->error);
}

enum bts_err watch_walk_open(struct watch_walk *walk, const struct watch_filter *filter,
	struct bts_txn *older, struct bts_txn *newer)
{
	struct bts_diff_options options = {
		.size = sizeof(options), .bucket = filter->bucket, .from = filter->prefix};
	struct range_bound past = {.size = 0};
	enum bts_err err;

	memset(walk, 0, sizeof(*walk));
	walk->filter = filter;
	if (filter->prefix.size)
		range_past(filter->prefix, &past);
	options.to = range_slice(&past);
	err = bts_diff_open(older, newer, &options, &walk->diff, &walk->error);
	if (!err)
		err = ttl_open(&walk->ttl, newer);
	if (!err && !filter->bucket.size)
		err = text_skip_reserved(walk);
	if (err)
		watch_walk_close(walk);
	return err;
}

void watch_walk_close(struct watch_walk *walk)
{
	bts_diff_close(walk->diff);
	walk->diff = NULL;
}

static void text_begin(const struct watch_walk *walk, struct buf *b)
{
	if (walk->filter->form == WATCH_SSE)
		buf_str(b, "event: change\ndata: ");
	else if (walk->filter->form == WATCH_JSON && walk->events)
		buf_str(b, ",\n");
}

static void text_end(enum watch_form form, struct buf *b)
{
	buf_str(b, form == WATCH_SSE ? "\n\n" : form == WATCH_NDJSON ? "\n" : "");
}

static void text_number(struct buf *b, const char *name, uint64_t value)
{
	char digits[21];

	buf_str(b, name);
	buf_add(b, digits, text_from_u64(value, digits));
}

/* Large values are read only when they are asked for and not too long. */
static enum bts_err text_put(
	struct watch_walk *walk, struct bts_change *change, uint64_t expires_ms, struct buf *b)
{
	char expires[TTL_TEXT_MAX];
	enum bts_err err = BTS_OK;

	text_number(b, ",\"version\":", change->version);
	text_number(b, ",\"size\":", change->value_size);
	if (expires_ms) {
		ttl_text(expires_ms, expires);
		buf_printf(b, ",\"expires\":\"%s\"", expires);
	}
	if (!walk->filter->values || change->value_size > WATCH_VALUE_MAX)
		return BTS_OK;
	if (!change->value.data)
		err = bts_diff_value(walk->diff, &change->value, &walk->error);
	if (!err) {
		buf_str(b, ",");
		jsonout_bytes(b, "value", change->value);
	}
	return err;
}

static enum bts_err text_event(struct watch_walk *walk, struct bts_change *change, struct buf *b)
{
	char type[INPUT_CONTENT_TYPE_MAX + 1];
	uint64_t expires_ms = 0;
	enum bts_err err = BTS_OK;
	int alive = 1;

	if (change->kind == BTS_CHANGE_PUT) {
		err = ttl_judge(
			&walk->ttl, change->bucket, change->key, change->version, &alive, &expires_ms);
		if (!alive)
			change->kind = BTS_CHANGE_DELETE;
	}
	if (err)
		return err;
	text_begin(walk, b);
	buf_str(b, "{\"op\":\"");
	buf_str(b, text_ops[change->kind]);
	buf_str(b, "\",");
	jsonout_bytes(b, "bucket", change->bucket);
	if (change->kind == BTS_CHANGE_PUT || change->kind == BTS_CHANGE_DELETE) {
		buf_str(b, ",");
		jsonout_bytes(b, "key", change->key);
	}
	if (change->kind == BTS_CHANGE_PUT)
		err = text_put(walk, change, expires_ms, b);
	if (change->kind == BTS_CHANGE_BUCKET_CREATED || change->kind == BTS_CHANGE_BUCKET_META) {
		handle_content_type(change->meta, type);
		buf_str(b, ",\"content_type\":");
		jsonout_string(b, type);
	}
	buf_str(b, "}");
	text_end(walk->filter->form, b);
	return err;
}

enum bts_err watch_walk_next(struct watch_walk *walk, struct buf *b)
{
	struct bts_change change = {.size = sizeof(change)};
	enum bts_err err = bts_diff_next(walk->diff, &change, &walk->error);

	while (!err && !auth_among(walk->filter->allowed, change.bucket)) {
		err = text_skip_bucket(walk, change.bucket);
		if (!err)
			err = bts_diff_next(walk->diff, &change, &walk->error);
	}
	if (!err && b)
		err = text_event(walk, &change, b);
	if (!err)
		walk->events++;
	return err;
}

void watch_text_group(struct buf *b, enum watch_form form, bts_txid from, bts_txid to, const char *bookmark)
{
	if (form == WATCH_SSE && *bookmark)
		buf_printf(b, "id: %s\n", bookmark);
	if (form == WATCH_SSE)
		buf_str(b, "event: group\ndata: ");
	text_number(b, form == WATCH_JSON ? "],\"from\":" : "{\"from\":", from);
	text_number(b, ",\"to\":", to);
	if (*bookmark)
		buf_printf(b, ",\"bookmark\":\"%s\"}", bookmark);
	else
		buf_str(b, ",\"bookmark\":null}");
	text_end(form, b);
}

void watch_text_error(struct buf *b, enum watch_form form, const char *code, const char *detail)
{
	if (form == WATCH_JSON)
		return;
	if (form == WATCH_SSE)
		buf_str(b, "event: error\ndata: ");
	buf_printf(b, "{\"error\":{\"code\":\"%s\",\"detail\":", code);
	jsonout_string(b, detail);
	buf_str(b, "}}");
	text_end(form, b);
}
