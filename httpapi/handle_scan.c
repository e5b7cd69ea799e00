/*
 * Ordered listings: GET /v1/buckets/{bucket}/keys, a page of JSON or all of it as NDJSON.
 *
 * The listing is made while it is sent: a cursor on one snapshot, blocks of bounded size, a long value in
 * pieces, verified before by threads of its own (large.h).  What it holds of the file is let go at its end, or when the client is too slow and the connection
 * is cut.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "handle.h"
#include "jsonout.h"
#include "large.h"
#include "range.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "ttl.h"

#define SCAN_LIMIT_DEFAULT 100
#define SCAN_LIMIT_MAX 10000
#define SCAN_PASSED_MAX 4096 /* entries whose time is over, before other connections have their turn */

enum scan_phase { SCAN_START, SCAN_ITEM, SCAN_LARGE, SCAN_VALUE, SCAN_DONE };

struct scan {
	struct bts_txn *txn;
	struct bts_cursor *cursor;
	struct bts_bucket *opened;
	struct bts_slice bucket; /* its name */
	struct ttl_view ttl;
	uint64_t expires_ms; /* of the entry it stands on, 0: never */
	struct range range;
	int low_open; /* without the low bound itself */
	int nothing;  /* no key can be in it */
	struct bts_slice prefix, delimiter; /* of the request, which outlives the sending; delimiter empty: none */
	struct bts_slice group;		    /* the common prefix told last, to be passed over */
	int reverse, values, ndjson;
	uint64_t limit, count; /* items and common prefixes */
	int listed;	       /* an item at least, of JSON */
	struct buf groups;     /* JSON: the common prefixes, which follow the items */
	bts_txid txid;
	enum scan_phase phase;
	enum bts_err broken;
	struct bts_slice key, value, last;
	struct jsonout_pieces pieces; /* of the value being sent */
	struct large large;	      /* SCAN_LARGE: its verification */
};

/* ---- from the parameters to a range ---- */

/*
 * How many bytes of a key are the common prefix it stands under: through the first delimiter after what is asked for.  0: none, it
 * is listed itself.
 */
static size_t scan_rolled(const struct scan *s, struct bts_slice key)
{
	const char *at = key.data, *found;

	if (!s->delimiter.size || key.size < s->prefix.size ||
		(s->prefix.size && memcmp(at, s->prefix.data, s->prefix.size)))
		return 0;
	found = memmem(at + s->prefix.size, key.size - s->prefix.size, s->delimiter.data, s->delimiter.size);
	return found ? (size_t)(found - at) + s->delimiter.size : 0;
}

/* After a key comes no common prefix that it stands under, so what begins with that is passed over. */
static void scan_after(struct scan *s, struct bts_slice key)
{
	size_t rolled = scan_rolled(s, key);
	struct range_bound past;

	if (s->reverse) {
		range_to(&s->range, key);
	} else if (rolled) {
		range_past((struct bts_slice){key.data, rolled}, &past);
		s->nothing = !past.size;
		if (past.size)
			range_from(&s->range, range_slice(&past));
	} else {
		range_from(&s->range, key);
		s->low_open = !range_compare(key, &s->range.low);
	}
}

static int scan_bounds(struct request *r, struct scan *s)
{
	int bad = 0;
	const struct bts_slice *after = handle_key_param(r, "after", 2 * BTS_KEY_MAX, &bad);
	const struct bts_slice *prefix = handle_key_param(r, "prefix", BTS_KEY_MAX, &bad);
	const struct bts_slice *delimiter = handle_key_param(r, "delimiter", BTS_KEY_MAX, &bad);
	char key[BTS_KEY_MAX];
	size_t n = 0;

	if (bad || handle_range_params(r, &s->range))
		return -1;
	if (prefix)
		s->prefix = *prefix;
	if (delimiter)
		s->delimiter = *delimiter;
	if (!after)
		return 0;
	n = handle_cursor_key(*after, key);
	if (n) {
		scan_after(s, (struct bts_slice){key, n});
		return 0;
	}
	reply_problem(r, 400, "invalid-parameter", NULL, "after is neither a cursor nor a key");
	return -1;
}

/* One that is there and empty is as good as none. */
static int scan_given(const struct request *r, const char *name)
{
	const struct bts_slice *value = request_param(r, name);

	return value && value->size;
}

