/* Snapshots: leased ones under an id, named ones that stay, and reads on either (?snapshot=). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "durable.h"
#include "handle.h"
#include "jsonout.h"
#include "names.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "snapshots.h"
#include "status.h"

#define SNAPSHOT_TTL_DEFAULT_MS 60000
#define SNAPSHOT_PREFIX "name:"

/* ---- reads ---- */

static void snapshot_missing(struct request *r, enum bts_err err, const struct bts_error *error)
{
	if (err == BTS_NOT_FOUND)
		reply_problem(r, 404, "snapshot-not-found", NULL, "there is no such snapshot");
	else if (err == BTS_EXPIRED)
		reply_problem(r, 410, "snapshot-expired", NULL, "this snapshot has been let go");
	else
		reply_error(r, err, error);
}

struct bts_txn *handle_begin_at(struct request *r, struct bts *db, const struct bts_slice *which)
{
	size_t skip = strlen(SNAPSHOT_PREFIX);
	struct bts_error error = {0};
	struct bts_txn *txn;
	enum bts_err err;

	if (which->size > skip && !memcmp(which->data, SNAPSHOT_PREFIX, skip)) {
		struct bts_slice name = {(const char *)which->data + skip, which->size - skip};

		err = name.size > BTS_SNAPSHOT_NAME_MAX ? BTS_NOT_FOUND : bts_begin_at(db, name, &txn, &error);
	} else {
		err = snapshots_begin(request_server(r)->snapshots, *which, &txn, &error);
	}
	if (err) {
		snapshot_missing(r, err, &error);
		return NULL;
	}
	/* No token: it would take a client that carries it back to this state. */
	r->txid = bts_txn_id(txn);
	return txn;
}

/* ---- leases ---- */

static void snapshot_lease_json(struct buf *b, const struct snapshots_info *info)
{
	char ends[40];

	status_time(role_realtime_ms() + info->left_ms, ends);
	buf_printf(b,
		"{\"id\":\"%s\",\"txid\":%" PRIu64 ",\"ttl_ms\":%" PRIu64 ",\"expires\":\"%s\",\"held_bytes\":%" PRIu64 "}",
		info->id, (uint64_t)info->txid, info->left_ms, ends, info->held_bytes);
}

static void snapshot_lease_reply(struct request *r, unsigned status, const struct snapshots_info *info)
{
	struct buf b = {0}, place = {0};

	buf_printf(&place, "/v1/snapshots/%s%c", info->id, '\0');
	if (status == 201 && !place.failed)
		request_set_header(r, "Location", place.data);
	buf_fini(&place);
	request_set_header(r, "Cache-Control", "no-store");
	r->txid = info->txid;
	snapshot_lease_json(&b, info);
	buf_str(&b, "\n");
	reply_buf(r, status, "application/json", &b);
}

/* 0, or -1 after a reply. */
static int snapshot_ttl(struct request *r, uint64_t *ttl_ms)
{
	uint64_t most = request_server(r)->config->snapshot_ttl_max_ms;
	struct bts_slice body = {r->body.data, r->body.size};
	const char *code;
	char why[160];

	*ttl_ms = SNAPSHOT_TTL_DEFAULT_MS < most ? SNAPSHOT_TTL_DEFAULT_MS : most;
	code = input_ttl_parse(body, ttl_ms, why);
	if (code)
		reply_problem(r, 400, code, NULL, "%s", why);
	else if (!*ttl_ms || *ttl_ms > most)
		reply_problem(r, 400, "invalid-body", NULL, "\"ttl\" is above 0 and at most %" PRIu64 " ms", most);
	else
		return 0;
	return -1;
}

void handle_snapshots_post(struct request *r)
{
	struct bts_error error = {0};
	struct snapshots_info info;
	uint64_t ttl_ms;
	enum bts_err err;

	if (snapshot_ttl(r, &ttl_ms))
		return;
	err = snapshots_take(request_server(r)->snapshots, ttl_ms, &info, &error);
	if (err == BTS_NOT_FOUND) {
		reply_problem(r, 503, "unavailable", NULL, "this follower has not received the database yet");
	} else if (err == BTS_LIMIT && !error.code) {
		reply_problem(r, 503, "too-many-snapshots", NULL, "there are as many leased snapshots as may be");
	} else if (err) {
		reply_error(r, err, &error);
	} else {
		r->token = 1;
		snapshot_lease_reply(r, 201, &info);
	}
}

