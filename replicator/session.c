/* The follower's side of replication as a state machine. */
#include "session.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "position.h"

void session_init(struct session *session, const struct session_config *config,
	const struct bts_position *own, uint32_t page_size)
{
	memset(session, 0, sizeof(*session));
	snprintf(session->query.follower, sizeof(session->query.follower), "%s", config->node);
	snprintf(session->query.url, sizeof(session->query.url), "%s", config->url ? config->url : "");
	session->query.session = config->session;
	session->query.zstd = config->zstd;
	session->wait_ms = config->wait_ms;
	session->first = true;
	session->random = config->random;
	session->random_arg = config->random_arg;
	session->page_size = page_size;
	if (own) {
		session->query.after = *own;
		session->query.has_database = true;
	}
}

/* Full jitter: anywhere between the minimum and a bound that doubles with each failure in a row. */
static unsigned session_backoff(struct session *session)
{
	unsigned shift = session->failures < 10 ? session->failures : 10;
	unsigned bound = SESSION_BACKOFF_MIN_MS << shift;

	if (bound > SESSION_BACKOFF_MAX_MS)
		bound = SESSION_BACKOFF_MAX_MS;
	return SESSION_BACKOFF_MIN_MS +
	       session->random(session->random_arg) % (bound - SESSION_BACKOFF_MIN_MS + 1);
}

void session_next(struct session *session, uint64_t now_ms, struct session_step *step)
{
	memset(step, 0, sizeof(*step));
	switch (session->state) {
	case SESSION_STOPPED:
		step->what = SESSION_STOP;
		return;
	case SESSION_FAILED:
		step->what = SESSION_WAIT;
		step->wait_ms = session_backoff(session);
		session->state = SESSION_IDLE;
		return;
	default:
		step->what = SESSION_REQUEST;
		session->query.wait_ms = session->first ? 0 : session->wait_ms;
		query_encode(&session->query, step->target);
		session->state = SESSION_ASKED;
		session->applied = session->early = session->resumed = false;
		session->asked_ms = now_ms;
		return;
	}
}

/*
 * Nothing was missing of what the source had when it answered: at the latest when the wait that it was granted was over, however late
 * its answer was read.  One whose own is older, or of an age it does not know, makes nothing forgotten.
 */
static void session_fresh(struct session *session)
{
	uint64_t end = session->asked_ms + session->query.wait_ms;
	uint64_t told = session->heard_ms < end ? session->heard_ms : end;

	if (session->fresh_ms && (int64_t)(told - session->heard_lag_ms) < (int64_t)(session->fresh_ms - session->source_lag_ms))
		return;
	session->fresh_ms = told;
	session->source_lag_ms = session->heard_lag_ms;
}

static void session_heard(struct session *session, const struct session_reply *reply, uint64_t now_ms)
{
	session->heard_ms = now_ms;
	if (!reply->has_txid || (reply->status != 200 && reply->status != 204))
		return;
	session->contact_ms = now_ms;
	session->upstream_txid = reply->txid;
	session->heard_lag_ms = reply->has_lag ? reply->lag_ms : reply->follower ? SESSION_LAG_UNKNOWN_MS : 0;
	snprintf(session->via, sizeof(session->via), "%s", reply->via ? reply->via : "");
	/* What is missing may have been committed right after the last time that nothing was: that stays, else. */
	if (reply->txid > session->query.after.txid)
		return;
	session_fresh(session);
}

/* A chain of names that this node is in. */
static bool session_loops(const struct session *session, const char *via)
{
	size_t size = strlen(session->query.follower), n;

	for (; via && *via; via += n + (via[n] == ',')) {
		n = strcspn(via, ",");
		if (n == size && memcmp(via, session->query.follower, n) == 0)
			return true;
	}
	return false;
}

static enum bts_err session_refused(
	struct session *session, const struct session_reply *reply, struct bts_error *error)
{
	const char *code = reply->code ? reply->code : "no code";
	char own[POSITION_TEXT_SIZE];

	position_text(&session->query.after, own);
	/* Loops come and go with what others follow. */
	if (reply->status == 409 && strcmp(code, "loop") == 0)
		return fail_set(error, BTS_INVALID, "the source refuses: its commits come through this node");
	/* So does being ahead of one that follows others itself. */
	if (reply->status == 409 && reply->follower && strcmp(code, "ahead") == 0)
		return fail_set(error, BTS_INVALID, "the source, a follower, is behind (own position %s)", own);
	if (reply->status == 409) {
		snprintf(session->fork, sizeof(session->fork), "%s", reply->fork ? reply->fork : "");
		fail_set(error, strcmp(code, "diverged") == 0 ? BTS_DIVERGED : BTS_INVALID,
			"the source refuses this file for ever: %.32s (own position %s)%s%s", code, own,
			session->fork[0] ? "; both have " : "", session->fork);
		if (error)
			session_stop(session, error);
		return error ? error->code : BTS_INVALID;
	}
	if (reply->status >= 300 && reply->status < 400)
		return fail_set(error, BTS_INVALID, "the source redirects (%ld), which is not followed",
			reply->status);
	return fail_set(error, BTS_IO, "the source answers %ld (%.32s)", reply->status, code);
}

enum bts_err session_reply(
	struct session *session, const struct session_reply *reply, uint64_t now_ms, struct bts_error *error)
{
	struct bts_error local;

