/*
 * The follower's loop: session.c decides, this file does it.
 *
 * One thread owns transport, decoder, session and the apply under way; `lock` guards only the snapshot that
 * follow_status copies.  The handle in `db` is set once and closed by follow_stop, after the thread has
 * ended.
 */
#include "follow_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "position.h"

#define FOLLOW_REST_MS 60000 /* stopped: both that end it interrupt the wait */

uint64_t follow_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint32_t follow_random(void *arg)
{
	uint32_t value = 0;

	(void)arg;
	if (getrandom(&value, sizeof(value), 0) != (ssize_t)sizeof(value))
		value = (uint32_t)follow_now();
	return value;
}

void follow_publish(struct follow *follow, const char *state)
{
	const struct session *session = &follow->session;

	pthread_mutex_lock(&follow->lock);
	follow->status.state = state;
	if (session->query.after.txid)
		progress_end(&follow->progress);
	follow->status.resumes = follow->resumes;
	follow->status.transfer_done = follow->progress.done;
	follow->status.transfer_total = follow->progress.total;
	follow->status.transfer_rate = follow->progress.rate;
	follow->status.txid = session->query.after.txid;
	follow->status.upstream_txid = session->upstream_txid;
	follow->status.contact_ms = session->contact_ms;
	follow->status.lag_ms = session->fresh_ms;
	follow->status.source_lag_ms = session->source_lag_ms;
	follow->status.frames = session->frames;
	snprintf(follow->status.upstream, sizeof(follow->status.upstream), "%s", sources_current(&follow->sources));
	snprintf(follow->status.via, sizeof(follow->status.via), "%s", session->via);
	snprintf(follow->status.fork, sizeof(follow->status.fork), "%s", session->fork);
	follow->status.retries = session->retries;
	snprintf(follow->status.error, sizeof(follow->status.error), "%s", session->error.text);
	pthread_mutex_unlock(&follow->lock);
}

/* For those who serve this file on: through whom its commits come, and how fresh they are. */
void follow_tell(struct follow *follow)
{
	const struct session *session = &follow->session;
	struct bts *db = atomic_load(&follow->db);
	struct bts_upstream up = {.fresh_ms = session->fresh_ms};
	struct bts_error error;

	if (!db)
		return;
	snprintf(up.node, sizeof(up.node), "%s", session->query.follower);
	snprintf(up.via, sizeof(up.via), "%s", session->via);
	/* Older than this machine is up, or of an age that the source does not know: not known (0). */
	up.fresh_ms = up.fresh_ms > session->source_lag_ms ? up.fresh_ms - session->source_lag_ms : 0;
	if (bts_upstream_record(db, &up, &error))
		repl_emit(&follow->events, REPL_WARN, "upstream-not-told", "%s", error.text);
}

enum bts_err follow_open(
	struct follow *follow, struct bts_position *own, uint32_t *page_size, struct bts_error *error)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts *db = NULL;
	enum bts_err err = BTS_OK;

	if (follow->lent)
		db = atomic_load(&follow->db);
	else
		err = bts_open(follow->path, &follow->open, &db, error);
	if (err)
		return err;
	err = bts_ship_position(db, own, error);
	if (!err)
		err = bts_stat(db, &stat, error);
	if (err) {
		if (!follow->lent)
			bts_close(db);
		return err;
	}
	*page_size = stat.page_size;
	atomic_store(&follow->db, db);
	return BTS_OK;
}

bool follow_is_final(enum bts_err err)
{
	return err == BTS_DIVERGED || err == BTS_POISONED;
}

/* Each failure once, however often it is retried; "" = the source answered as it should. */
static void follow_report(struct follow *follow, const char *failure)
{
	if (strcmp(follow->reported, failure) == 0)
		return;
	if (failure[0])
		repl_emit(&follow->events, REPL_WARN, "retrying", "%s: %s", sources_current(&follow->sources), failure);
	else
		repl_emit(&follow->events, REPL_INFO, "source-answers", "%s", sources_current(&follow->sources));
	snprintf(follow->reported, sizeof(follow->reported), "%s", failure);
}

static void follow_moved(struct follow *follow)
{
	pthread_mutex_lock(&follow->lock);
	follow->status.switches++;
	pthread_mutex_unlock(&follow->lock);
	repl_emit(&follow->events, REPL_INFO, "source-switched", "%s", sources_current(&follow->sources));
}