static int scan_params(struct request *r, struct scan *s)
{
	s->ndjson = request_accepts(r, "application/x-ndjson");
	s->limit = s->ndjson ? UINT64_MAX : SCAN_LIMIT_DEFAULT;
	s->reverse = scan_given(r, "reverse") ? request_param_flag(r, "reverse") : 0;
	if (s->reverse < 0)
		return -1;
	s->values = scan_given(r, "values") ? request_param_flag(r, "values") : 0;
	if (s->values < 0)
		return -1;
	if (scan_given(r, "limit") &&
		request_param_u64(r, "limit", 1, s->ndjson ? UINT64_MAX : SCAN_LIMIT_MAX, &s->limit))
		return -1;
	return scan_bounds(r, s);
}

/* ---- the walk ---- */

static enum bts_err scan_below(struct scan *s, struct bts_slice bound)
{
	enum bts_err err = bts_cursor_seek(s->cursor, bound, &s->key, NULL);

	if (err == BTS_NOT_FOUND)
		return bts_cursor_last(s->cursor, &s->key, NULL);
	return err ? err : bts_cursor_prev(s->cursor, &s->key, NULL);
}

static enum bts_err scan_first(struct scan *s)
{
	const struct range_bound *low = &s->range.low, *high = &s->range.high;
	enum bts_err err;

	if (s->nothing)
		return BTS_NOT_FOUND;
	if (s->reverse)
		return high->size ? scan_below(s, range_slice(high))
				  : bts_cursor_last(s->cursor, &s->key, NULL);
	if (!low->size)
		return bts_cursor_first(s->cursor, &s->key, NULL);
	err = bts_cursor_seek(s->cursor, range_slice(low), &s->key, NULL);
	if (!err && s->low_open && !range_compare(s->key, low))
		err = bts_cursor_next(s->cursor, &s->key, NULL);
	return err;
}

/* Past all that begins with the common prefix, by one search. */
static enum bts_err scan_past_group(struct scan *s)
{
	struct bts_slice group = s->group;
	struct range_bound past;

	s->group.size = 0;
	if (s->reverse)
		return scan_below(s, group);
	range_past(group, &past);
	return past.size ? bts_cursor_seek(s->cursor, range_slice(&past), &s->key, NULL) : BTS_NOT_FOUND;
}

/* The next entry of the range, alive or not.  Values are not touched here: they may be large, and not in memory. */
static enum bts_err scan_step(struct scan *s)
{
	enum bts_err err;

	if (s->phase == SCAN_START)
		err = scan_first(s);
	else if (s->group.size)
		err = scan_past_group(s);
	else if (s->reverse)
		err = bts_cursor_prev(s->cursor, &s->key, NULL);
	else
		err = bts_cursor_next(s->cursor, &s->key, NULL);
	s->phase = SCAN_ITEM;
	if (err)
		return err;
	if (s->reverse ? s->range.low.size && range_compare(s->key, &s->range.low) < 0
		       : s->range.high.size && range_compare(s->key, &s->range.high) >= 0)
		return BTS_NOT_FOUND;
	return BTS_OK;
}

/* The next that is alive, if there is one among so many; BTS_NOT_FOUND at the range's end. */
static enum bts_err scan_advance(struct scan *s, int *alive)
{
	enum bts_err err;
	int passed = 0;

	*alive = 0;
	do {
		err = scan_step(s);
		if (!err)
			err = ttl_judge(&s->ttl, s->bucket, s->key, bts_cursor_version(s->cursor), alive,
				&s->expires_ms);
	} while (!err && !*alive && ++passed < SCAN_PASSED_MAX);
	return err;
}

/* ---- the text ---- */

/* plain: what is known of the value, -1: nothing yet. */
static void scan_item_begin(struct scan *s, struct buf *b, int plain)
{
	char expires[TTL_TEXT_MAX];

	if (!s->ndjson && s->listed)
		buf_str(b, ",\n");
	s->listed = 1;
	buf_str(b, "{");
	jsonout_bytes(b, "key", s->key);
	buf_printf(b, ",\"version\":%" PRIu64, (uint64_t)bts_cursor_version(s->cursor));
	if (s->expires_ms) {
		ttl_text(s->expires_ms, expires);
		buf_printf(b, ",\"expires\":\"%s\"", expires);
	}
	if (s->values) {
		buf_printf(b, ",\"size\":%zu,", s->value.size);
		if (plain < 0)
			jsonout_pieces(&s->pieces, b, "value", s->value);
		else
			jsonout_pieces_known(&s->pieces, b, "value", s->value, plain);
		s->phase = SCAN_VALUE;
	} else {
		buf_str(b, s->ndjson ? "}\n" : "}");
	}
	s->last = s->key;
	s->count++;
}

static void scan_group(struct scan *s, struct buf *b, size_t size)
{
	struct buf *out = s->ndjson ? b : &s->groups;

	s->group = (struct bts_slice){s->key.data, size};
	if (!s->ndjson && out->size)
		buf_str(out, ",\n");
	buf_str(out, "{");
	jsonout_bytes(out, "prefix", s->group);
	buf_str(out, s->ndjson ? "}\n" : "}");
	s->last = s->group;
	s->count++;
}

