/*
 * GET /v1/backup?since=POSITION: what has changed since an earlier backup, as the frame that a follower which stands there is
 * sent.  It is made while it is sent, by the threads of work.h, and its sums tell one that was cut.
 */
#include <stdlib.h>
#include <string.h>

#include "backups.h"
#include "handle.h"
#include "log.h"
#include "position.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "source.h"

struct since {
	struct backups *backups;
	struct source source;
	struct source_stream *stream;
};

static ssize_t since_fetch(void *arg, uint64_t at, void *out, size_t size)
{
	struct since *s = arg;
	struct bts_error error = {0};
	size_t got;
	enum bts_err err = source_stream_read(s->stream, out, size, &got, &error);

	(void)at;
	if (!err)
		return (ssize_t)got;
	log_event("error", "backup-cut", LOG_FIELDS(LOG_TEXT("code", bts_err_name(err)), LOG_TEXT("detail", error.text)));
	return -1;
}

static void since_release(void *arg)
{
	struct since *s = arg;

	source_stream_close(s->stream);
	backups_unclaim(s->backups);
	free(s);
}

/* 0, or -1 after a reply. */
static int since_query(struct request *r, struct query *query)
{
	const struct bts_slice *since = request_param(r, "since");
	char text[POSITION_TEXT_SIZE] = "";

	memset(query, 0, sizeof(*query));
	if (since->size < sizeof(text))
		memcpy(text, since->data, since->size);
	if (!request_param(r, "image") && strlen(text) == since->size && position_parse(text, &query->after) && query->after.txid)
		return 0;
	reply_problem(r, 400, "invalid-parameter", NULL,
		"since is the BTS-Position of an earlier backup, and goes not with image");
	return -1;
}

static void since_tell(struct request *r, const struct bts_position *position)
{
	char text[POSITION_TEXT_SIZE];

	position_text(position, text);
	request_set_header(r, "BTS-Position", text);
	request_set_header(r, "Cache-Control", "no-store");
	r->txid = position->txid;
	r->token = 1;
}

/* Takes s. */
static void since_send(struct request *r, struct since *s)
{
	struct reply_fetch fetch = {since_fetch, since_release, s};
	char text[POSITION_ID_SIZE];
	uint8_t digest[16];

	source_stream_digest(s->stream, digest);
	position_hex(digest, sizeof(digest), text);
	since_tell(r, source_stream_target(s->stream));
	request_set_header(r, "BTS-Digest", text);
	reply_fetched(r, 200, "application/vnd.btree-store.frame", REPLY_UNKNOWN, &fetch);
}

/* The frame's beginning, or a reply that tells why there is none: then -1. */
static int since_open(struct request *r, struct since *s, struct query *query)
{
	struct bts *db = role_db(request_role(r));
	struct bts_error error = {0};
	struct source_answer answer;
	enum bts_err err;

	if (!db) {
		reply_problem(r, 503, "unavailable", NULL, "this follower has not received the database yet");
		return -1;
	}
	err = source_init(&s->source, db, NULL, &error);
	if (!err) {
		source_decide(&s->source, query, &answer);
		if (answer.verdict == SOURCE_REFUSED) {
			reply_problem(r, (unsigned)answer.status, answer.code, NULL, "%s", answer.detail);
			return -1;
		}
		if (answer.verdict == SOURCE_WAIT) {
			since_tell(r, &answer.head);
			reply_empty(r, 204);
			return -1;
		}
		memcpy(query->after.database, answer.head.database, sizeof(query->after.database));
		err = source_stream_open(&s->source, query, &s->stream, &error);
	}
	if (err)
		reply_error(r, err, &error);
	return err ? -1 : 0;
}

void handle_backup_since(struct request *r)
{
	struct backups *backups = request_server(r)->backups;
	struct query query;
	struct since *s;

	if (since_query(r, &query))
		return;
	s = calloc(1, sizeof(*s));
	if (!s || backups_claim(backups)) {
		if (s)
			reply_problem(r, 503, "too-many-backups", NULL, "there are as many backups as may be; end one, or wait");
		else
			reply_error(r, BTS_MEMORY, NULL);
		free(s);
		return;
	}
	s->backups = backups;
	if (since_open(r, s, &query))
		since_release(s);
	else
		since_send(r, s);
}
