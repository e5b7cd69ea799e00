/*
 * The follower's loop: session.c decides, this file does it.
 *
 * One thread owns transport, decoder, session and the apply under way; `lock` guards only the snapshot that
 * follow_status copies.  The handle in `db` is set once and closed by follow_stop, after the thread has
 * ended.
 */
#include "follow.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "position.h"
#include "progress.h"
#include "rejoin.h"
#include "sabotage.h"
#include "session.h"
#include "transport.h"

#define FOLLOW_SIZE_MAX (UINT64_C(1) << 62)
#define FOLLOW_REST_MS 60000 /* stopped: both that end it interrupt the wait */

struct follow {
	char *path;
	struct sources sources; /* the thread's */
	struct bts_options open;
	struct repl_events events;

	_Atomic(struct bts *) db;
	bool lent; /* db is the caller's */
	atomic_bool stopping;
	pthread_t thread;

	/* the thread's own */
	struct transport *transport;
	struct frame_decoder *decoder;
	struct session session;
	uint64_t resumes;
	struct frame_header frame; /* the one being received */
	struct bts_apply *apply;   /* NULL between frames */
	struct session_reply reply;
	char reply_code[40];
	char reply_via[BTS_VIA_MAX + 1];
	char reply_fork[POSITION_TEXT_SIZE];
	struct bts_position fork; /* of the reply: what it named as the fork */
	bool has_fork;
	bool rejoin; /* as in the options */
	uint8_t digest[16]; /* of the reply */
	bool has_digest;
	bool suspect; /* the source's digest was another one: no frame can follow, a graft can */
	uint64_t frame_bytes, frame_pages;
	uint64_t source_size;	  /* of the reply: bytes of the source's file, 0: not told */
	struct progress progress; /* of a first transfer */
	struct bts_error failure; /* of the request of the moment */
	char reported[256];	  /* the failure last emitted, "" = none since all went well */

	pthread_mutex_t lock;
	struct sources wanted;	   /* count 0: none */
	struct follow_status status; /* contact_ms and lag_ms hold instants here, 0 = none */
};

static uint64_t follow_now(void)
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

static void follow_publish(struct follow *follow, const char *state)
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
	follow->status.lag_ms = session->behind_ms;
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
static void follow_tell(struct follow *follow)
{
	const struct session *session = &follow->session;
	struct bts *db = atomic_load(&follow->db);
	struct bts_upstream up = {.fresh_ms = session->contact_ms};
	struct bts_error error;

	if (!db)
		return;
	snprintf(up.node, sizeof(up.node), "%s", session->query.follower);
	snprintf(up.via, sizeof(up.via), "%s", session->via);
	if (session->behind_ms && session->behind_ms < up.fresh_ms)
		up.fresh_ms = session->behind_ms;
	/* 0 would say that nobody knows. */
	if (up.fresh_ms)
		up.fresh_ms = up.fresh_ms > session->source_lag_ms ? up.fresh_ms - session->source_lag_ms : 1;
	if (bts_upstream_record(db, &up, &error))
		repl_emit(&follow->events, REPL_WARN, "upstream-not-told", "%s", error.text);
}

