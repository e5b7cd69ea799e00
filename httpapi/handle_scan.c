/*
 * Ordered listings: GET /v1/buckets/{bucket}/keys, a page of JSON or all of it as NDJSON.
 *
 * The listing is made while it is sent: a cursor on one snapshot, blocks of bounded size, a long value in
 * pieces.  What it holds of the file is let go at its end, or when the client is too slow and the connection
 * is cut.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "handle.h"
#include "jsonout.h"
#include "reply.h"
#include "request.h"
#include "text.h"

#define SCAN_LIMIT_DEFAULT 100
#define SCAN_LIMIT_MAX 10000
#define SCAN_PIECE 12288 /* bytes of a value at a time; a multiple of 3 for base64 */

struct scan_bound {
	char bytes[BTS_KEY_MAX];
	size_t size; /* 0: none */
};

enum scan_phase { SCAN_START, SCAN_ITEM, SCAN_VALUE, SCAN_DONE };

struct scan {
	struct bts_txn *txn;
	struct bts_cursor *cursor;
	struct scan_bound low, high; /* low <= key < high */
	int low_open;		     /* low < key */
	int reverse, values, ndjson;
	uint64_t limit, count;
	bts_txid txid;
	enum scan_phase phase;
	enum bts_err broken;
	struct bts_slice key, value, last;
	size_t value_sent;
	int value_plain;
};

static int scan_compare(struct bts_slice key, const struct scan_bound *bound)
{
	size_t n = key.size < bound->size ? key.size : bound->size;
	int order = memcmp(key.data, bound->bytes, n);

	return order ? order : key.size < bound->size ? -1 : key.size > bound->size;
}

/* ---- from the parameters to a range ---- */

/* Raise low (or lower high) to key, when it is the tighter one. */
static void scan_tighten(struct scan_bound *bound, const void *key, size_t size, int raise)
{
	int order = bound->size ? scan_compare((struct bts_slice){key, size}, bound) : 0;

	if (!bound->size || (raise ? order > 0 : order < 0)) {
		memcpy(bound->bytes, key, size);
		bound->size = size;
	}
}

static void scan_prefix(struct scan *s, const struct bts_slice *prefix)
{
	char after[BTS_KEY_MAX];
	size_t n = prefix->size;

	scan_tighten(&s->low, prefix->data, prefix->size, 1);
	memcpy(after, prefix->data, n);
	while (n && (unsigned char)after[n - 1] == 0xff)
		n--;
	if (n) {
		after[n - 1]++;
		scan_tighten(&s->high, after, n, 0);
	}
}

/* A parameter that holds a key; NULL when absent or empty, *bad set after a reply. */
static const struct bts_slice *scan_key_param(struct request *r, const char *name, size_t max, int *bad)
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

static int scan_bounds(struct request *r, struct scan *s)
{
	int bad = 0;
	const struct bts_slice *prefix = scan_key_param(r, "prefix", BTS_KEY_MAX, &bad);
	const struct bts_slice *from = scan_key_param(r, "from", BTS_KEY_MAX, &bad);
	const struct bts_slice *to = scan_key_param(r, "to", BTS_KEY_MAX, &bad);
	const struct bts_slice *after = scan_key_param(r, "after", 2 * BTS_KEY_MAX, &bad);
	char key[BTS_KEY_MAX];
	size_t n = 0;

	if (!bad && after) {
		n = handle_cursor_key(*after, key);
		if (!n) {
			reply_problem(
				r, 400, "invalid-parameter", NULL, "after is neither a cursor nor a key");
			bad = 1;
		}
	}
	if (bad)
		return -1;
	if (prefix)
		scan_prefix(s, prefix);
	if (from)
		scan_tighten(&s->low, from->data, from->size, 1);
	if (to)
		scan_tighten(&s->high, to->data, to->size, 0);
	if (after && s->reverse) {
		scan_tighten(&s->high, key, n, 0);
	} else if (after) {
		scan_tighten(&s->low, key, n, 1);
		s->low_open = !scan_compare((struct bts_slice){key, n}, &s->low);
	}
	return 0;
}

static int scan_accepts_ndjson(const struct request *r)
{
	const char *accept = request_get_header(r, "Accept");

	return accept && strcasestr(accept, "application/x-ndjson");
}

static int scan_params(struct request *r, struct scan *s)
{
	s->ndjson = scan_accepts_ndjson(r);
	s->limit = s->ndjson ? UINT64_MAX : SCAN_LIMIT_DEFAULT;
	s->reverse = request_param_flag(r, "reverse");
	if (s->reverse < 0)
		return -1;
	s->values = request_param_flag(r, "values");
	if (s->values < 0 ||
		request_param_u64(r, "limit", 1, s->ndjson ? UINT64_MAX : SCAN_LIMIT_MAX, &s->limit))
		return -1;
	return scan_bounds(r, s);
}

/* ---- the walk ---- */

static enum bts_err scan_first(struct scan *s, struct bts_slice *value)
{
	enum bts_err err;

	if (!s->reverse) {
		if (!s->low.size)
			return bts_cursor_first(s->cursor, &s->key, value);
		err = bts_cursor_seek(
			s->cursor, (struct bts_slice){s->low.bytes, s->low.size}, &s->key, value);
		if (!err && s->low_open && !scan_compare(s->key, &s->low))
			err = bts_cursor_next(s->cursor, &s->key, value);
		return err;
	}
	if (!s->high.size)
		return bts_cursor_last(s->cursor, &s->key, value);
	err = bts_cursor_seek(s->cursor, (struct bts_slice){s->high.bytes, s->high.size}, &s->key, value);
	if (err == BTS_NOT_FOUND)
		return bts_cursor_last(s->cursor, &s->key, value);
	return err ? err : bts_cursor_prev(s->cursor, &s->key, value);
}

