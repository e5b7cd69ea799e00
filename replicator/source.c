/* What to answer to a follower, and its acknowledgements. */
#include "source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "position.h"
#include "sabotage.h"

#define SOURCE_ACKS_MAX 64
#define SOURCE_DENSE (UINT64_C(1) << 20) /* of so many newest commits every position is kept, so of as many numbers at least */

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
	source->name = "";
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

bool source_chain_has(const char *via, const char *name)
{
	size_t size = strlen(name), n;

	for (; *via; via += n + (via[n] == ',')) {
		n = strcspn(via, ",");
		if (n == size && memcmp(via, name, n) == 0)
			return true;
	}
	return false;
}

bool source_chain(struct source *source, char via[BTS_VIA_MAX + 1], uint64_t *lag_ms)
{
	struct bts_upstream up;
	struct timespec now;
	uint64_t now_ms;
	const char *own;
	size_t size;

	bts_upstream(source->db, &up);
	own = up.node[0] ? up.node : source->name;
	/* Too long a chain loses its far end: a loop of that many nodes is then found by another of them. */
	size = strlen(own);
	memcpy(via, own, size + 1);
	if (size && up.via[0])
		via[size++] = ',';
	snprintf(via + size, BTS_VIA_MAX + 1 - size, "%.*s", (int)(BTS_VIA_MAX - size), up.via);
	*lag_ms = 0;
	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (up.fresh_ms && now_ms > up.fresh_ms)
		*lag_ms = now_ms - up.fresh_ms;
	return up.fresh_ms != 0;
}

/* Would the follower feed this node with what it gets from it? */
static bool source_loops(struct source *source, const struct query *query)
{
	char via[BTS_VIA_MAX + 1];
	uint64_t lag_ms;

	if (!query->follower[0])
		return false;
	(void)source_chain(source, via, &lag_ms);
	return source_chain_has(via, query->follower);
}

/*
 * A number that is not in the history has been thinned away, or was never committed here: then the follower has a commit that this
 * file has not (it was set back behind the library's back, say), and nobody may take that from him unasked.
 */
static bool source_never_had(struct source *source, const struct bts_position *claimed, const struct bts_position *head)
{
	enum bts_standing standing;
	struct bts_error error;

	if (claimed->epoch == head->epoch && head->txid - claimed->txid < SOURCE_DENSE)
		return true;
	return !bts_ship_reached(source->db, claimed->epoch, claimed->epoch_random, claimed->txid, &standing, &error) &&
	       standing == BTS_STANDING_DIVERGED;
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
	if (source_loops(source, query)) {
		source->loops++;
		source_refuse(source, query, answer, "loop", "commits come here through this very node");
		return;
	}
	err = bts_ship_standing(source->db, &claimed, &standing, &error);
	if (err) {
		source_unavailable(answer, err, &error);
		return;
	}
	if (standing == BTS_STANDING_BASE_UNKNOWN && source_never_had(source, &claimed, &answer->head))
		standing = BTS_STANDING_DIVERGED;
	if ((SABOTAGED(SABOTAGE_AHEAD_EQUAL) && standing == BTS_STANDING_AHEAD) ||
		(SABOTAGED(SABOTAGE_UNKNOWN_EQUAL) && standing == BTS_STANDING_DIVERGED)) {
		answer->verdict = SOURCE_WAIT;
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
		answer->has_fork = !bts_ship_fork(source->db, &claimed, NULL, 0, &answer->fork, &error);
		source->diverged++;
		source_refuse(source, query, answer, "diverged", "the histories differ");
		return;
	case BTS_STANDING_AHEAD:
		source->ahead++;
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

/* Their acknowledgements count as one node's: safe for replicated:K, wrong for whoever believes he has two copies. */
static void source_twin(struct source *source, const struct query *query)
{
	source->twins++;
	repl_emit(&source->events, REPL_ERROR, "node-name-twice",
		"two followers call themselves %s; their copies count as one (last seen at %s)", query->follower,
		query->url[0] ? query->url : "-");
}

void source_acknowledge(struct source *source, const struct query *query)
{
	struct bts_ack ack = {.txid = query->after.txid,
		.epoch = query->after.epoch,
		.epoch_random = query->after.epoch_random,
		.session = query->session};
	struct bts_ack last, now_kept;
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
	if (known && (ack.epoch < last.epoch || (ack.epoch == last.epoch && ack.txid < last.txid))) {
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
	else if (known && last.session != ack.session && source_last_ack(source->db, query->follower, &now_kept) &&
		now_kept.twins > last.twins)
		source_twin(source, query);
}