/* After a request: with several sources a failure is a reason to ask the next one. */
static void follow_choose(struct follow *follow, bool failed)
{
	struct sources *sources = &follow->sources;

	if (!failed) {
		sources_answered(sources);
	} else if (follow->session.state == SESSION_STOPPED) {
		if (follow_is_final(follow->session.error.code) && follow->session.error.code != BTS_DIVERGED)
			return; /* of this file, whoever is asked */
		if (!sources_refused(sources))
			return;
		repl_emit(&follow->events, REPL_WARN, "refused", "%s", follow->session.error.text);
		session_retry(&follow->session);
		follow_moved(follow);
	} else if (sources->count > 1) {
		sources_next(sources);
		follow_moved(follow);
	}
}

static bool follow_switched(struct follow *follow)
{
	bool switched;

	pthread_mutex_lock(&follow->lock);
	switched = follow->wanted.count > 0;
	pthread_mutex_unlock(&follow->lock);
	return switched;
}

static void follow_request(struct follow *follow, const char *target)
{
	struct bts_error *failure = &follow->failure;
	enum bts_err err = follow_ask(follow, target);

	if (atomic_load(&follow->stopping))
		return;
	if (!err && !follow->session.applied && atomic_load(&follow->db)) /* nothing new */
		err = bts_apply_idle(atomic_load(&follow->db), failure);
	if (err == BTS_TIMEOUT && follow_switched(follow))
		return;
	if (err && follow_is_final(err))
		session_stop(&follow->session, failure);
	session_done(&follow->session, err ? failure : NULL);
	if (follow_may_graft(follow))
		err = follow_graft(follow, failure);
	if (err)
		follow_tell(follow); /* the chain is not known any more */
	follow_choose(follow, err != BTS_OK);
	if (follow->session.state == SESSION_STOPPED)
		repl_emit(&follow->events, REPL_ERROR, "stopped", "%s", follow->session.error.text);
	else
		follow_report(follow, err ? failure->text : "");
}

/* Other sources were asked for: forget what the last one said. */
static void follow_take_switch(struct follow *follow)
{
	bool taken;

	pthread_mutex_lock(&follow->lock);
	taken = follow->wanted.count > 0;
	if (taken) {
		follow->sources = follow->wanted;
		follow->wanted.count = 0;
		transport_resume(follow->transport); /* under the lock: a later switch interrupts again */
	}
	pthread_mutex_unlock(&follow->lock);
	if (!taken)
		return;
	session_switch(&follow->session);
	follow->reported[0] = '\0';
	follow_tell(follow);
	follow_moved(follow);
}

/* Nothing to do for ever, or until other sources are named. */
static void follow_rest(struct follow *follow)
{
	while (!atomic_load(&follow->stopping) && !follow_switched(follow))
		transport_wait(follow->transport, FOLLOW_REST_MS);
}

static void *follow_run(void *arg)
{
	struct follow *follow = arg;
	struct session_step step;

	while (!atomic_load(&follow->stopping)) {
		follow_take_switch(follow);
		follow->session.query.lean = frame_decoder_knows(follow->decoder, &follow->session.query.after);
		session_next(&follow->session, follow_now(), &step);
		switch (step.what) {
		case SESSION_REQUEST:
			follow_publish(follow, follow->session.first ? "connecting" : "following");
			follow_request(follow, step.target);
			break;
		case SESSION_WAIT:
			follow_publish(follow, "backing-off");
			transport_wait(follow->transport, step.wait_ms);
			break;
		case SESSION_STOP:
			follow_publish(follow, "stopped");
			follow_rest(follow);
			break;
		}
	}
	follow_publish(follow, "stopped");
	return NULL;
}

static enum bts_err follow_check_options(const struct follow_options *options, struct bts_error *error)
{
	struct sources sources;

	if (!options->path || !options->path[0])
		return fail_set(error, BTS_INVALID, "no file named");
	if (!options->node || !query_node_valid(options->node))
		return fail_set(error, BTS_INVALID, "node name: letters, digits, '.', '_', '-', at most %d",
			BTS_ACK_NAME_MAX);
	if (options->url && !query_url_valid(options->url))
		return fail_set(error, BTS_INVALID, "own url: too long, or characters not allowed");
	if (options->max_rate && options->max_rate < FOLLOW_RATE_LEAST)
		return fail_set(error, BTS_INVALID, "rate of %" PRIu64 " bytes a second: at least %d", options->max_rate,
			FOLLOW_RATE_LEAST);
	return sources_parse(&sources, options->upstream ? options->upstream : "", error);
}