/* The next entry of the range; BTS_NOT_FOUND at its end. */
static enum bts_err scan_advance(struct scan *s)
{
	/* A value that is not asked for is not touched: it may be large, and not in memory. */
	struct bts_slice *value = s->values ? &s->value : NULL;
	enum bts_err err;

	if (s->phase == SCAN_START)
		err = scan_first(s, value);
	else if (s->reverse)
		err = bts_cursor_prev(s->cursor, &s->key, value);
	else
		err = bts_cursor_next(s->cursor, &s->key, value);
	if (err)
		return err;
	if (s->reverse ? s->low.size && scan_compare(s->key, &s->low) < 0
		       : s->high.size && scan_compare(s->key, &s->high) >= 0)
		return BTS_NOT_FOUND;
	return BTS_OK;
}

/* ---- the text ---- */

static void scan_item_begin(struct scan *s, struct buf *b)
{
	if (!s->ndjson && s->count)
		buf_str(b, ",\n");
	buf_str(b, "{");
	jsonout_bytes(b, "key", s->key);
	buf_printf(b, ",\"version\":%" PRIu64, (uint64_t)bts_cursor_version(s->cursor));
	if (s->values) {
		s->value_plain = text_utf8_plain(s->value.data, s->value.size);
		s->value_sent = 0;
		buf_printf(b, ",\"size\":%zu,\"%s\":\"", s->value.size,
			s->value_plain ? "value" : "value_base64");
		s->phase = SCAN_VALUE;
	} else {
		buf_str(b, s->ndjson ? "}\n" : "}");
	}
	s->last = s->key;
	s->count++;
}

static void scan_value_piece(struct scan *s, struct buf *b)
{
	const char *at = (const char *)s->value.data + s->value_sent;
	size_t n = s->value.size - s->value_sent;

	if (n > SCAN_PIECE)
		n = SCAN_PIECE;
	if (s->value_plain)
		jsonout_escape(b, at, n);
	else
		text_base64(b, at, n);
	s->value_sent += n;
	if (s->value_sent == s->value.size) {
		buf_str(b, s->ndjson ? "\"}\n" : "\"}");
		s->phase = SCAN_ITEM;
	}
}

static void scan_end(struct scan *s, struct buf *b, int more)
{
	if (s->ndjson)
		buf_printf(b, "{\"end\":true,\"count\":%" PRIu64 ",\"txid\":%" PRIu64, s->count,
			(uint64_t)s->txid);
	else
		buf_printf(b, "],\"txid\":%" PRIu64, (uint64_t)s->txid);
	if (more) {
		buf_str(b, ",\"next\":\"");
		handle_cursor(b, s->last);
		buf_str(b, "\"}\n");
	} else {
		buf_str(b, ",\"next\":null}\n");
	}
	s->phase = SCAN_DONE;
}

/* The listing cannot be finished: an NDJSON reader is told why before the connection is cut. */
static int scan_broken(struct scan *s, struct buf *b, enum bts_err err)
{
	const struct bts_error *error = bts_txn_error(s->txn);
	const char *code;

	s->broken = err;
	reply_meaning(err, &code);
	if (s->ndjson) {
		buf_printf(b, "{\"error\":{\"code\":\"%s\",\"detail\":", code);
		jsonout_string(b, error && error->text[0] ? error->text : bts_err_name(err));
		buf_str(b, "}}\n");
	}
	return -1;
}

static int scan_fill(void *arg, struct buf *b)
{
	struct scan *s = arg;
	enum bts_err err;

	if (s->phase == SCAN_VALUE) {
		scan_value_piece(s, b);
		return 1;
	}
	if (s->phase == SCAN_START && !s->ndjson)
		buf_str(b, "{\"items\":[");
	err = scan_advance(s);
	s->phase = SCAN_ITEM;
	if (err && err != BTS_NOT_FOUND)
		return scan_broken(s, b, err);
	if (err || s->count == s->limit) {
		scan_end(s, b, !err);
		return 0;
	}
	scan_item_begin(s, b);
	return 1;
}

static void scan_release(void *arg)
{
	struct scan *s = arg;

	bts_cursor_close(s->cursor);
	bts_abort(s->txn);
	free(s);
}

void handle_scan(struct request *r)
{
	struct scan *s = calloc(1, sizeof(*s));
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct reply_stream stream = {scan_fill, scan_release, s};
	enum bts_err err;

	if (!s) {
		reply_error(r, BTS_MEMORY, NULL);
		return;
	}
	if (scan_params(r, s))
		goto fail;
	s->txn = handle_begin(r);
	bucket = s->txn ? handle_open_bucket(r, s->txn) : NULL;
	if (!bucket) {
		s->txn = NULL;
		goto fail;
	}
	s->txid = r->txid;
	err = bts_cursor_open(s->txn, bucket, &s->cursor, &error);
	if (err) {
		reply_error(r, err, &error);
		goto fail;
	}
	if (!reply_stream(r, 200, s->ndjson ? "application/x-ndjson" : "application/json", &stream))
		return;
	reply_error(r, s->broken ? s->broken : BTS_MEMORY, bts_txn_error(s->txn));

fail:
	scan_release(s);
}
