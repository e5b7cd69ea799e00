/*
 * Many keys at one snapshot: POST /v1/get.
 *
 * The answer is made while it is sent, values straight from the map in pieces, so it takes no memory but the request's.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "handle.h"
#include "handle_txn.h"
#include "jsonout.h"
#include "reply.h"
#include "request.h"
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
	uint64_t expires = 0;
	bts_txid version;
	enum bts_err err = handle_get_open(g, op->bucket);

	if (err)
		return err;
	if (!g->bucket) {
		buf_str(b, "{\"found\":false,\"code\":\"bucket-not-found\"}");
		return BTS_OK;
	}
	err = ttl_get(&g->ttl, g->bucket, op->bucket, op->key, &value, &version, &expires);
	if (err == BTS_NOT_FOUND) {
		buf_str(b, "{\"found\":false}");
		return BTS_OK;
	}
	if (!err) {
		txn_found(b, version, expires);
		jsonout_pieces(&g->pieces, b, "value", value);
		g->in_value = 1;
	}
	return err;
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
	if (g->next == g->txn.then.count) {
		buf_printf(b, "%s],\"txid\":%" PRIu64 "}\n", g->next ? "" : "{\"items\":[",
			(uint64_t)bts_txn_id(g->snapshot));
		return 0;
	}
	buf_str(b, g->next ? ",\n" : "{\"items\":[");
	g->broken = handle_get_item(g, b, &g->txn.then.ops[g->next]);
	g->next++;
	return g->broken ? -1 : 1;
}

static void handle_get_release(void *arg)
{
	struct handle_get *g = arg;

	bts_abort(g->snapshot);
	txn_fini(&g->txn);
	free(g);
}

void handle_get(struct request *r)
{
	struct handle_get *g = calloc(1, sizeof(*g));
	struct reply_stream stream = {handle_get_fill, handle_get_release, g};
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
	reply_error(r, g->broken ? g->broken : BTS_MEMORY, bts_txn_error(g->snapshot));
fail:
	handle_get_release(g);
}
