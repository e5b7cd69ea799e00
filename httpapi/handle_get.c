/*
 * Many keys at one snapshot: POST /v1/get.
 *
 * The answer is made while it is sent, values straight from the map in pieces, so it takes no memory but the request's.  Large ones are
 * verified by threads of their own before (large.h).
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "handle.h"
#include "handle_txn.h"
#include "jsonout.h"
#include "large.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "ttl.h"
#include "txn_run.h"

struct handle_get {
	struct txn txn;
	struct bts_txn *snapshot;
	struct ttl_view ttl;
	size_t next;		   /* item */
	struct bts_bucket *bucket; /* the one that is open; NULL: there is none of that name */
	struct bts_slice name;
	struct jsonout_pieces pieces;
	int in_value;
	/* of the item whose value is being verified */
	struct large large;
	int in_large;
	bts_txid version;
	uint64_t expires_ms;
	enum bts_err broken;
};

static enum bts_err handle_get_open(struct handle_get *g, struct bts_slice name)
{
	enum bts_err err;

	if (g->name.size == name.size && !memcmp(g->name.data, name.data, name.size))
		return BTS_OK;
	g->name = name;
	g->bucket = NULL;
	err = bts_bucket(g->snapshot, name, 0, &g->bucket, NULL);
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err handle_get_item(struct handle_get *g, struct buf *b, const struct txn_op *op)
{
	struct bts_slice value;
	enum bts_err err = handle_get_open(g, op->bucket);

	if (err)
		return err;
	if (!g->bucket) {
		buf_str(b, "{\"found\":false,\"code\":\"bucket-not-found\"}");
		return BTS_OK;
	}
	g->expires_ms = 0;
	err = ttl_peek(&g->ttl, g->bucket, op->bucket, op->key, &value, &g->version, &g->expires_ms);
	if (err == BTS_NOT_FOUND) {
		buf_str(b, "{\"found\":false}");
		return BTS_OK;
	}
	if (!err && !value.data && value.size > LARGE_INLINE) {
		large_begin(&g->large, g->snapshot, g->bucket, op->key);
		g->in_large = 1;
		return BTS_OK;
	}
	if (!err && !value.data)
		err = bts_get(g->snapshot, g->bucket, op->key, &value);
	if (!err) {
		txn_found(b, g->version, g->expires_ms);
		jsonout_pieces(&g->pieces, b, "value", value);
		g->in_value = 1;
	}
	return err;
}

static int handle_get_work(void *arg)
{
	struct handle_get *g = arg;

	return large_step(&g->large);
}

/* It has been verified, or cannot be. */
static int handle_get_large(struct handle_get *g, struct buf *b)
{
	g->in_large = 0;
	g->broken = g->large.err;
	if (g->broken)
		return -1;
	txn_found(b, g->version, g->expires_ms);
	jsonout_pieces_known(&g->pieces, b, "value", g->large.value, g->large.plain);
	g->in_value = 1;
	return 1;
}

static int handle_get_fill(void *arg, struct buf *b)
{
	struct handle_get *g = arg;

	if (g->in_value) {
		g->in_value = !jsonout_piece(&g->pieces, b);
		if (!g->in_value)
			buf_str(b, "}");
		return 1;
	}
	if (g->in_large)
		return handle_get_large(g, b);
	if (g->next == g->txn.then.count) {
		buf_printf(b, "%s],\"txid\":%" PRIu64 "}\n", g->next ? "" : "{\"items\":[",
			(uint64_t)bts_txn_id(g->snapshot));
		return 0;
	}
	buf_str(b, g->next ? ",\n" : "{\"items\":[");
	g->broken = handle_get_item(g, b, &g->txn.then.ops[g->next]);
	g->next++;
	if (g->in_large)
		return REPLY_WORK;
	return g->broken ? -1 : 1;
}

static void handle_get_release(void *arg)
{
	struct handle_get *g = arg;

	bts_abort(g->snapshot);
	txn_fini(&g->txn);
	free(g);
}

static void handle_get_broke(struct request *r, void *arg)
{
	struct handle_get *g = arg;

	reply_error(r, g->broken ? g->broken : BTS_MEMORY, bts_txn_error(g->snapshot));
}

static void handle_get_cut(struct request *r, void *arg)
{
	struct handle_get *g = arg;

	role_met(request_role(r), g->broken, bts_txn_error(g->snapshot));
}

void handle_get(struct request *r)
{
	struct handle_get *g = calloc(1, sizeof(*g));
	struct reply_stream stream = {handle_get_fill, handle_get_release, g, handle_get_work, handle_get_broke, handle_get_cut};
	enum bts_err err;
	size_t held;

	if (!g) {
		reply_error(r, BTS_MEMORY, NULL);
		return;
	}
	if (handle_txn_take(r, txn_parse_get, &g->txn, &held) || handle_txn_allowed(r, &g->txn))
		goto fail;
	g->snapshot = handle_begin(r);
	if (!g->snapshot)
		goto fail;
	err = ttl_open(&g->ttl, g->snapshot);
	if (err) {
		reply_error(r, err, bts_txn_error(g->snapshot));
		goto fail;
	}
	if (!reply_stream(r, 200, "application/json", &stream))
		return;
	handle_get_broke(r, g);
fail:
	handle_get_release(g);
}