	if ((reply->status == 200 || reply->status == 204) && session_loops(session, reply->via))
		return fail_set(error, BTS_INVALID, "the source's commits come through this node: %.100s", reply->via);
	session_heard(session, reply, now_ms);
	if (reply->status == 200 || reply->status == 204)
		session->fork[0] = '\0';
	if (reply->status == 200) {
		session->state = SESSION_STREAMING;
		return BTS_OK;
	}
	if (reply->status == 204) {
		session->early = session->query.wait_ms > 0 && now_ms - session->asked_ms < SESSION_EARLY_MS;
		return BTS_NOT_FOUND;
	}
	return session_refused(session, reply, error ? error : &local);
}

static bool session_same_partial(const struct bts_partial *a, const struct bts_partial *b)
{
	return position_equal(&a->position, &b->position) && a->cursor == b->cursor && a->older == b->older &&
	       a->older_cursor == b->older_cursor;
}

/* What the header says beyond the positions: nothing that was not asked for. */
static enum bts_err session_frame_kind(struct session *session, const struct frame_header *header, struct bts_error *error)
{
	session->resumed = header->partial.position.txid != 0;
	if (header->zstd && !session->query.zstd)
		return fail_set(error, BTS_CORRUPT, "a compressed frame came, and was not asked for");
	if (header->lean && !session->query.lean)
		return fail_set(error, BTS_CORRUPT, "a frame that builds on a record came, and was not asked for");
	if (session->resumed && !session_same_partial(&session->query.partial, &header->partial))
		return fail_set(error, BTS_CORRUPT, "a frame came that goes on from elsewhere than asked");
	return BTS_OK;
}

void session_transfer(struct session *session, const struct bts_partial *partial, bool moved)
{
	/* That the reply went on with it is known by what was asked: one that the source cannot make ends before its first byte. */
	if (moved)
		session->stuck = session->failures = 0;
	else if (session->state == SESSION_STREAMING && session->query.partial.position.txid)
		session->stuck++;
	session->query.partial = *partial;
	if (session->stuck < SESSION_STUCK_MAX)
		return;
	session->stuck = 0;
	memset(&session->query.partial, 0, sizeof(session->query.partial));
}

enum bts_err session_frame(
	struct session *session, const struct frame_header *header, struct bts_error *error)
{
	const struct bts_position *own = &session->query.after;
	char theirs[POSITION_TEXT_SIZE], ours[POSITION_TEXT_SIZE];

	if (session->query.has_database && !position_same_database(own, &header->target))
		return fail_set(error, BTS_DIVERGED, "a frame of another database came");
	if (session->page_size && header->page_size != session->page_size)
		return fail_set(error, BTS_CORRUPT,
			"a frame of page size %" PRIu32 " came, the file has %" PRIu32, header->page_size,
			session->page_size);
	/* Before the first frame nothing but txid 0 is known of the own position, not even the database. */
	if (own->txid == 0 ? header->base.txid != 0 : !position_equal(own, &header->base)) {
		position_text(&header->base, theirs);
		position_text(own, ours);
		return fail_set(error, BTS_CORRUPT, "a frame from %s came, the file is at %s", theirs, ours);
	}
	if (header->target.epoch == own->epoch && own->txid != 0 &&
		header->target.epoch_random != own->epoch_random)
		return fail_set(error, BTS_DIVERGED, "a frame of another epoch %" PRIu32 " came", own->epoch);
	return session_frame_kind(session, header, error);
}

void session_applied(struct session *session, const struct frame_header *header)
{
	session->query.after = header->target;
	session->query.has_database = true;
	memset(&session->query.partial, 0, sizeof(session->query.partial));
	session->page_size = header->page_size;
	session->applied = true;
	session->failures = 0;
	session->frames++;
	/* It says where the source stood when it began to answer, not where it stands now. */
	session->contact_ms = session->heard_ms;
	if (session->upstream_txid < header->target.txid)
		session->upstream_txid = header->target.txid;
	/* A transfer that was resumed is of a commit from before that; the next answer tells. */
	if (session->resumed || session->upstream_txid > header->target.txid)
		return;
	session_fresh(session);
}

void session_grafted(struct session *session, const struct bts_position *target, uint64_t now_ms)
{
	session->query.after = *target;
	session->state = SESSION_IDLE;
	session->failures = 0;
	session->first = true;
	session->contact_ms = session->heard_ms = now_ms;
	if (session->upstream_txid < target->txid)
		session->upstream_txid = target->txid;
	memset(&session->error, 0, sizeof(session->error));
}

void session_done(struct session *session, const struct bts_error *error)
{
	if (session->state == SESSION_STOPPED)
		return;
	if (error) {
		session->error = *error;
		session->retries++;
		session->via[0] = '\0'; /* it holds as long as the source answers */
	} else if (session->state != SESSION_STREAMING && !session->early && !session->first) {
		session->failures = 0;
	}
	session->first = error != NULL;
	/* An installed frame stays installed whatever happened to the connection after it. */
	if ((error && !session->applied) || session->early) {
		session->failures++;
		session->state = SESSION_FAILED;
	} else {
		session->state = SESSION_IDLE;
	}
}

void session_stop(struct session *session, const struct bts_error *error)
{
	session->error = *error;
	session->state = SESSION_STOPPED;
}

void session_retry(struct session *session)
{
	session->failures++;
	session->first = true;
	session->state = SESSION_FAILED;
}

void session_switch(struct session *session)
{
	session->state = SESSION_IDLE;
	session->first = true;
	session->failures = 0;
	session->upstream_txid = 0;
	session->via[0] = '\0';
	memset(&session->error, 0, sizeof(session->error));
}

uint64_t session_lag_ms(uint64_t fresh_ms, uint64_t now_ms)
{
	if (!fresh_ms)
		return SESSION_LAG_UNKNOWN_MS;
	return now_ms > fresh_ms ? now_ms - fresh_ms : 0;
}
