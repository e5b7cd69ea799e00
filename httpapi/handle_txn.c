/*
 * Transactions: POST /v1/txn.
 *
 * One that writes is an operation of the writer, as any write is: its conditions are judged and its operations run in one transaction
 * of the group.  One that only gets is run here, on a snapshot, in every role; where large values are to be read, by a thread of work.h.
 */
#include "handle_txn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "config.h"
#include "durable.h"
#include "handle.h"
#include "idem.h"
#include "jsonout.h"
#include "large.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "txn_run.h"
#include "wait.h"
#include "work.h"

/* ---- the body ---- */

size_t handle_txn_feed(struct request *r, const char *data, size_t size)
{
	size_t max = SETTINGS_NOW(request_server(r)->config->txn_max_bytes);

	if (r->body.size + size > max) {
		snprintf(r->problem, sizeof(r->problem), "the body has more than the allowed %zu bytes", max);
		request_refuse(r, 413, "body-too-large");
		buf_fini(&r->body);
		(void)request_hold(r, 0);
		return size;
	}
	buf_add(&r->body, data, size);
	if (!request_hold(r, r->body.cap) && !r->body.failed)
		return size;
	snprintf(r->problem, sizeof(r->problem), "no memory for this body now");
	request_refuse(r, 503, "unavailable");
	return size;
}

void handle_txn_problem(struct request *r, const struct txn_problem *problem, bts_txid version)
{
	char extra[96] = "";
	int n = 0;

	if (problem->list && !strcmp(problem->list, "if"))
		n = snprintf(extra, sizeof(extra), ",\"condition\":%zu", problem->index);
	else if (problem->list)
		n = snprintf(extra, sizeof(extra), ",\"branch\":\"%s\",\"operation\":%zu", problem->list,
			problem->index);
	if (version)
		snprintf(extra + n, sizeof(extra) - (size_t)n, ",\"version\":%" PRIu64, (uint64_t)version);
	if (problem->list)
		reply_problem(r, problem->status, problem->code, extra, "%s %zu: %s", problem->list,
			problem->index, problem->why);
	else
		reply_problem(r, problem->status, problem->code, extra, "%s", problem->why);
}

int handle_txn_take(struct request *r, txn_parse_fn *parse, struct txn *txn, size_t *held)
{
	struct bts_slice body = {r->body.size ? r->body.data : "", r->body.size};
	struct txn_problem problem;
	int bad;

	*held = txn_weigh(body, SETTINGS_NOW(request_server(r)->config->txn_max_ops), &problem);
	bad = !*held;
	if (!bad && request_hold(r, r->body.cap + *held)) {
		reply_problem(r, 503, "unavailable", NULL, "no memory for this body now");
		return -1;
	}
	if (!bad)
		bad = parse(txn, body, &problem);
	if (bad) {
		handle_txn_problem(r, &problem, 0);
		return -1;
	}
	buf_fini(&r->body);
	(void)request_hold(r, *held);
	return 0;
}

static int handle_txn_allow(struct request *r, const struct txn_list *list)
{
	size_t i;

	for (i = 0; i < list->count; i++) {
		const struct txn_op *op = &list->ops[i];
		int reads = op->kind == TXN_GET || op->kind == TXN_CONDITION || op->kind == TXN_INCR;
		int writes = op->kind != TXN_GET && op->kind != TXN_CONDITION;
		struct txn_problem problem = {
			403, "forbidden", list->name, i, "the token does not allow this"};

		if ((!reads || auth_allows(r, AUTH_READ, op->bucket)) &&
			(!writes || auth_allows(r, AUTH_WRITE, op->bucket)))
			continue;
		handle_txn_problem(r, &problem, 0);
		return -1;
	}
	return 0;
}

int handle_txn_allowed(struct request *r, const struct txn *txn)
{
	return handle_txn_allow(r, &txn->conditions) || handle_txn_allow(r, &txn->then) ||
			       handle_txn_allow(r, &txn->otherwise)
		       ? -1
		       : 0;
}

/* ---- a transaction ---- */

struct handle_txn {
	struct work_job job; /* first: what the thread gets */
	struct request *request;
	struct bts_txn *snapshot; /* of one that only gets */
	enum bts_err err;
	struct txn txn;
	size_t held; /* by it */
	struct txn_room room;
	struct txn_outcome outcome;
	struct buf answer; /* but for its end */
	struct idem_key key;
	struct idem_limits limits;
	int keyed;
	enum idem_state state;
};