static void scan_end(struct scan *s, struct buf *b, int more)
{
	if (s->ndjson)
		buf_printf(b, "{\"end\":true,\"count\":%" PRIu64 ",\"txid\":%" PRIu64, s->count,
			(uint64_t)s->txid);
	else
		buf_str(b, "]");
	if (!s->ndjson && s->delimiter.size) {
		buf_str(b, ",\"common_prefixes\":[");
		buf_add(b, s->groups.data, s->groups.size);
		buf_str(b, "]");
	}
	if (!s->ndjson)
		buf_printf(b, ",\"txid\":%" PRIu64, (uint64_t)s->txid);
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

static int scan_work(void *arg)
{
	struct scan *s = arg;

	return large_step(&s->large);
}

/* An item, at once or after its value was verified by another thread. */
static int scan_item(struct scan *s, struct buf *b)
{
	enum bts_err err = s->values ? bts_cursor_peek(s->cursor, &s->value) : BTS_OK;

	if (!err && s->values && !s->value.data && s->value.size > LARGE_INLINE) {
		large_begin(&s->large, s->txn, s->opened, s->key);
		s->phase = SCAN_LARGE;
		return REPLY_WORK;
	}
	if (!err && s->values && !s->value.data)
		err = bts_get(s->txn, s->opened, s->key, &s->value);
	if (err)
		return scan_broken(s, b, err);
	scan_item_begin(s, b, -1);
	return 1;
}

static int scan_item_large(struct scan *s, struct buf *b)
{
	if (s->large.err)
		return scan_broken(s, b, s->large.err);
	s->value = s->large.value;
	scan_item_begin(s, b, s->large.plain);
	return 1;
}

static int scan_fill(void *arg, struct buf *b)
{
	struct scan *s = arg;
	enum bts_err err;
	size_t rolled;
	int alive;

	if (s->phase == SCAN_VALUE) {
		if (jsonout_piece(&s->pieces, b)) {
			buf_str(b, s->ndjson ? "}\n" : "}");
			s->phase = SCAN_ITEM;
		}
		return 1;
	}
	if (s->phase == SCAN_LARGE)
		return scan_item_large(s, b);
	if (s->phase == SCAN_START && !s->ndjson)
		buf_str(b, "{\"items\":[");
	err = scan_advance(s, &alive);
	if (!err && s->groups.failed)
		err = BTS_MEMORY;
	if (err && err != BTS_NOT_FOUND)
		return scan_broken(s, b, err);
	if (!err && !alive)
		return REPLY_REST;
	if (err || s->count == s->limit) {
		scan_end(s, b, !err);
		return 0;
	}
	rolled = scan_rolled(s, s->key);
	if (!rolled)
		return scan_item(s, b);
	scan_group(s, b, rolled);
	return 1;
}

static void scan_release(void *arg)
{
	struct scan *s = arg;

	bts_cursor_close(s->cursor);
	bts_abort(s->txn);
	buf_fini(&s->groups);
	free(s);
}

static void scan_broke(struct request *r, void *arg)
{
	struct scan *s = arg;

	reply_error(r, s->broken ? s->broken : BTS_MEMORY, bts_txn_error(s->txn));
}

static void scan_cut(struct request *r, void *arg)
{
	struct scan *s = arg;

	role_met(request_role(r), s->broken, bts_txn_error(s->txn));
}

void handle_scan(struct request *r)
{
	struct scan *s = calloc(1, sizeof(*s));
	struct bts_error error = {0};
	struct reply_stream stream = {scan_fill, scan_release, s, scan_work, scan_broke, scan_cut};
	enum bts_err err;

	if (!s) {
		reply_error(r, BTS_MEMORY, NULL);
		return;
	}
	if (scan_params(r, s))
		goto fail;
	s->txn = handle_begin(r);
	s->opened = s->txn ? handle_open_bucket(r, s->txn) : NULL;
	if (!s->opened) {
		s->txn = NULL;
		goto fail;
	}
	s->txid = r->txid;
	s->bucket = r->bucket;
	err = ttl_open(&s->ttl, s->txn);
	if (!err)
		err = bts_cursor_open(s->txn, s->opened, &s->cursor, &error);
	if (err) {
		reply_error(r, err, &error);
		goto fail;
	}
	if (!reply_stream(r, 200, s->ndjson ? "application/x-ndjson" : "application/json", &stream))
		return;
	scan_broke(r, s);

fail:
	scan_release(s);
}
