/* Asking peers for single pages: see heal.h. */
#include "heal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEAL_WAIT_MS 10000 /* the source judges every unit before it answers */
#define HEAL_PAUSE_MS 100  /* before a question is asked again; doubles */
#define HEAL_URL_MAX 512
#define HEAL_UNITS_LEAST 16 /* asked for at once over a link that breaks */

struct heal_reply {
	const struct heal_peer *peer;
	const struct heal_sink *sink;
	struct heal_answer *answer;
	struct bts_error *error;
	struct pages_decoder decoder;
	struct frame_decoder *frame;
	char code[40];
	bool streams;
};

static void heal_on_header(void *arg, const char *name, const char *value)
{
	struct heal_reply *reply = arg;

	if (strcasecmp(name, "BTS-Error") == 0)
		snprintf(reply->code, sizeof(reply->code), "%s", value);
}

static enum bts_err heal_on_begin(void *arg, long status)
{
	struct heal_reply *reply = arg;

	reply->streams = status == 200;
	if (reply->streams)
		return BTS_OK;
	if (status == 409 && strcmp(reply->code, "gone") == 0)
		return fail_set(reply->error, BTS_NOT_FOUND, "%s does not keep that commit any more", reply->peer->url);
	if (status == 409)
		return fail_set(reply->error, BTS_DIVERGED, "%s refuses: %s", reply->peer->url, reply->code);
	return fail_set(reply->error, status == 404 || status == 405 ? BTS_VERSION : BTS_IO,
		"%s answers %ld (%s) to a question for pages", reply->peer->url, status, reply->code[0] ? reply->code : "no code");
}

static enum bts_err heal_event(
	struct heal_reply *reply, const struct frame_event *event, size_t index, struct bts_error *error)
{
	const struct heal_sink *sink = reply->sink;

	switch (event->kind) {
	case FRAME_HEADER:
		reply->answer->position = event->header->target;
		reply->answer->page_size = event->header->page_size;
		if (sink && sink->verdicts)
			return sink->verdicts(sink->arg, reply->decoder.query, reply->decoder.verdicts, error);
		return BTS_OK;
	case FRAME_PIECE:
		return sink->piece(sink->arg, index, &event->piece, event->bytes, error);
	case FRAME_END:
		reply->answer->record_size = event->record.size;
		memcpy(reply->answer->record, event->record.data, event->record.size);
		return BTS_OK;
	default:
		return BTS_OK;
	}
}

static enum bts_err heal_on_body(void *arg, const void *data, size_t size)
{
	struct heal_reply *reply = arg;
	struct bts_slice input = {data, size};
	struct frame_event event;
	size_t index = 0;
	enum bts_err err;

	if (!reply->streams)
		return BTS_OK;
	reply->answer->bytes += size;
	do {
		if (reply->peer->stopping && atomic_load(reply->peer->stopping))
			return fail_set(reply->error, BTS_TIMEOUT, "interrupted");
		err = pages_decode(&reply->decoder, &input, &event, &index, reply->error);
		if (!err)
			err = heal_event(reply, &event, index, reply->error);
	} while (!err && event.kind != FRAME_MORE);
	return err;
}

enum bts_err heal_ask(const struct heal_peer *peer, const struct pages_query *query, const struct heal_sink *sink,
	struct heal_answer *answer, struct bts_error *error)
{
	struct heal_reply reply = {.peer = peer, .sink = sink, .answer = answer, .error = error};
	const struct transport_handler handler = {heal_on_header, heal_on_begin, heal_on_body, &reply};
	uint8_t body[PAGES_QUERY_MAX];
	struct bts_slice bytes = {body, pages_query_encode(query, body)};
	char url[HEAL_URL_MAX];
	enum bts_err err;

	memset(answer, 0, sizeof(*answer));
	if ((size_t)snprintf(url, sizeof(url), "%s" PAGES_PATH, peer->url) >= sizeof(url))
		return fail_set(error, BTS_INVALID, "the address of a peer is too long");
	reply.frame = frame_decoder_new();
	if (!reply.frame)
		return fail_set(error, BTS_MEMORY, "no memory for pages");
	pages_decode_start(&reply.decoder, query, reply.frame);
	err = transport_post(peer->transport, url, bytes, HEAL_WAIT_MS, &handler, error);
	if (!err && !answer->record_size)
		err = fail_set(error, BTS_IO, "%s: the answer was cut short", peer->url);
	frame_decoder_free(reply.frame);
	return err;
}

/* ---- a graft ---- */