static void handle_txn_free(void *arg)
{
	struct handle_txn *h = arg;

	bts_abort(h->snapshot);
	txn_fini(&h->txn);
	buf_fini(&h->outcome.results);
	buf_fini(&h->answer);
	free(h);
}

/* Of a request that is suspended nobody else counts. */
static int handle_txn_hold(void *arg, size_t bytes)
{
	struct handle_txn *h = arg;

	return request_hold(h->request, h->held + 2 * bytes); /* the answer is a copy */
}

static void handle_txn_answer(struct handle_txn *h, int changed, bts_txid txid, struct bts_slice results)
{
	buf_fini(&h->answer);
	buf_printf(&h->answer, "{\"committed\":%s,\"branch\":\"%s\",\"txid\":%" PRIu64 ",\"results\":",
		changed ? "true" : "false", h->outcome.branch->name, (uint64_t)txid);
	buf_add(&h->answer, results.data, results.size);
}

/* An answer that is too long to be kept is kept without its results. */
static enum bts_err handle_txn_keep(struct handle_txn *h, struct writer_op *op, struct bts_txn *txn)
{
	struct bts_slice results = {h->outcome.results.data, h->outcome.results.size};
	enum bts_err err;

	if (h->answer.size > IDEM_REPLY_MAX)
		handle_txn_answer(h, 1, bts_txn_id(txn), (struct bts_slice){"null", 4});
	if (h->answer.failed)
		return BTS_MEMORY;
	err = idem_keep(txn, &h->key, &h->limits, (struct bts_slice){h->answer.data, h->answer.size});
	if (err == BTS_LIMIT) {
		op->error.code = err;
		snprintf(op->error.text, sizeof(op->error.text),
			"%" PRIu64 " idempotency keys are kept already, which is all that are allowed",
			h->limits.max);
	}
	if (!err)
		handle_txn_answer(h, 1, bts_txn_id(txn), results);
	return err;
}

static enum bts_err handle_txn_call(struct writer_op *op, struct bts_txn *txn, int *changed)
{
	struct handle_txn *h = op->arg;
	struct bts_slice kept;
	enum bts_err err;

	h->state = IDEM_NEW;
	if (h->keyed) {
		err = idem_find(txn, &h->key, &h->state, &kept);
		if (err)
			return err;
	}
	if (h->state != IDEM_NEW) {
		op->result = h->state == IDEM_KEPT ? WRITER_UNCHANGED : WRITER_PRECONDITION;
		buf_fini(&h->answer);
		if (h->state == IDEM_KEPT)
			buf_add(&h->answer, kept.data, kept.size);
		return BTS_OK;
	}
	err = txn_run(&h->txn, txn, &h->room, &h->outcome);
	if (err)
		return err;
	op->result = WRITER_PRECONDITION;
	if (h->outcome.end != TXN_DONE)
		return BTS_OK;
	*changed = h->outcome.changed || h->keyed;
	op->result = *changed ? WRITER_DONE : WRITER_UNCHANGED;
	handle_txn_answer(h, *changed, *changed ? bts_txn_id(txn) : op->txid,
		(struct bts_slice){h->outcome.results.data, h->outcome.results.size});
	return h->keyed ? handle_txn_keep(h, op, txn) : BTS_OK;
}

static void handle_txn_reply(struct request *r, struct handle_txn *h)
{
	int unreached = 0;

	if (h->state == IDEM_NEW && h->outcome.end != TXN_DONE) {
		handle_txn_problem(
			r, &h->outcome.problem, h->outcome.end == TXN_UNMET ? h->outcome.version : 0);
		return;
	}
	r->token = 1;
	if (h->state == IDEM_KEPT)
		request_set_header(r, "Idempotent-Replay", "true");
	if (h->txn.writes)
		unreached = !durable_tell(r);
	if (unreached)
		durable_member(r, &h->answer);
	buf_str(&h->answer, "}\n");
	reply_buf(r, unreached ? 202 : 200, "application/json", &h->answer);
}