static void follow_free(struct follow *follow)
{
	if (!follow)
		return;
	if (!follow->lent)
		bts_close(atomic_load(&follow->db));
	transport_free(follow->transport);
	frame_decoder_free(follow->decoder);
	pthread_mutex_destroy(&follow->lock);
	free(follow->path);
	free(follow);
}

static struct follow *follow_new(const struct follow_options *options)
{
	struct follow *follow = calloc(1, sizeof(*follow));

	if (!follow)
		return NULL;
	pthread_mutex_init(&follow->lock, NULL);
	atomic_init(&follow->db, options->db);
	follow->lent = options->db != NULL;
	atomic_init(&follow->stopping, false);
	follow->events = options->events;
	follow->rejoin = options->rejoin;
	follow->graft_after = options->graft_after ? options->graft_after : FOLLOW_GRAFT_AFTER;
	bts_options_init(&follow->open);
	if (options->open)
		follow->open = *options->open;
	follow->open.flags = BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER | (follow->open.flags & BTS_OPEN_DEADLINE);
	follow->status.state = "connecting";
	follow->path = strdup(options->path);
	follow->transport = transport_new("btree_store/" BTS_VERSION_STRING);
	follow->decoder = frame_decoder_new();
	if (follow->path && follow->transport && follow->decoder)
		return follow;
	follow_free(follow);
	return NULL;
}

enum bts_err follow_start(const struct follow_options *options, struct follow **out, struct bts_error *error)
{
	struct session_config config = {.node = options->node,
		.url = options->url,
		.wait_ms = options->wait_ms ? options->wait_ms : FOLLOW_WAIT_MS,
		.zstd = options->zstd,
		.random = follow_random};
	struct bts_position own;
	struct follow *follow = NULL;
	uint32_t page_size = 0;
	enum bts_err err;
	int os;

	err = follow_check_options(options, error);
	if (err)
		return err;
	if (config.wait_ms > QUERY_WAIT_MS_MAX)
		config.wait_ms = QUERY_WAIT_MS_MAX;
	follow = follow_new(options);
	if (!follow)
		return fail_set(error, BTS_MEMORY, "no memory for a follower");
	err = follow_open(follow, &own, &page_size, error);
	if (err && err != BTS_NOT_FOUND)
		goto fail;
	err = sources_parse(&follow->sources, options->upstream, error) ? BTS_INVALID : err;
	if (err && err != BTS_NOT_FOUND)
		goto fail;
	config.session = (uint64_t)follow_random(NULL) << 32 | follow_random(NULL);
	session_init(&follow->session, &config, err ? NULL : &own, page_size);
	follow->session.fresh_ms = options->fresh_ms;
	follow_leave(follow);
	transport_set_rate(follow->transport, options->max_rate);
	follow_tell(follow);
	follow_publish(follow, "connecting");
	os = pthread_create(&follow->thread, NULL, follow_run, follow);
	if (os) {
		err = fail_os(error, os, "starting the follower's thread");
		goto fail;
	}
	*out = follow;
	return BTS_OK;
fail:
	follow_free(follow);
	return err;
}

static void follow_end(struct follow *follow)
{
	pthread_mutex_lock(&follow->lock);
	atomic_store(&follow->stopping, true);
	transport_interrupt(follow->transport);
	pthread_mutex_unlock(&follow->lock);
	pthread_join(follow->thread, NULL);
}

void follow_stop(struct follow *follow)
{
	if (!follow)
		return;
	follow_end(follow);
	follow_free(follow);
}

struct bts *follow_release(struct follow *follow)
{
	struct bts *db;

	follow_end(follow);
	db = atomic_exchange(&follow->db, NULL);
	follow_free(follow);
	return db;
}

enum bts_err follow_switch(struct follow *follow, const char *urls, struct bts_error *error)
{
	struct sources sources;
	enum bts_err err = sources_parse(&sources, urls, error);

	if (err)
		return err;
	pthread_mutex_lock(&follow->lock);
	follow->wanted = sources;
	transport_interrupt(follow->transport);
	pthread_mutex_unlock(&follow->lock);
	return BTS_OK;
}

struct bts *follow_db(struct follow *follow)
{
	return atomic_load(&follow->db);
}

void follow_status(struct follow *follow, struct follow_status *status)
{
	uint64_t now = follow_now();

	pthread_mutex_lock(&follow->lock);
	*status = follow->status;
	pthread_mutex_unlock(&follow->lock);
	status->heard = status->contact_ms != 0;
	status->contact_ms = status->heard && now > status->contact_ms ? now - status->contact_ms : 0;
	status->lag_ms = session_lag_ms(status->lag_ms, now);
}