/* Opens the file; sets db and tells the session where it stands. */
static enum bts_err follow_open(
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

/* The first frame names the database: make the empty file it goes into, or take the one an attempt before left. */
static enum bts_err follow_create(
	struct follow *follow, const struct frame_header *header, struct bts_error *error)
{
	struct bts_options options = follow->open;
	struct bts_position own;
	uint32_t page_size;
	enum bts_err err;

	options.flags = 0;
	err = follow_open(follow, &own, &page_size, error);
	if (err == BTS_NOT_FOUND) {
		err = bts_ship_create(follow->path, &options, &header->target, header->page_size, error);
		if (!err)
			err = follow_open(follow, &own, &page_size, error);
	}
	if (err)
		return err;
	repl_emit(&follow->events, REPL_INFO, "created", "%s, page size %" PRIu32, follow->path, page_size);
	follow->session.query.after = own;
	follow->session.query.has_database = true;
	follow->session.page_size = page_size;
	return session_frame(&follow->session, header, error);
}

static enum bts_err follow_begin(
	struct follow *follow, const struct frame_header *header, struct bts_error *error)
{
	enum bts_err err;

	err = session_frame(&follow->session, header, error);
	if (err)
		return err;
	if (!atomic_load(&follow->db)) {
		err = follow_create(follow, header, error);
		if (err)
			return err;
	}
	follow->frame = *header;
	follow_publish(follow, "receiving");
	if (!header->base.txid)
		progress_begin(&follow->progress, follow->source_size, follow_now());
	if (follow->session.resumed) {
		follow->resumes++;
		repl_emit(&follow->events, REPL_INFO, "transfer-resumed", "to %" PRIu64 ", from page %" PRIu64 " of %" PRIu64,
			header->target.txid, header->partial.cursor, header->partial.position.txid);
		return bts_apply_resume(
			atomic_load(&follow->db), &header->partial, &header->target, &follow->apply, error);
	}
	return bts_apply_begin(atomic_load(&follow->db), &follow->session.query.after, &header->target,
		&follow->apply, error);
}

/* Equal positions have equal roots: anything else is damage, here or there, that no checksum has shown. */
static void follow_compare(struct follow *follow, bts_txid txid)
{
	struct bts_role role = {.size = sizeof(role)};
	struct bts *db = atomic_load(&follow->db);
	struct bts_error error;

	if (!follow->has_digest || !db || bts_role(db, &role, &error) || role.position.txid != txid ||
		memcmp(role.digest, follow->digest, sizeof(role.digest)) == 0)
		return;
	follow->suspect = true;
	pthread_mutex_lock(&follow->lock);
	follow->status.digest_mismatches++;
	pthread_mutex_unlock(&follow->lock);
	repl_emit(&follow->events, REPL_ERROR, "digest-mismatch",
		"transaction %" PRIu64 " has other roots here than at %s: what differs is fetched with the next commit", txid,
		sources_current(&follow->sources));
}

/* The frame has ended, whole or not: of a first transfer what came is kept, and asked to be gone on with. */
static void follow_leave(struct follow *follow)
{
	struct bts *db = atomic_load(&follow->db);
	struct bts_partial partial;

	bts_apply_suspend(follow->apply);
	follow->apply = NULL;
	if (!db || follow->session.query.after.txid)
		return;
	if (bts_apply_partial(db, &partial))
		memset(&partial, 0, sizeof(partial));
	session_transfer(&follow->session, &partial, follow->frame_pages > 0);
}

static enum bts_err follow_finish(struct follow *follow, struct bts_slice record, struct bts_error *error)
{
	struct bts_apply *apply = follow->apply;
	enum bts_err err;

	follow->apply = NULL;
	if (SABOTAGED(SABOTAGE_R7_ACK_EARLY))
		session_applied(&follow->session, &follow->frame, follow_now());
	err = bts_apply_finish(apply, record, error);
	if (err)
		return err;
	session_applied(&follow->session, &follow->frame, follow_now());
	follow_compare(follow, follow->frame.target.txid);
	pthread_mutex_lock(&follow->lock);
	follow->status.pages += follow->frame_pages;
	/* The numbers between two epochs are no commits. */
	if (follow->frame.base.txid && follow->frame.base.epoch == follow->frame.target.epoch) {
		follow->status.streamed_txids += follow->frame.target.txid - follow->frame.base.txid;
		follow->status.streamed_bytes += follow->frame_bytes;
	}
	pthread_mutex_unlock(&follow->lock);
	repl_emit(&follow->events, REPL_INFO, "frame-applied",
		"from %" PRIu64 " to %" PRIu64 ", %" PRIu64 " pages, %" PRIu64 " bytes",
		follow->frame.base.txid, follow->frame.target.txid, follow->frame_pages, follow->frame_bytes);
	follow_tell(follow);
	follow_publish(follow, "following");
	return BTS_OK;
}

static enum bts_err follow_event(
	struct follow *follow, const struct frame_event *event, struct bts_error *error)
{
	switch (event->kind) {
	case FRAME_HEADER:
		return follow_begin(follow, event->header, error);
	case FRAME_PIECE:
		follow->frame_pages += event->piece.pages;
		progress_came(&follow->progress, event->bytes.size,
			(event->piece.id.pgno + event->piece.first + event->piece.pages) * follow->frame.page_size, follow_now());
		return bts_apply_piece(
			follow->apply, &event->piece.id, event->piece.first, event->bytes, error);
	case FRAME_END:
		return follow_finish(follow, event->record, error);
	default:
		return BTS_OK;
	}
}

static void follow_on_header(void *arg, const char *name, const char *value)
{
	struct follow *follow = arg;

	if (strcasecmp(name, "BTS-Txid") == 0) {
		follow->reply.has_txid = position_number_parse(value, POSITION_TXID_MAX, &follow->reply.txid);
	} else if (strcasecmp(name, "BTS-Lag-Ms") == 0) {
		follow->reply.has_lag =
			position_number_parse(value, SESSION_LAG_UNKNOWN_MS, &follow->reply.lag_ms);
	} else if (strcasecmp(name, "BTS-Role") == 0) {
		follow->reply.follower = strcmp(value, "primary") != 0;
	} else if (strcasecmp(name, "BTS-Via") == 0) {
		snprintf(follow->reply_via, sizeof(follow->reply_via), "%s", value);
		follow->reply.via = follow->reply_via;
	} else if (strcasecmp(name, "BTS-Digest") == 0) {
		follow->has_digest = position_hex_parse(value, follow->digest, sizeof(follow->digest));
	} else if (strcasecmp(name, "BTS-Fork") == 0) {
		follow->has_fork = position_parse(value, &follow->fork);
		snprintf(follow->reply_fork, sizeof(follow->reply_fork), "%s", value);
		follow->reply.fork = follow->has_fork ? follow->reply_fork : NULL;
	} else if (strcasecmp(name, "BTS-Size") == 0) {
		if (!position_number_parse(value, FOLLOW_SIZE_MAX, &follow->source_size))
			follow->source_size = 0;
	} else if (strcasecmp(name, "BTS-Error") == 0) {
		snprintf(follow->reply_code, sizeof(follow->reply_code), "%s", value);
		follow->reply.code = follow->reply_code;
	}
}

static enum bts_err follow_on_begin(void *arg, long status)
{
	struct follow *follow = arg;
	enum bts_err err;

	follow->reply.status = status;
	err = session_reply(&follow->session, &follow->reply, follow_now(), &follow->failure);
	if (status == 204 && follow->reply.has_txid)
		follow_compare(follow, follow->reply.txid);
	if (status == 200 && follow->suspect)
		return fail_set(&follow->failure, BTS_CORRUPT, "no frame can follow a commit whose digest differs");
	follow_tell(follow);
	follow_publish(follow, follow->session.state == SESSION_STREAMING ? "receiving" : "following");
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err follow_on_body(void *arg, const void *data, size_t size)
{
	struct follow *follow = arg;
	struct bts_slice input = {data, size};
	struct frame_event event;
	enum bts_err err;

	if (follow->session.state != SESSION_STREAMING)
		return BTS_OK;
	follow->frame_bytes += size;
	pthread_mutex_lock(&follow->lock);
	follow->status.bytes += size;
	follow->status.transfer_done = follow->progress.done;
	follow->status.transfer_total = follow->progress.total;
	follow->status.transfer_rate = follow->progress.rate;
	pthread_mutex_unlock(&follow->lock);
	do {
		if (atomic_load(&follow->stopping))
			return fail_set(&follow->failure, BTS_TIMEOUT, "interrupted");
		err = frame_decode(follow->decoder, &input, &event, &follow->failure);
		if (!err)
			err = follow_event(follow, &event, &follow->failure);
	} while (!err && event.kind != FRAME_MORE);
	return err;
}

/* Errors that asking again cannot mend. */
static bool follow_is_final(enum bts_err err)
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

/* Is this file refused, or suspected, for a reason that a graft mends? */
static bool follow_may_graft(const struct follow *follow)
{
	const char *code = follow->reply.code ? follow->reply.code : "";

	if (follow->suspect && follow->reply.status == 200)
		return follow->session.state != SESSION_STOPPED && atomic_load(&follow->db);
	if (follow->session.state != SESSION_STOPPED || follow->reply.status != 409 || !atomic_load(&follow->db))
		return false;
	return strcmp(code, "base-unknown") == 0 || (strcmp(code, "diverged") == 0 && follow->rejoin && follow->has_fork);
}

static void follow_grafted(struct follow *follow, const struct rejoin *rejoin)
{
	session_grafted(&follow->session, &rejoin->graft.target, follow_now());
	follow->suspect = false;
	pthread_mutex_lock(&follow->lock);
	follow->status.grafts++;
	follow->status.graft_pages += rejoin->graft.pages;
	if (rejoin->fork)
		snprintf(follow->status.orphans, sizeof(follow->status.orphans), "%.255s", rejoin->orphans);
	pthread_mutex_unlock(&follow->lock);
	follow_publish(follow, "following");
}

/* The session is stopped; it goes on from the source's newest commit, or tries again, unless no trying helps. */
static enum bts_err follow_graft(struct follow *follow, struct bts_error *failure)
{
	bool forked = follow->reply.status == 409 && strcmp(follow->reply.code, "diverged") == 0;
	struct rejoin *rejoin = calloc(1, sizeof(*rejoin));
	enum bts_err err;

	if (!rejoin) {
		session_retry(&follow->session);
		return fail_set(failure, BTS_MEMORY, "no memory for a graft");
	}
	memcpy(follow->fork.database, follow->session.query.after.database, sizeof(follow->fork.database));
	rejoin->peer = (struct heal_peer){follow->transport, sources_current(&follow->sources), &follow->stopping};
	rejoin->db = atomic_load(&follow->db);
	rejoin->path = follow->path;
	rejoin->fork = forked ? &follow->fork : NULL;
	rejoin->events = &follow->events;
	follow_publish(follow, "grafting");
	err = rejoin_run(rejoin, failure);
	if (!err) {
		follow_grafted(follow, rejoin);
	} else if (follow_is_final(err)) {
		session_stop(&follow->session, failure);
	} else {
		follow->session.error = *failure;
		session_retry(&follow->session);
	}
	free(rejoin);
	return err;
}

static void follow_request(struct follow *follow, const char *target)
{
	const struct transport_handler handler = {follow_on_header, follow_on_begin, follow_on_body, follow};
	struct bts_error *failure = &follow->failure;
	char url[FOLLOW_URL_MAX + QUERY_TARGET_SIZE + 1];
	enum bts_err err;

	snprintf(url, sizeof(url), "%s%s", sources_current(&follow->sources), target);
	memset(failure, 0, sizeof(*failure));
	memset(&follow->reply, 0, sizeof(follow->reply));
	follow->has_fork = follow->has_digest = false;
	follow->source_size = 0;
	follow->frame_bytes = follow->frame_pages = 0;
	frame_decoder_reset(follow->decoder);
	err = transport_get(follow->transport, url, follow->session.query.wait_ms, &handler, failure);
	if (!err && follow->session.state == SESSION_STREAMING)
		err = frame_decode_finish(follow->decoder, failure);
	follow_leave(follow);
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
	bts_options_init(&follow->open);
	if (options->open)
		follow->open = *options->open;
	follow->open.flags = BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER;
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
	status->lag_ms = status->lag_ms && now > status->lag_ms ? now - status->lag_ms : 0;
}