static void handle_txn_written(struct request *r)
{
	struct handle_txn *h = r->state;

	if (handle_write_failed(r))
		return;
	if (h->state == IDEM_REUSED)
		reply_problem(r, 422, "idempotency-key-reused", NULL,
			"this Idempotency-Key came with another body before");
	else
		handle_txn_reply(r, h);
}

static void handle_txn_was_read(struct request *r)
{
	struct handle_txn *h = r->state;

	if (h->err) {
		reply_error(r, h->err, bts_txn_error(h->snapshot));
		return;
	}
	if (h->outcome.end == TXN_DONE)
		handle_txn_answer(
			h, 0, r->txid, (struct bts_slice){h->outcome.results.data, h->outcome.results.size});
	handle_txn_reply(r, h);
}

static int handle_txn_step(struct work_job *job)
{
	struct handle_txn *h = (struct handle_txn *)job;

	h->err = txn_run(&h->txn, h->snapshot, &h->room, &h->outcome);
	return 0;
}

/* A loop reads no more than it would send in a turn; 0: that was not enough. */
static int handle_txn_read_little(struct handle_txn *h)
{
	struct txn_room little = h->room;
	size_t i;

	if (little.max > LARGE_INLINE)
		little.max = LARGE_INLINE;
	for (i = 0; i < h->txn.conditions.count; i++)
		if (h->txn.conditions.ops[i].value.size > little.max) /* what is as long is compared with it */
			return 0;
	h->err = txn_run(&h->txn, h->snapshot, &little, &h->outcome);
	return h->err || h->outcome.end != TXN_REFUSED || h->outcome.problem.status != 422 || little.max == h->room.max;
}

static void handle_txn_read(struct request *r, struct handle_txn *h)
{
	h->snapshot = handle_begin(r);
	if (!h->snapshot)
		return;
	if (handle_txn_read_little(h)) {
		handle_txn_was_read(r);
		return;
	}
	h->job = (struct work_job){.step = handle_txn_step, .owner = r};
	work_queue(request_server(r)->work, &h->job);
	request_suspend(r, handle_txn_was_read);
}

/* 0, or -1 after a reply. */
static int handle_txn_key(struct request *r, struct handle_txn *h)
{
	const struct config *config = request_server(r)->config;
	struct bts_slice body = {r->body.size ? r->body.data : "", r->body.size};
	struct buf header = {0};
	int bad;

	request_get_list(r, "Idempotency-Key", &header);
	if (!header.size)
		return 0;
	h->keyed = 1;
	h->limits = (struct idem_limits){
		SETTINGS_NOW(config->idempotency_ttl_ms), SETTINGS_NOW(config->idempotency_max)};
	bad = header.failed || idem_key_init(&h->key, header.data, body);
	buf_fini(&header);
	if (bad)
		reply_problem(r, 400, "invalid-header", NULL,
			"Idempotency-Key has 1 to %d printable characters", IDEM_KEY_MAX);
	return bad ? -1 : 0;
}

/* What the body says; NULL after a reply. */
static struct handle_txn *handle_txn_begin(struct request *r)
{
	struct handle_txn *h = calloc(1, sizeof(*h));

	if (!h) {
		reply_error(r, BTS_MEMORY, NULL);
		return NULL;
	}
	r->state = h;
	r->state_free = handle_txn_free;
	h->request = r;
	h->room =
		(struct txn_room){SETTINGS_NOW(request_server(r)->config->txn_max_bytes), handle_txn_hold, h};
	r->op.bytes = r->body.size;
	if (handle_txn_key(r, h) || handle_txn_take(r, txn_parse, &h->txn, &h->held) ||
		handle_txn_allowed(r, &h->txn))
		return NULL;
	return h;
}

/* Called again when the commit that it asked for is here.  One that writes is not for a node that is no primary, whatever that has. */
void handle_txn(struct request *r)
{
	int waited = r->state != NULL;
	struct handle_txn *h = waited ? r->state : handle_txn_begin(r);

	if (!h)
		return;
	if (h->txn.writes)
		request_check_write(r);
	else
		durable_check_params(r);
	if (r->early_status || (!waited && wait_before(r)))
		return;
	if (!h->txn.writes) {
		handle_txn_read(r, h);
		return;
	}
	r->op.kind = WRITER_CALL;
	r->op.call = handle_txn_call;
	r->op.arg = h;
	request_write(r, handle_txn_written);
}
