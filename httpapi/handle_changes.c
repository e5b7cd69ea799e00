/*
 * The change feed: GET /v1/changes, in three forms.
 *
 * JSON: one reply with what changed since a bookmark, waited for if there is nothing yet.  NDJSON and Server-Sent Events: streams.
 * Everything else is in watch.h.
 */
#include <stdio.h>
#include <string.h>

#include "auth.h"
#include "handle.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "text.h"
#include "watch.h"

#define CHANGES_WAIT_MS 30000
#define CHANGES_WAIT_MAX_MS 60000

static enum watch_form changes_form(const struct request *r)
{
	if (request_accepts(r, "text/event-stream"))
		return WATCH_SSE;
	return request_accepts(r, "application/x-ndjson") ? WATCH_NDJSON : WATCH_JSON;
}

static int changes_is(struct bts_slice text, const char *word)
{
	return text.size == strlen(word) && !memcmp(text.data, word, text.size);
}

/* Last-Event-ID is what a browser sends when it connects again: it is later than what the address says. */
static void changes_since(const struct request *r, struct watch_asked *asked)
{
	struct bts_slice last = request_get_value(r, "Last-Event-ID");
	const struct bts_slice *since = request_param(r, "since");

	if (since)
		asked->bookmark = *since;
	if (last.size && asked->filter.form == WATCH_SSE)
		asked->bookmark = last;
	if (!asked->bookmark.size)
		asked->since = WATCH_NOW;
	else if (changes_is(asked->bookmark, "0") || changes_is(asked->bookmark, "begin"))
		asked->since = WATCH_BEGIN;
	else
		asked->since = WATCH_AT;
}

static int changes_bad(struct request *r, const char *name, const char *what)
{
	reply_problem(r, 400, "invalid-parameter", NULL, "the parameter %s is %s", name, what);
	return -1;
}

static int changes_params(struct request *r, struct watch_asked *asked)
{
	const struct bts_slice *bucket = request_param(r, "bucket"), *prefix = request_param(r, "prefix");
	const struct bts_slice *wait = request_param(r, "wait"), *values = request_param(r, "values");

	asked->filter.form = changes_form(r);
	asked->filter.bucket = bucket ? *bucket : (struct bts_slice){"", 0};
	asked->filter.prefix = prefix ? *prefix : (struct bts_slice){"", 0};
	asked->filter.allowed = asked->filter.bucket.size ? NULL : r->buckets;
	asked->wait_ms = CHANGES_WAIT_MS;
	if (wait && (text_duration_ms(wait->data, wait->size, &asked->wait_ms) ||
			    asked->wait_ms > CHANGES_WAIT_MAX_MS))
		return changes_bad(r, "wait", "a duration of at most 60s");
	if (asked->filter.bucket.size > BTS_BUCKET_NAME_MAX)
		return changes_bad(r, "bucket", "no bucket's name: it is too long");
	if (asked->filter.prefix.size > BTS_KEY_MAX)
		return changes_bad(r, "prefix", "longer than a key can be");
	if (handle_reserved(asked->filter.bucket)) {
		reply_problem(r, 400, "bucket-name-reserved", NULL,
			"bucket names that begin with a zero byte are the server's own");
		return -1;
	}
	asked->filter.values = values && values->size ? request_param_flag(r, "values") : 0;
	if (asked->filter.values < 0)
		return -1;
	changes_since(r, asked);
	return 0;
}

static void changes_expired(struct request *r)
{
	char oldest[WATCH_BOOKMARK_MAX], extra[WATCH_BOOKMARK_MAX + 16];

	watch_oldest(request_server(r)->watch, oldest);
	snprintf(extra, sizeof(extra), *oldest ? ",\"oldest\":\"%s\"" : ",\"oldest\":null", oldest);
	reply_problem(r, 410, "bookmark-expired", extra,
		"the state of this bookmark is not kept any more: read everything anew, with since=begin");
}

static void changes_refuse(struct request *r, enum watch_refusal refusal)
{
	switch (refusal) {
	case WATCH_MALFORMED:
		reply_problem(r, 400, "invalid-bookmark", NULL, "this is no bookmark of a change feed");
		break;
	case WATCH_EXPIRED:
		changes_expired(r);
		break;
	case WATCH_TOO_MANY:
		request_set_header(r, "Retry-After", "5");
		reply_problem(r, 429, "too-many-watchers", NULL, "there are as many watchers as are allowed");
		break;
	case WATCH_STOPPING:
		reply_problem(r, 503, "stopping", NULL, "this node is being stopped");
		break;
	default:
		reply_problem(r, 503, "unavailable", NULL, "the newest state cannot be read now");
		break;
	}
}

/* A feed has no end of its own: who may not read any more is told nothing more. */
static ssize_t changes_read(void *arg, char *out, size_t max)
{
	struct request *r = arg;

	return auth_still(r) ? watcher_read(r->state, out, max) : WATCHER_BROKEN;
}

static void changes_cut(struct request *r, void *arg)
{
	struct bts_error error = {0};
	enum bts_err err = watcher_broken(arg, &error);

	role_met(request_role(r), err, &error);
}

static void changes_answer(struct request *r)
{
	struct reply_stream stream = {.fill = watcher_fill, .arg = r->state, .cut = changes_cut};
	struct bts_error error = {0};
	enum bts_err err;

	if (!watcher_answers(r->state, &err, &error)) {
		r->part = REQUEST_WAIT;
		request_suspend(r, changes_answer);
		return;
	}
	if (!auth_still(r)) {
		reply_problem(r, 401, "unauthorized", NULL, "these credentials are not good any more");
		return;
	}
	if (err == BTS_EXPIRED) {
		changes_expired(r);
		return;
	}
	if (!err) {
		r->txid = watcher_txid(r->state);
		r->token = 1;
		err = reply_stream(r, 200, "application/json", &stream) ? watcher_broken(r->state, &error) : BTS_OK;
	}
	if (err)
		reply_error(r, err, &error);
}

static void changes_placed(struct request *r)
{
	enum watch_refusal refusal = watcher_placed(r->state);

	if (refusal) {
		changes_refuse(r, refusal);
	} else if (changes_form(r) == WATCH_JSON) {
		changes_answer(r);
	} else {
		r->txid = watcher_txid(r->state);
		r->token = 1;
		request_set_header(r, "Cache-Control", "no-store");
		reply_feed(r, changes_form(r) == WATCH_SSE ? "text/event-stream" : "application/x-ndjson",
			changes_read, r);
	}
}

void handle_changes(struct request *r)
{
	struct watch_asked asked = {.wait_ms = 0};
	struct watcher *watcher;
	enum watch_refusal refusal;

	if (changes_params(r, &asked))
		return;
	if (!auth_allows(r, AUTH_READ, asked.filter.bucket)) {
		reply_problem(r, 403, "forbidden", NULL, "these credentials do not allow this bucket");
		return;
	}
	if (r->head)
		asked.wait_ms = 0; /* there is nothing to wait for in headers alone */
	refusal = watch_attach(request_server(r)->watch, r, &asked, &watcher);
	if (refusal) {
		changes_refuse(r, refusal);
		return;
	}
	r->state = watcher;
	r->state_free = watcher_free;
	/* Only this loop takes up what is resumed: it cannot be before it is suspended. */
	r->part = REQUEST_WAIT;
	request_suspend(r, changes_placed);
}