struct heal_state {
	const struct heal_peer *peer;
	struct heal_graft *graft;
	struct bts_apply *apply;
	struct pages_query query;
	size_t most; /* units asked for at once */
	struct heal_answer answer;
};

static enum bts_err heal_verdicts(
	void *arg, const struct pages_query *query, const uint8_t *verdicts, struct bts_error *error)
{
	(void)arg;
	for (size_t i = 0; i < query->count; i++)
		if (verdicts[i] == PAGES_ABSENT || verdicts[i] == PAGES_DAMAGED)
			return fail_set(error, BTS_CORRUPT, "the source %s page %" PRIu64 " of birth %" PRIu64 " of its own commit",
				verdicts[i] == PAGES_ABSENT ? "lacks" : "cannot read", query->ids[i].pgno,
				query->ids[i].birth);
	/* The first always has room: without it the question would be asked for ever. */
	if (query->count && verdicts[0] == PAGES_LATER)
		return fail_set(error, BTS_CORRUPT, "the source puts page %" PRIu64 " off that was asked for alone or first",
			query->ids[0].pgno);
	return BTS_OK;
}

static enum bts_err heal_piece(
	void *arg, size_t index, const struct frame_piece *piece, struct bts_slice bytes, struct bts_error *error)
{
	struct heal_state *state = arg;

	(void)index;
	if (piece->first == 0)
		state->graft->units++;
	state->graft->pages += piece->pages;
	return bts_apply_piece(state->apply, &piece->id, piece->first, bytes, error);
}

/* A question again when its answer broke off, and a smaller one, as nothing of a chunk is taken before it is whole: what has come stays. */
static enum bts_err heal_insist(struct heal_state *state, const struct heal_sink *sink, struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	for (unsigned i = 0; i < HEAL_TRIES; i++) {
		if (i)
			transport_wait(state->peer->transport, HEAL_PAUSE_MS << i);
		/* A unit that was cut off in the middle comes first, and what was complete is not asked for again. */
		if (i && state->apply)
			err = bts_apply_missing(
				state->apply, state->query.ids, state->most, &state->query.count, error);
		else
			err = BTS_OK;
		if (!err)
			err = heal_ask(state->peer, &state->query, sink, &state->answer, error);
		state->graft->bytes += state->answer.bytes;
		if (err != BTS_IO || (state->peer->stopping && atomic_load(state->peer->stopping)))
			break;
		if (state->most > HEAL_UNITS_LEAST)
			state->most /= 2;
	}
	return err;
}

static enum bts_err heal_fetch(struct heal_state *state, struct bts_error *error)
{
	const struct heal_sink sink = {heal_verdicts, heal_piece, state};
	enum bts_err err;

	for (;;) {
		err = bts_apply_missing(state->apply, state->query.ids, state->most, &state->query.count, error);
		if (err || state->query.count == 0)
			return err;
		err = heal_insist(state, &sink, error);
		if (err)
			return err;
		state->graft->rounds++;
	}
}

static enum bts_err heal_run(struct heal_state *state, struct bts *db, struct bts_error *error)
{
	struct heal_graft *graft = state->graft;
	struct bts_slice record;
	struct heal_answer *first;
	enum bts_err err;

	err = heal_insist(state, NULL, error); /* nothing is asked for: the newest commit, which is then kept */
	if (err)
		return err;
	first = malloc(sizeof(*first));
	if (!first)
		return fail_set(error, BTS_MEMORY, "no memory for a graft");
	*first = state->answer;
	record = (struct bts_slice){first->record, first->record_size};
	graft->target = first->position;
	state->query.at = first->position.txid;
	err = bts_apply_begin_graft(db, graft->fork, &first->position, record, &state->apply, error);
	if (!err)
		err = heal_fetch(state, error);
	if (!err && graft->before)
		err = graft->before(graft->arg, state->apply, error);
	if (!err) {
		err = bts_apply_finish(state->apply, record, error);
		state->apply = NULL;
	}
	bts_apply_abort(state->apply);
	free(first);
	return err;
}

enum bts_err heal_graft(
	const struct heal_peer *peer, struct bts *db, struct heal_graft *graft, struct bts_error *error)
{
	struct heal_state *state = calloc(1, sizeof(*state));
	struct bts_position own;
	enum bts_err err;

	if (!state)
		return fail_set(error, BTS_MEMORY, "no memory for a graft");
	state->peer = peer;
	state->graft = graft;
	state->most = PAGES_UNITS_MAX;
	err = bts_ship_position(db, &own, error);
	if (!err) {
		memcpy(state->query.database, own.database, sizeof(own.database));
		err = heal_run(state, db, error);
	}
	free(state);
	return err;
}
