/* What comes of a request for a frame, into the follower's file. */
#include "follow_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "position.h"
#include "sabotage.h"

#define FOLLOW_SIZE_MAX (UINT64_C(1) << 62)

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

void follow_leave(struct follow *follow)
{
	struct bts *db = atomic_load(&follow->db);
	struct bts_partial partial;

	if (follow->apply && follow->frame.base.txid && follow->frame_bytes >= follow->graft_after)
		follow->broken++;
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
		session_applied(&follow->session, &follow->frame);
	err = bts_apply_finish(apply, record, error);
	if (err)
		return err;
	session_applied(&follow->session, &follow->frame);
	follow->broken = 0;
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

enum bts_err follow_ask(struct follow *follow, const char *target)
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
	return err;
}