/* The path's id; NULL after a reply. */
static const struct bts_slice *snapshot_id(struct request *r)
{
	int i = route_segment(r->route, "id");

	if (!uri_decode(&r->uri, (unsigned)i, 0, r->problem))
		return &r->uri.segment[i];
	reply_problem(r, 400, "malformed-percent-encoding", NULL, "%s", r->problem);
	return NULL;
}

void handle_snapshot_patch(struct request *r)
{
	const struct bts_slice *id = snapshot_id(r);
	struct snapshots_info info;
	uint64_t ttl_ms;
	enum bts_err err;

	if (!id || snapshot_ttl(r, &ttl_ms))
		return;
	err = snapshots_renew(request_server(r)->snapshots, *id, ttl_ms, &info);
	if (err)
		snapshot_missing(r, err, NULL);
	else
		snapshot_lease_reply(r, 200, &info);
}

void handle_snapshot_delete(struct request *r)
{
	const struct bts_slice *id = snapshot_id(r);
	enum bts_err err = id ? snapshots_release(request_server(r)->snapshots, *id) : BTS_OK;

	if (err)
		snapshot_missing(r, err, NULL);
	else if (id)
		reply_empty(r, 204);
}

void handle_snapshots_get(struct request *r)
{
	size_t cap = request_server(r)->config->snapshots_max, count, i;
	struct snapshots_info *infos = calloc(cap + 1, sizeof(*infos));
	struct buf b = {0};

	if (!infos) {
		reply_error(r, BTS_MEMORY, NULL);
		return;
	}
	count = snapshots_list(request_server(r)->snapshots, infos, cap);
	buf_str(&b, "{\"items\":[");
	for (i = 0; i < count && i < cap; i++) {
		buf_str(&b, i ? ",\n" : "");
		snapshot_lease_json(&b, &infos[i]);
	}
	buf_str(&b, "],\"next\":null}\n");
	free(infos);
	request_set_header(r, "Cache-Control", "no-store");
	reply_buf(r, 200, "application/json", &b);
}

/* ---- named ones ---- */

static void snapshot_json(struct buf *b, const struct bts_snapshot_info *info)
{
	char time[40];

	status_time(info->time_ms, time);
	buf_str(b, "{");
	jsonout_bytes(b, "name", info->name);
	buf_printf(b, ",\"txid\":%" PRIu64 ",\"time\":\"%s\",\"buckets\":%" PRIu64 "}", (uint64_t)info->txid, time,
		info->buckets);
}

/* The path's name, kept in r->key; 0, or -1 after a reply. */
static int snapshot_name(struct request *r)
{
	int i = route_segment(r->route, "name"), b64u = request_param(r, "enc") != NULL;

	if (uri_decode(&r->uri, (unsigned)i, b64u, r->problem)) {
		reply_problem(r, 400, b64u ? "malformed-base64url" : "malformed-percent-encoding", NULL, "%s", r->problem);
		return -1;
	}
	r->key = r->uri.segment[i];
	if (r->key.size && r->key.size <= BTS_SNAPSHOT_NAME_MAX)
		return 0;
	reply_problem(r, 400, r->key.size ? "snapshot-name-too-long" : "snapshot-name-empty", NULL,
		"the snapshot name has %zu bytes, from 1 to %d are allowed", r->key.size, BTS_SNAPSHOT_NAME_MAX);
	return -1;
}

/* The last name that is below this one, so that the next one after it is this one if there is any. */
static struct bts_slice snapshot_before(struct bts_slice name, uint8_t out[BTS_SNAPSHOT_NAME_MAX])
{
	size_t last = name.size - 1;

	memcpy(out, name.data, name.size);
	if (!out[last])
		return (struct bts_slice){out, last};
	out[last]--;
	memset(out + name.size, 0xff, BTS_SNAPSHOT_NAME_MAX - name.size);
	return (struct bts_slice){out, BTS_SNAPSHOT_NAME_MAX};
}

