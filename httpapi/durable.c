/*
 * Writes that ask for copies, or for the archive.
 *
 * Theory: the acknowledgements are in the lock file, whoever took them: the frame routes of this process or a
 * bts-replicator beside it.  One thread sleeps on their count (bts_ack_wait), works out once for each change
 * how far the best K nodes are, for every K, and the archive, and lets those go on whose transaction that covers.  Whoever is
 * added is held against the levels of the last look under the same lock: what came after that look wakes the
 * thread again, so nobody is overlooked.
 */
#include "durable.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acks.h"
#include "config.h"
#include "log.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "text.h"

#define DURABLE_DEFAULT_MS 5000
#define DURABLE_MAX_MS 60000
#define DURABLE_TICK_MS 100 /* how late a wait may end */
#define DURABLE_BATCH 256

struct durable {
	struct role *role;
	struct quorum quorum;
	pthread_t thread;
	int started;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t some;
	struct request *list;
	uint64_t count, reached, unreached;
	struct bts_position epoch; /* the levels are of */
	bts_txid levels[QUORUM_LEVELS];
	int stopping;
	atomic_int archived; /* the archive of another process has been seen */
};

/* Under the lock. */
static int durable_covers(const struct durable *d, const struct request *r)
{
	return r->wait_token.epoch == d->epoch.epoch && r->wait_token.random == d->epoch.epoch_random &&
	       r->wait_txid <= d->levels[r->copies - 1];
}

static void durable_look(struct durable *d, struct bts *db)
{
	struct bts_ack acks[QUORUM_MAX];
	bts_txid levels[QUORUM_LEVELS];
	struct bts_position epoch = {0};
	size_t count = bts_ack_list(db, acks, QUORUM_MAX);

	role_epoch(d->role, &epoch.epoch, &epoch.epoch_random);
	quorum_levels(&d->quorum, acks, count < QUORUM_MAX ? count : QUORUM_MAX, &epoch, levels);
	pthread_mutex_lock(&d->lock);
	d->epoch = epoch;
	memcpy(d->levels, levels, sizeof(levels));
	pthread_mutex_unlock(&d->lock);
}

/* Takes out those that have their copies or whose time is up. */
static size_t durable_collect(struct durable *d, struct request **batch)
{
	uint64_t now = role_clock_ms();
	struct request **link;
	size_t n = 0;

	pthread_mutex_lock(&d->lock);
	for (link = &d->list; *link && n < DURABLE_BATCH;) {
		struct request *r = *link;
		int covered = durable_covers(d, r);

		if (!covered && r->wait_until_ms > now && !d->stopping) {
			link = &r->wait_next;
			continue;
		}
		*link = r->wait_next;
		d->count--;
		d->reached += covered != 0;
		d->unreached += !covered;
		r->unreached = !covered;
		batch[n++] = r;
	}
	pthread_mutex_unlock(&d->lock);
	return n;
}

static void *durable_main(void *arg)
{
	struct request *batch[DURABLE_BATCH];
	struct durable *d = arg;
	int stopping = 0, idle;
	uint32_t seen = 0;
	size_t n;

	pthread_setname_np(pthread_self(), "durable");
	while (!stopping) {
		struct bts *db = role_db(d->role);

		if (db) {
			(void)!bts_ack_wait(db, &seen, 0); /* the count before the look */
			durable_look(d, db);
		}
		while ((n = durable_collect(d, batch)))
			server_resume(batch, n);
		pthread_mutex_lock(&d->lock);
		idle = !d->list;
		while (!d->list && !d->stopping)
			pthread_cond_wait(&d->some, &d->lock);
		stopping = d->stopping && !d->list;
		pthread_mutex_unlock(&d->lock);
		/* After a rest the levels are old: look again first. */
		if (!idle && !stopping && db)
			(void)!bts_ack_wait(db, &seen, DURABLE_TICK_MS);
	}
	return NULL;
}

int durable_start(struct role *role, const struct config *config, struct durable **out)
{
	struct durable *d = calloc(1, sizeof(*d));

	if (!d)
		return -1;
	d->role = role;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->some, NULL);
	if (quorum_init(&d->quorum, role_name(role), config->members)) {
		log_event("error", "members-invalid",
			LOG_FIELDS(LOG_TEXT("detail", "--members is a list of node names, each once")));
	} else if (config->copies > quorum_most(&d->quorum) && config->copies != QUORUM_ARCHIVE) {
		log_event("error", "durability-invalid",
			LOG_FIELDS(LOG_TEXT("detail", "--durability asks for more copies than there are members")));
	} else if (!pthread_create(&d->thread, NULL, durable_main, d)) {
		d->started = 1;
		*out = d;
		return 0;
	}
	durable_stop(d);
	return -1;
}

void durable_drain(struct durable *d)
{
	pthread_mutex_lock(&d->lock);
	d->stopping = 1;
	pthread_cond_signal(&d->some);
	pthread_mutex_unlock(&d->lock);
}

void durable_stop(struct durable *d)
{
	if (!d)
		return;
	durable_drain(d);
	if (d->started)
		pthread_join(d->thread, NULL);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->some);
	free(d);
}

