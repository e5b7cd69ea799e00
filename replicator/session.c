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
		session->applied = session->early = false;
		session->asked_ms = now_ms;
		return;
	}
}

static void session_heard(struct session *session, const struct session_reply *reply, uint64_t now_ms)
{
	session->heard_ms = now_ms;
	if (!reply->has_txid || (reply->status != 200 && reply->status != 204))
		return;
	session->contact_ms = now_ms;
	session->upstream_txid = reply->txid;
	if (reply->txid <= session->query.after.txid)
		session->behind_ms = 0;
	else if (session->behind_ms == 0)
		session->behind_ms = now_ms;
}

static enum bts_err session_refused(
	struct session *session, const struct session_reply *reply, struct bts_error *error)
{
	const char *code = reply->code ? reply->code : "no code";
	char own[POSITION_TEXT_SIZE];

	position_text(&session->query.after, own);
	if (reply->status == 409) {
		fail_set(error, strcmp(code, "diverged") == 0 ? BTS_DIVERGED : BTS_INVALID,
			"the source refuses this file for ever: %.32s (own position %s)", code, own);
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

	session_heard(session, reply, now_ms);
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
	return BTS_OK;
}

void session_applied(struct session *session, const struct frame_header *header, uint64_t now_ms)
{
	session->query.after = header->target;
	session->query.has_database = true;
	session->page_size = header->page_size;
	session->applied = true;
	session->failures = 0;
	session->frames++;
	/* It says where the source stood when it began to answer, not where it stands now. */
	session->contact_ms = session->heard_ms;
	if (session->upstream_txid < header->target.txid)
		session->upstream_txid = header->target.txid;
	session->behind_ms = session->upstream_txid > header->target.txid ? now_ms : 0;
}

void session_done(struct session *session, const struct bts_error *error)
{
	if (session->state == SESSION_STOPPED)
		return;
	if (error) {
		session->error = *error;
		session->retries++;
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

uint64_t session_lag_ms(const struct session *session, uint64_t now_ms)
{
	return session->behind_ms && now_ms > session->behind_ms ? now_ms - session->behind_ms : 0;
}