static enum bts_err snapshot_look(struct bts_txn *txn, struct bts_slice name, struct bts_snapshot_info *info)
{
	uint8_t before[BTS_SNAPSHOT_NAME_MAX];
	enum bts_err err = bts_snapshot_next(txn, snapshot_before(name, before), info);

	if (err || (info->name.size == name.size && !memcmp(info->name.data, name.data, name.size)))
		return err;
	return BTS_NOT_FOUND;
}

/* The named one as it is now; whether it was told: else nothing was replied. */
static int snapshot_reply(struct request *r, unsigned status, struct bts_txn *txn)
{
	struct bts_snapshot_info info;
	struct buf b = {0};

	if (snapshot_look(txn, r->key, &info))
		return 0;
	snapshot_json(&b, &info);
	buf_str(&b, "\n");
	reply_buf(r, status, "application/json", &b);
	return 1;
}

void handle_named_get(struct request *r)
{
	struct bts_txn *txn = snapshot_name(r) ? NULL : handle_begin(r);
	struct bts_snapshot_info info;
	enum bts_err err;

	if (!txn)
		return;
	err = snapshot_look(txn, r->key, &info);
	if (err || !snapshot_reply(r, 200, txn))
		snapshot_missing(r, err ? err : BTS_NOT_FOUND, bts_txn_error(txn));
	bts_abort(txn);
}

static enum bts_err snapshot_create(struct writer_op *op, struct bts_txn *txn, int *changed)
{
	enum bts_err err = bts_snapshot_create(txn, op->key, &op->error);

	op->result = err == BTS_EXISTS ? WRITER_UNCHANGED : WRITER_CREATED;
	*changed = !err;
	return err == BTS_EXISTS ? BTS_OK : err;
}

static enum bts_err snapshot_remove(struct writer_op *op, struct bts_txn *txn, int *changed)
{
	enum bts_err err = bts_snapshot_delete(txn, op->key, &op->error);

	op->result = err == BTS_NOT_FOUND ? WRITER_NOT_FOUND : WRITER_DONE;
	*changed = !err;
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static void snapshot_exists(struct request *r)
{
	reply_problem(r, 409, "snapshot-exists", NULL, "there is a snapshot of this name, of a state before");
}

static void snapshot_written(struct request *r)
{
	struct bts_txn *txn;

	if (handle_write_failed(r))
		return;
	if (r->op.result == WRITER_UNCHANGED) {
		snapshot_exists(r);
		return;
	}
	if (r->op.result == WRITER_NOT_FOUND) {
		snapshot_missing(r, BTS_NOT_FOUND, NULL);
		return;
	}
	r->token = 1;
	if (r->op.result != WRITER_CREATED || r->unreached) {
		durable_reply(r, r->op.result == WRITER_CREATED ? 201 : 204);
		return;
	}
	durable_tell(r);
	/* Somebody may have deleted it again; the answer to this request stays what it was. */
	if (bts_begin(role_db(request_role(r)), BTS_READ, &txn, NULL)) {
		reply_empty(r, 201);
	} else {
		if (!snapshot_reply(r, 201, txn))
			reply_empty(r, 201);
		bts_abort(txn);
	}
}

static void snapshot_write(struct request *r, writer_call_fn *call)
{
	if (snapshot_name(r))
		return;
	r->op.kind = WRITER_CALL;
	r->op.call = call;
	r->op.key = r->key;
	r->op.bytes = r->key.size;
	request_write(r, snapshot_written);
}

void handle_named_put(struct request *r)
{
	snapshot_write(r, snapshot_create);
}

void handle_named_delete(struct request *r)
{
	snapshot_write(r, snapshot_remove);
}

static enum bts_err snapshot_next(struct bts_txn *txn, struct bts_slice after, union names_info *info, struct bts_slice *name)
{
	enum bts_err err = bts_snapshot_next(txn, after, &info->snapshot);

	if (!err)
		*name = info->snapshot.name;
	return err;
}

static void snapshot_list_json(struct buf *b, const union names_info *info)
{
	snapshot_json(b, &info->snapshot);
}

void handle_named_list(struct request *r)
{
	static const struct names_kind kind = {.what = "snapshot",
		.name_max = BTS_SNAPSHOT_NAME_MAX,
		.next = snapshot_next,
		.json = snapshot_list_json};

	names_reply(r, &kind);
}
