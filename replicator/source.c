/* What to answer to a follower, and its acknowledgements. */
#include "source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "position.h"

#define SOURCE_ACKS_MAX 64

enum bts_err source_init(
	struct source *source, struct bts *db, const struct repl_events *events, struct bts_error *error)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	enum bts_err err;

	err = bts_stat(db, &stat, error);
	if (err)
		return err;
	memset(source, 0, sizeof(*source));
	source->db = db;
	source->page_size = stat.page_size;
	if (events)
		source->events = *events;
	return BTS_OK;
}

static void source_refuse(struct source *source, const struct query *query, struct source_answer *answer,
	const char *code, const char *why)
{
	char theirs[POSITION_TEXT_SIZE], ours[POSITION_TEXT_SIZE];

	position_text(&query->after, theirs);
	position_text(&answer->head, ours);
	answer->verdict = SOURCE_REFUSED;
	answer->status = 409;
	answer->code = code;
	snprintf(answer->detail, sizeof(answer->detail), "%s: follower at %s, source at %s", why, theirs,
		ours);
	source->refused++;
	repl_emit(&source->events, REPL_WARN, code, "follower %s: %s",
		query->follower[0] ? query->follower : "-", answer->detail);
}

static void source_unavailable(struct source_answer *answer, enum bts_err err, const struct bts_error *error)
{
	answer->verdict = SOURCE_REFUSED;
	answer->status = 503;
	answer->code = err == BTS_CORRUPT ? "corrupt" : "unavailable";
	snprintf(answer->detail, sizeof(answer->detail), "%s", error->text);
}

void source_decide(struct source *source, const struct query *query, struct source_answer *answer)
{
	struct bts_position claimed = query->after;
	struct bts_error error = {0};
	enum bts_standing standing;
	enum bts_err err;

	memset(answer, 0, sizeof(*answer));
	err = bts_ship_position(source->db, &answer->head, &error);
	if (err) {
		source_unavailable(answer, err, &error);
		return;
	}
	/* A follower that has no file yet names no database: it takes this one. */
	if (!query->has_database)
		memcpy(claimed.database, answer->head.database, sizeof(claimed.database));
	if (!position_same_database(&claimed, &answer->head)) {
		source_refuse(source, query, answer, "wrong-database", "this source has another database");
		return;
	}
	err = bts_ship_standing(source->db, &claimed, &standing, &error);
	if (err) {
		source_unavailable(answer, err, &error);
		return;
	}
	switch (standing) {
	case BTS_STANDING_KNOWN:
	case BTS_STANDING_EMPTY:
		answer->verdict = answer->head.txid > claimed.txid ? SOURCE_FRAME : SOURCE_WAIT;
		return;
	case BTS_STANDING_WRONG_DATABASE:
		source_refuse(source, query, answer, "wrong-database", "this source has another database");
		return;
	case BTS_STANDING_DIVERGED:
		source_refuse(source, query, answer, "diverged", "the histories differ");
		return;
	case BTS_STANDING_AHEAD:
		source_refuse(source, query, answer, "ahead", "the follower is ahead of this source");
		return;
	case BTS_STANDING_BASE_UNKNOWN:
		break;
	}
	source_refuse(
		source, query, answer, "base-unknown", "the follower's position is not in this history");
}

static bool source_last_ack(struct bts *db, const char *node, struct bts_ack *last)
{
	struct bts_ack acks[SOURCE_ACKS_MAX];
	size_t count = bts_ack_list(db, acks, SOURCE_ACKS_MAX), i;

	for (i = 0; i < count && i < SOURCE_ACKS_MAX; i++) {
		if (strcmp(acks[i].node, node) == 0) {
			*last = acks[i];
			return true;
		}
	}
	return false;
}

void source_acknowledge(struct source *source, const struct query *query)
{
	struct bts_ack ack = {.txid = query->after.txid}, last;
	struct bts_error error;
	struct timespec now;
	bool known;

	if (!query->follower[0])
		return;
	known = source_last_ack(source->db, query->follower, &last);
	/* Anyone can say that he has nothing: the few places are for those who know a position of this history. */
	if (!known && ack.txid == 0)
		return;
	/* The engine keeps the higher one and counts; here it is told of. */
	if (known && ack.txid < last.txid) {
		source->alarms++;
		repl_emit(&source->events, REPL_ERROR, "ack-went-back",
			"follower %s had acknowledged %" PRIu64 " and now claims %" PRIu64, query->follower,
			last.txid, ack.txid);
	}
	clock_gettime(CLOCK_REALTIME, &now);
	ack.seen_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	strcpy(ack.node, query->follower);
	strcpy(ack.url, query->url);
	if (bts_ack_record(source->db, &ack, &error))
		repl_emit(&source->events, REPL_WARN, "ack-not-kept", "follower %s: %s", query->follower,
			error.text);
}
