/* Reads that ask for a certain commit or freshness. */
#include "wait.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "text.h"

#define WAIT_DEFAULT_MS 5000
#define WAIT_MAX_MS 60000
#define WAIT_TICK_MS 100 /* how late a wait may end */
#define WAIT_BATCH 64

struct wait {
	struct role *role;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t some;
	struct request *list;
	int stopping;
};

/* Takes out those that have their commit or whose time is up. */
static size_t wait_collect(struct wait *w, struct request **batch)
{
	uint64_t now = role_clock_ms();
	bts_txid txid = role_txid(w->role);
	struct request **link;
	size_t n = 0;

	pthread_mutex_lock(&w->lock);
	for (link = &w->list; *link && n < WAIT_BATCH;) {
		struct request *r = *link;

		if (r->wait_txid <= txid || r->wait_until_ms <= now || w->stopping) {
			*link = r->wait_next;
			batch[n++] = r;
		} else {
			link = &r->wait_next;
		}
	}
	pthread_mutex_unlock(&w->lock);
	return n;
}

static void *wait_main(void *arg)
{
	struct wait *w = arg;
	struct request *batch[WAIT_BATCH];
	int stopping = 0;

	pthread_setname_np(pthread_self(), "wait");
	while (!stopping) {
		struct bts *db = role_db(w->role);
		bts_txid head = role_txid(w->role);
		size_t n;

		while ((n = wait_collect(w, batch)))
			server_resume(batch, n);
		pthread_mutex_lock(&w->lock);
		while (!w->list && !w->stopping)
			pthread_cond_wait(&w->some, &w->lock);
		stopping = w->stopping && !w->list;
		pthread_mutex_unlock(&w->lock);
		/* Others than this process commit, too: what is not known of would be no news to wait for. */
		if (!stopping && role_txid(w->role) == head && db && !bts_ship_wait(db, head, WAIT_TICK_MS, &head))
			role_saw(w->role, head);
	}
	return NULL;
}

int wait_start(struct role *role, struct wait **out)
{
	struct wait *w = calloc(1, sizeof(*w));

	if (!w)
		return -1;
	w->role = role;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->some, NULL);
	if (pthread_create(&w->thread, NULL, wait_main, w)) {
		free(w);
		return -1;
	}
	*out = w;
	return 0;
}

void wait_drain(struct wait *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = 1;
	pthread_cond_signal(&w->some);
	pthread_mutex_unlock(&w->lock);
}

void wait_stop(struct wait *w)
{
	if (!w)
		return;
	wait_drain(w);
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->some);
	free(w);
}

/* 0, or -1 when the waiter is stopping. */
static int wait_add(struct wait *w, struct request *r)
{
	int stopping;

	pthread_mutex_lock(&w->lock);
	stopping = w->stopping;
	if (!stopping) {
		r->wait_next = w->list;
		w->list = r;
		pthread_cond_signal(&w->some);
	}
	pthread_mutex_unlock(&w->lock);
	return stopping ? -1 : 0;
}

static void wait_resumed(struct request *r);

/* 0: this node has the commit (or nothing at all, which the handler tells); 1: answered, or suspended. */
static int wait_for(struct request *r)
{
	const struct reply_token *token = &r->wait_token;
	struct bts *db = role_db(request_role(r));
	bts_txid txid = role_txid(request_role(r));
	struct bts_error error = {0};
	enum bts_standing standing;
	enum bts_err err;

	if (!db)
		return 0;
	err = bts_ship_reached(db, token->epoch, token->random, token->txid, &standing, &error);
	if (err) {
		reply_error(r, err, &error);
		return 1;
	}
	if (standing == BTS_STANDING_KNOWN)
		return 0;
	if (standing == BTS_STANDING_DIVERGED) {
		reply_problem(r, 409, "write-lost", NULL,
			"the write belongs to a history that this one does not continue");
		return 1;
	}
	/* A commit of a later epoch may have a number that this node is past: then any news is worth asking. */
	r->wait_txid = token->txid > txid ? token->txid : txid + 1;
	if (r->wait_until_ms <= role_clock_ms() || wait_add(request_server(r)->wait, r)) {
		reply_problem(r, 503, "behind", NULL,
			"this node is at transaction %" PRIu64 " of its epoch, the read asks for %" PRIu64
			" of epoch %" PRIu32,
			(uint64_t)txid, (uint64_t)token->txid, token->epoch);
	} else {
		r->part = REQUEST_WAIT;
		request_suspend(r, wait_resumed);
	}
	return 1;
}

/* 0, or 1 after a refusal.  Judged when the read is about to begin: to have waited for a commit makes nothing fresh. */
static int wait_stale(struct request *r)
{
	struct bts_slice staleness = request_get_value(r, "BTS-Max-Staleness");
	uint64_t lag, bound;

	if (!staleness.data)
		return 0;
	if (text_duration_ms(staleness.data, staleness.size, &bound)) {
		reply_problem(r, 400, "invalid-header", NULL, "BTS-Max-Staleness is a duration");
		return 1;
	}
	lag = role_lag_ms(request_role(r));
	if (lag <= bound)
		return 0;
	reply_problem(r, 503, "behind", NULL, "what this node has may be %" PRIu64 " ms old", lag);
	return 1;
}

static void wait_resumed(struct request *r)
{
	if (!wait_for(r) && !wait_stale(r))
		r->route->handle(r);
}

static int wait_token(struct request *r, struct bts_slice text, uint64_t ms)
{
	if (reply_token_decode(text, &r->wait_token)) {
		reply_problem(
			r, 400, "invalid-token", NULL, "BTS-After is not a token that this service gave");
		return 1;
	}
	r->wait_until_ms = role_clock_ms() + ms;
	return wait_for(r);
}

int wait_before(struct request *r)
{
	struct bts_slice token = request_get_value(r, "BTS-After");
	const struct bts_slice *text = request_param(r, "wait");
	uint64_t ms = WAIT_DEFAULT_MS;

	if (text && (text_duration_ms(text->data, text->size, &ms) || ms > WAIT_MAX_MS)) {
		reply_problem(
			r, 400, "invalid-parameter", NULL, "the parameter wait is a duration of at most 60s");
		return 1;
	}
	/* What is malformed, or too old already, is told before the wait. */
	return wait_stale(r) || (token.data && wait_token(r, token, ms));
}
