/*
 * Values too large for memory: PUT of a key with a body of HANDLE_LARGE or more.
 *
 * Theory.  The body goes to the disk as it comes: the loop collects a piece, and while a thread of work.h writes it the
 * connection is suspended, so a client is held back by the disk, and memory is a piece an upload.  When the size is
 * announced the pieces go into a write transaction of the upload's own, where the engine puts such a value to its final
 * place at once.  Without it (chunked) they go to a file without a name beside the database, and from there into a
 * transaction when the end has come: the size is known then.
 *
 * The transaction begins at the first byte, and its snapshot is what conditions and "new or replaced" are judged by;
 * that nobody has written the key since is proven by its commit, which conflicts otherwise: 409, or 412 where there
 * were conditions.  What the file has to keep for that snapshot is bounded as a lease's is (snapshots.h), so a slow upload beside busy
 * writers is ended; one that stalls, by its connection's deadline.  A client that goes away takes the transaction with it: nothing was visible, its pages are free again.
 *
 * Dirty pages of the file are what every commit's flush waits for.  So that they do not pile up, what an upload wrote is
 * started on its way every UPLOAD_START bytes, and what was before is waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "durable.h"
#include "handle.h"
#include "peers.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "snapshots.h"
#include "ttl.h"
#include "work.h"

#define UPLOAD_PIECE ((size_t)512 << 10)
#define UPLOAD_START (UINT64_C(8) << 20)
#define UPLOADS_MAX                                                                                          \
	64 /* at a time: each may hold up to the engine's memory for a transaction when no place is to be had */
#define UPLOADS_SHARE (UPLOADS_MAX / 2) /* of one address: others get through beside it */

struct upload {
	struct work_job job;
	struct server *server;
	struct peer *peer; /* of whose share it is */
	struct buf piece;
	int spool;	       /* the file without a name; -1: the size was announced */
	uint64_t size, copied; /* of the spool: written, and read back */
	int file;	       /* the database's, to start writing; -1: can't */
	uint64_t unstarted;
	int finishing, broken; /* broken: r->op tells */
	struct bts_txn *txn;
	struct snapshots_pin pin; /* what it keeps of the file */
	struct bts_stream *stream;
	uint64_t expires_ms; /* what the key had */
};

static void upload_free(void *state)
{
	struct upload *u = state;

	snapshots_unwatch(u->server->snapshots, &u->pin);
	bts_put_abort(u->stream);
	bts_abort(u->txn);
	buf_fini(&u->piece);
	if (u->spool >= 0)
		close(u->spool);
	if (u->file >= 0)
		close(u->file);
	peers_put(u->peer);
	atomic_fetch_sub(&u->server->uploads, 1);
	free(u);
}

/* ---- in the threads of work.h ---- */

static void upload_fail(struct request *r, enum bts_err err, const struct bts_error *error)
{
	struct upload *u = r->state;

	u->broken = 1;
	r->op.result = WRITER_FAILED;
	if (error && error->code == err) { /* else it is of an earlier call */
		r->op.error = *error;
	} else if (r->op.error.code != err) {
		r->op.error.code = err;
		snprintf(r->op.error.text, sizeof(r->op.error.text), "%s", bts_err_name(err));
	}
}

static void upload_fail_os(struct request *r, int os)
{
	struct bts_error error = {os == ENOSPC || os == EDQUOT || os == EFBIG ? BTS_FULL : BTS_IO, os, ""};

	snprintf(error.text, sizeof(error.text), "writing the value beside the database: %s", strerror(os));
	upload_fail(r, error.code, &error);
}

static void upload_decide(struct request *r, enum writer_result result)
{
	struct upload *u = r->state;

	u->broken = 1;
	r->op.result = result;
}

/* The transaction and its stream, or broken. */
static void upload_begin(struct request *r, uint64_t size)
{
	struct upload *u = r->state;
	struct bts *db = role_follows(request_role(r)) ? NULL : role_db(request_role(r));
	struct bts_error error = {0};
	struct bts_bucket *bucket;
	struct bts_slice present;
	struct ttl_view ttl;
	enum bts_err err = db ? BTS_OK : BTS_READ_ONLY;

	if (!err && r->op.ttl_ms)
		err = ttl_prepare(db, &error);
	if (!err)
		err = ttl_clear(db, r->bucket, r->key, &error);
	if (!err)
		err = bts_begin(db, BTS_WRITE | BTS_CONFLICT_STATE, &u->txn, &error);
	if (!err)
		err = bts_bucket(u->txn, r->bucket, 0, &bucket, &error);
	if (err == BTS_NOT_FOUND) {
		upload_decide(r, WRITER_NO_BUCKET);
		return;
	}
	if (!err)
		err = ttl_open(&ttl, u->txn);
	if (!err)
		err = ttl_peek(&ttl, bucket, r->bucket, r->key, &present, &r->op.version, &u->expires_ms);
	if (!err || err == BTS_NOT_FOUND) {
		if (!writer_holds(&r->op.conditions, !err, r->op.version)) {
			upload_decide(r, WRITER_PRECONDITION);
			return;
		}
		r->op.result = err ? WRITER_CREATED : WRITER_DONE;
		err = bts_put_begin(u->txn, bucket, r->key, size, 0, &u->stream, &error);
		snapshots_watch(u->server->snapshots, &u->pin, bts_txn_id(u->txn));
	}
	if (err)
		upload_fail(r, err, &error);
}