const struct quorum *durable_quorum(const struct durable *d)
{
	return &d->quorum;
}

void durable_stat(struct durable *d, struct durable_stat *stat)
{
	pthread_mutex_lock(&d->lock);
	*stat = (struct durable_stat){d->count, d->reached, d->unreached};
	pthread_mutex_unlock(&d->lock);
}

/* ---- a request ---- */

/* One here, or one that another process has told of: else a write would wait for what cannot come. */
static int durable_archive_known(struct request *r)
{
	struct server *server = request_server(r);
	struct bts *db = role_db(server->role);
	struct bts_ack ack;

	if (server->archive || atomic_load(&server->durable->archived))
		return 1;
	if (!db || !acks_archive(db, &ack))
		return 0;
	atomic_store(&server->durable->archived, 1);
	return 1;
}

static void durable_check_level(struct request *r)
{
	unsigned most = quorum_most(durable_quorum(request_server(r)->durable));

	if (r->copies == QUORUM_ARCHIVE) {
		if (role_follows(request_role(r)) || durable_archive_known(r))
			return; /* a follower has other reasons to refuse */
		snprintf(r->problem, sizeof(r->problem), "no archive of this file is known here");
		request_refuse(r, 400, "no-archive");
	} else if (r->copies > most) {
		snprintf(r->problem, sizeof(r->problem), "durability asks for %u copies, there are %u other members",
			r->copies, most);
		request_refuse(r, 400, "invalid-parameter");
	}
}

void durable_check_params(struct request *r)
{
	const struct bts_slice *durability = request_param(r, "durability"), *timeout = request_param(r, "timeout");
	uint64_t ms = DURABLE_DEFAULT_MS;

	r->copies = request_server(r)->config->copies;
	if (durability && quorum_parse(durability->data, durability->size, &r->copies)) {
		snprintf(r->problem, sizeof(r->problem),
			"the parameter durability is local, replicated:K, K from 1 to %u, or archived",
			quorum_most(durable_quorum(request_server(r)->durable)));
		request_refuse(r, 400, "invalid-parameter");
	} else if (timeout && (text_duration_ms(timeout->data, timeout->size, &ms) || ms > DURABLE_MAX_MS)) {
		snprintf(r->problem, sizeof(r->problem), "the parameter timeout is a duration of at most 60s");
		request_refuse(r, 400, "invalid-parameter");
	}
	r->timeout_ms = ms;
}

void durable_check(struct request *r)
{
	durable_check_params(r);
	if (!r->early_status)
		durable_check_level(r);
}

/* 0, or -1 when there is nothing to wait for; then unreached tells. */
static int durable_add(struct durable *d, struct request *r)
{
	int covered, added;

	pthread_mutex_lock(&d->lock);
	covered = durable_covers(d, r);
	added = !covered && !d->stopping && r->timeout_ms;
	r->unreached = !covered;
	if (added) {
		r->wait_next = d->list;
		d->list = r;
		d->count++;
		pthread_cond_signal(&d->some);
	} else {
		d->reached += covered != 0;
		d->unreached += !covered;
	}
	pthread_mutex_unlock(&d->lock);
	return added ? 0 : -1;
}

/* A commit of any other epoch than this one is not what copies of this epoch's numbers hold, nor is it told of in one (reply.c). */
void durable_expect(struct request *r)
{
	r->epochs = role_epochs(request_role(r));
	if (r->copies)
		role_epoch(request_role(r), &r->wait_token.epoch, &r->wait_token.random);
}

void durable_await(struct request *r, void (*then)(struct request *))
{
	if (!r->copies) {
		then(r);
		return;
	}
	r->wait_txid = r->op.txid;
	r->wait_until_ms = role_clock_ms() + r->timeout_ms;
	if (durable_add(request_server(r)->durable, r)) {
		then(r);
	} else {
		r->part = REQUEST_COPIES;
		request_suspend(r, then);
	}
}

int durable_tell(struct request *r)
{
	char text[QUORUM_TEXT_SIZE];

	if (!r->copies)
		return 1;
	quorum_text(r->unreached ? 0 : r->copies, text);
	request_set_header(r, "Durability-Reached", text);
	return !r->unreached;
}

void durable_member(const struct request *r, struct buf *b)
{
	char asked[QUORUM_TEXT_SIZE];

	quorum_text(r->copies, asked);
	buf_printf(b, ",\"durability-reached\":\"local\",\"durability\":\"%s\"", asked);
}

void durable_members(struct request *r, struct buf *b)
{
	if (durable_tell(r))
		return;
	buf_str(b, ",\"committed\":true");
	durable_member(r, b);
}

void durable_reply(struct request *r, unsigned status)
{
	struct buf b = {0};

	if (durable_tell(r)) {
		reply_empty(r, status);
		return;
	}
	buf_printf(&b, "{\"committed\":true,\"txid\":%" PRIu64, (uint64_t)r->txid);
	durable_member(r, &b);
	buf_str(&b, "}\n");
	reply_buf(r, 202, "application/json", &b);
}
