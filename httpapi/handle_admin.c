/* What operators and load balancers ask: livez, readyz, status, metrics, the status page. */
#include <inttypes.h>
#include <string.h>

#include "handle.h"
#include "metrics.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "status.h"
#include "text.h"

#define LIVEZ_STALL_MS 10000

static void handle_ok(struct request *r)
{
	struct buf b = {0};

	buf_printf(&b, "{\"status\":\"ok\",\"role\":\"%s\",\"txid\":%" PRIu64 "}\n",
		role_word(request_role(r)), (uint64_t)role_txid(request_role(r)));
	request_set_header(r, "Cache-Control", "no-store");
	reply_buf(r, 200, "application/json", &b);
}

void handle_livez(struct request *r)
{
	uint64_t stalled = server_stalled_ms(request_server(r));

	if (stalled > LIVEZ_STALL_MS)
		reply_problem(r, 503, "stalled", NULL, "a serving thread has not moved for %" PRIu64 " ms",
			stalled);
	else
		handle_ok(r);
}

static int handle_readyz_role(struct request *r)
{
	const struct bts_slice *want = request_param(r, "role");
	const char *word = role_word(request_role(r));

	if (want && want->size == 7 && !memcmp(want->data, "primary", 7) && !role_follows(request_role(r)) &&
		role_late(request_role(r))) {
		reply_problem(r, 503, "not-primary", NULL, "the deadline for this node's writes has passed, or none was set");
		return -1;
	}
	if (!want || (want->size == strlen(word) && !memcmp(want->data, word, want->size)))
		return 0;
	if ((want->size == 7 && !memcmp(want->data, "primary", 7)) ||
		(want->size == 8 && !memcmp(want->data, "follower", 8)))
		reply_problem(r, 503, "wrong-role", NULL, "this node is a %s", word);
	else
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter role is primary or follower");
	return -1;
}

static int handle_readyz_lag(struct request *r)
{
	const struct bts_slice *text = request_param(r, "max_lag");
	uint64_t lag = role_lag_ms(request_role(r)), bound;

	if (!text)
		return 0;
	if (text_duration_ms(text->data, text->size, &bound))
		reply_problem(r, 400, "invalid-parameter", NULL,
			"the parameter max_lag is a duration, as 2s or 500ms");
	else if (lag > bound)
		reply_problem(r, 503, "behind", NULL, "what this node has may be %" PRIu64 " ms old", lag);
	else
		return 0;
	return -1;
}

void handle_readyz(struct request *r)
{
	struct role *role = request_role(r);
	struct node_upstream up;

	if (handle_readyz_role(r))
		return;
	node_upstream(role_node(role), &up);
	if (role_draining(role))
		reply_problem(r, 503, "stopping", NULL, "this node is stopping");
	else if (role_poisoned(role))
		reply_problem(r, 503, "poisoned", NULL, "a flush failed: nothing more can be committed");
	else if (up.stopped)
		reply_problem(r, 503, "stopped", NULL, "this follower has stopped for ever: %s", up.error);
	else if (handle_readyz_lag(r))
		return;
	else if (!role_db(role))
		reply_problem(r, 503, "unavailable", NULL, "this follower has not received the database yet");
	else
		handle_ok(r);
}

void handle_status(struct request *r)
{
	struct bts_error error = {0};
	struct status status;
	struct buf b = {0};
	enum bts_err err = status_gather(request_server(r), &status, &error);

	if (err) {
		reply_error(r, err, &error);
		return;
	}
	status_json(&b, &status);
	request_set_header(r, "Cache-Control", "no-store");
	reply_buf(r, 200, "application/json", &b);
}

void handle_index(struct request *r)
{
	struct bts_error error = {0};
	struct status status;
	struct buf b = {0};
	enum bts_err err = status_gather(request_server(r), &status, &error);

	if (err) {
		reply_error(r, err, &error);
		return;
	}
	status_html(&b, &status);
	request_set_header(r, "Cache-Control", "no-store");
	request_set_header(r, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
	reply_buf(r, 200, "text/html; charset=utf-8", &b);
}

void handle_metrics(struct request *r)
{
	struct buf b = {0};

	metrics_write(&b, request_server(r));
	reply_buf(r, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}