static void upload_start(struct upload *u, size_t bytes)
{
	u->unstarted += bytes;
	if (u->unstarted < UPLOAD_START || u->file < 0)
		return;
	u->unstarted = 0;
	(void)sync_file_range(u->file, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE);
}

static void upload_put(struct request *r)
{
	struct upload *u = r->state;
	enum bts_err err = bts_put_write(u->stream, (struct bts_slice){u->piece.data, u->piece.size});

	if (err)
		upload_fail(r, err, bts_txn_error(u->txn));
	else
		upload_start(u, u->piece.size);
	u->piece.size = 0;
}

static void upload_spool(struct request *r)
{
	struct upload *u = r->state;
	size_t done = 0;
	ssize_t n;

	while (done < u->piece.size) {
		n = pwrite(u->spool, u->piece.data + done, u->piece.size - done, (off_t)(u->size + done));
		if (n < 0 && errno != EINTR) {
			upload_fail_os(r, errno);
			return;
		}
		done += n > 0 ? (size_t)n : 0;
	}
	u->size += done;
	u->piece.size = 0;
}

static void upload_copy(struct request *r)
{
	struct upload *u = r->state;
	char *room = buf_room(&u->piece, UPLOAD_PIECE);
	ssize_t n = room ? pread(u->spool, room, UPLOAD_PIECE, (off_t)u->copied) : 0;

	if (n <= 0) {
		upload_fail(r, room ? BTS_IO : BTS_MEMORY, NULL);
		return;
	}
	u->piece.size = (size_t)n;
	u->copied += (uint64_t)n;
	upload_put(r);
}

static void upload_commit(struct request *r)
{
	struct upload *u = r->state;
	enum bts_err err = bts_put_end(u->stream, &r->op.error);

	u->stream = NULL;
	r->op.expires_ms = r->op.ttl_ms ? ttl_now_ms() + r->op.ttl_ms : 0;
	if (!err && (u->expires_ms || r->op.expires_ms))
		err = ttl_set(u->txn, r->bucket, r->key, r->op.expires_ms);
	if (err) {
		upload_fail(r, err, bts_txn_error(u->txn));
		return;
	}
	err = bts_commit_id(u->txn, &r->op.txid, &r->op.error);
	if (err == BTS_CONFLICT)
		bts_abort(u->txn);
	u->txn = NULL;
	if (err) {
		role_note(request_role(r), err == BTS_IO ? BTS_POISONED : err);
		upload_fail(r, err, NULL);
	} else {
		role_committed(request_role(r), r->op.txid);
	}
}

static int upload_step(struct work_job *job)
{
	struct request *r = job->owner;
	struct upload *u = r->state;

	if (u->piece.size && u->spool >= 0)
		upload_spool(r);
	else if (u->piece.size)
		upload_put(r);
	if (u->broken || !u->finishing)
		return 0;
	if (!u->stream)
		upload_begin(r, u->size);
	if (!u->broken && u->copied < u->size)
		upload_copy(r);
	if (u->broken)
		return 0;
	if (u->copied < u->size)
		return 1;
	upload_commit(r);
	return 0;
}

/* ---- in the loop ---- */

/* Of what is still coming in. */
static void upload_refuse(struct request *r)
{
	const char *code = "bucket-not-found", *why = "there is no such bucket";
	unsigned status = 404;

	if (r->op.result == WRITER_PRECONDITION) {
		status = 412;
		code = "precondition-failed";
		why = r->op.version ? "the value has another version" : "there is no such key";
		if (r->op.version)
			handle_key_etag(r, r->op.version);
	} else if (r->op.result == WRITER_FAILED) {
		role_met(request_role(r), r->op.error.code, &r->op.error);
		status = reply_meaning(r->op.error.code, &code);
		why = r->op.error.text;
	}
	snprintf(r->problem, sizeof(r->problem), "%.159s", why);
	request_refuse(r, status, code);
	r->state_free(r->state);
	r->state = NULL;
	r->state_free = NULL;
	(void)request_hold(r, 0);
}

static void upload_answer(struct request *r)
{
	const struct writer_conditions *c = &r->op.conditions;
	const char *meanwhile =
		"another write of this key, or of its bucket, was committed while the value came in";

	if (r->op.result == WRITER_DONE || r->op.result == WRITER_CREATED)
		durable_await(r, handle_key_written);
	else if (r->op.result != WRITER_FAILED || r->op.error.code != BTS_CONFLICT)
		handle_key_written(r);
	else if (c->match.given || c->none_match.given)
		reply_problem(r, 412, "precondition-failed", NULL, "%s", meanwhile);
	else
		reply_problem(r, 409, "conflict", NULL, "%s; it was not stored", meanwhile);
}

static void upload_stepped(struct request *r)
{
	struct upload *u = r->state;

	if (u->finishing)
		upload_answer(r);
	else if (u->broken)
		upload_refuse(r);
}

static void upload_submit(struct request *r)
{
	struct upload *u = r->state;

	u->job = (struct work_job){.step = upload_step, .owner = r};
	work_queue(u->server->uploaders, &u->job);
	request_suspend(r, upload_stepped);
}

/* A file without a name in the database's directory, or -1 with errno. */
static int upload_open_spool(struct request *r)
{
	const char *path = role_path(request_role(r));
	const char *slash = strrchr(path, '/');
	char folder[4096];
	int n = snprintf(
		folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");

	if (n < 0 || (size_t)n >= sizeof(folder)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

/* The state of an upload, or NULL after a refusal. */
static struct upload *upload_new(struct request *r, int spooled)
{
	struct server *s = request_server(r);
	struct peer *peer = r->conn->peer;
	struct upload *u = NULL;

	if (handle_ttl(r, &r->op.ttl_ms))
		return NULL;
	if (peers_take(peer, UPLOADS_SHARE)) {
		snprintf(r->problem, sizeof(r->problem), "too many large values are being written from this address");
		request_refuse(r, 503, "unavailable");
		return NULL;
	}
	if (atomic_fetch_add(&s->uploads, 1) < UPLOADS_MAX)
		u = calloc(1, sizeof(*u));
	if (!u) {
		atomic_fetch_sub(&s->uploads, 1);
		peers_put(peer);
		snprintf(r->problem, sizeof(r->problem), "too many large values are being written");
		request_refuse(r, 503, "unavailable");
		return NULL;
	}
	u->server = s;
	u->peer = peer;
	r->state = u;
	r->state_free = upload_free;
	u->spool = spooled ? upload_open_spool(r) : -1;
	u->file = open(role_path(request_role(r)), O_RDONLY | O_CLOEXEC);
	if (!spooled || u->spool >= 0)
		return u;
	upload_fail_os(r, errno);
	upload_refuse(r);
	return NULL;
}

static int upload_too_large(struct request *r, uint64_t size)
{
	uint64_t max = SETTINGS_NOW(request_server(r)->config->max_value);

	if (size <= max)
		return 0;
	snprintf(
		r->problem, sizeof(r->problem), "the value has more than the allowed %" PRIu64 " bytes", max);
	request_refuse(r, 413, "body-too-large");
	return 1;
}

/* The headers are there: what stands against it is told before the body comes, to those who wait for that. */
static void upload_announced(struct request *r, uint64_t size)
{
	if (request_get_header(r, "Content-Range")) {
		snprintf(r->problem, sizeof(r->problem), "a part of a value cannot be stored");
		request_refuse(r, 400, "invalid-header");
		return;
	}
	if (upload_too_large(r, size) || size < HANDLE_LARGE)
		return;
	if (handle_conditions(r, &r->op.conditions) || !upload_new(r, 0))
		return;
	upload_begin(r, size);
	if (((struct upload *)r->state)->broken)
		upload_refuse(r);
}

/* Others have written so much while it came in that keeping its snapshot costs too much of the file. */
static void upload_outstay(struct request *r)
{
	static const struct bts_error error = {BTS_LIMIT, 0,
		"the value came in too slowly: more than --snapshot-bytes-max of the file was kept for it meanwhile"};

	upload_fail(r, BTS_LIMIT, &error);
	upload_refuse(r);
}

/* A chunked body turns out to be large. */
static struct upload *upload_outgrown(struct request *r)
{
	struct upload *u = upload_new(r, 1);

	if (u) {
		u->piece = r->body;
		memset(&r->body, 0, sizeof(r->body));
	}
	return u;
}

size_t handle_key_feed(struct request *r, const char *data, size_t size)
{
	struct upload *u = r->state;

	if (!data) {
		upload_announced(r, size);
		return 0;
	}
	if (!u && r->body.size + size < HANDLE_LARGE) {
		request_collect(r, data, size, HANDLE_LARGE);
		return size;
	}
	if (!u && !(u = upload_outgrown(r)))
		return size;
	if (u->spool >= 0 && upload_too_large(r, u->size + u->piece.size + size))
		return size;
	if (atomic_load(&u->pin.over)) {
		upload_outstay(r);
		return size;
	}
	buf_add(&u->piece, data, size);
	if (u->piece.failed || request_hold(r, u->piece.cap)) {
		upload_fail(r, BTS_MEMORY, NULL);
		upload_refuse(r);
	} else if (u->piece.size >= UPLOAD_PIECE) {
		upload_submit(r);
	}
	return size;
}

void handle_key_put(struct request *r)
{
	struct upload *u = r->state;

	if (!u) {
		handle_key_write(r, WRITER_PUT);
		return;
	}
	if (u->spool >= 0 && handle_conditions(r, &r->op.conditions))
		return;
	u->finishing = 1;
	durable_expect(r);
	upload_submit(r);
}
