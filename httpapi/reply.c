/* Replies: what every one carries, bodies from memory, from the map and made as they are sent, problems. */
#include "reply.h"

#include <inttypes.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jsonout.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "text.h"
#include "work.h"

#define REPLY_FETCH ((size_t)256 << 10) /* what a thread makes at a time */
#define REPLY_FETCH_ROOM 65536
#define REPLY_FEED_BLOCK 4096 /* held for each, and used where a client cannot take chunks */
#define REPLY_BLOCK 65536 /* of a stream: how much is made at a time */
#define REPLY_PIECE 262144 /* of a large value */

/* A primary's epoch changes hardly ever: the lock that guards it is not taken by every reply. */
static void reply_epoch(struct request *r, struct reply_token *token)
{
	struct reply_memo *memo = &r->loop->memo;
	unsigned epochs = role_epochs(request_role(r));

	if (epochs && epochs == memo->epochs) {
		token->epoch = memo->of.epoch;
		token->random = memo->of.random;
		return;
	}
	role_epoch(request_role(r), &token->epoch, &token->random);
	memo->epochs = epochs;
}

static struct reply_memo *reply_remember(struct request *r, const struct reply_token *of)
{
	struct reply_memo *memo = &r->loop->memo;

	if (of->txid != memo->of.txid || of->epoch != memo->of.epoch || of->random != memo->of.random || !memo->txid[0]) {
		memo->of = *of;
		text_from_u64(of->txid, memo->txid);
		text_from_u64(of->epoch, memo->epoch);
		memo->token[0] = '\0';
	}
	return memo;
}

static void reply_add(struct reply_fields *fields, const char *name, const char *value)
{
	if (fields->count < REPLY_AGAIN_FIELDS)
		fields->field[fields->count++] = (struct reply_field){name, value};
}

/* What a reply's fields are made of, where the loop does not remember it. */
struct reply_texts {
	char lag[24], token[REPLY_TOKEN_MAX];
};

/* The epoch of a token is that of its commit, on a follower not always the newest. */
static void reply_add_token(struct request *r, struct reply_fields *fields, struct reply_token *token, struct reply_texts *texts)
{
	struct reply_memo *memo = &r->loop->memo;
	struct role *role = request_role(r);

	if (role_follows(role)) {
		if (role_epoch_of(role, token->txid, &token->epoch, &token->random))
			return;
		reply_token_encode(token, texts->token);
		reply_add(fields, "BTS-Token", texts->token);
		return;
	}
	if (!memo->token[0])
		reply_token_encode(token, memo->token);
	reply_add(fields, "BTS-Token", memo->token);
}

static void reply_add_all(struct request *r, const char *type, struct reply_fields *fields, struct reply_texts *texts)
{
	struct role *role = request_role(r);
	bts_txid txid = r->txid ? r->txid : role_txid(role);
	struct reply_token token = {0, 0, txid};
	struct reply_memo *memo;
	unsigned i;

	fields->count = 0;
	if (type)
		reply_add(fields, "Content-Type", type);
	reply_epoch(r, &token);
	memo = reply_remember(r, &token);
	reply_add(fields, "X-Request-Id", r->id);
	reply_add(fields, "BTS-Txid", memo->txid);
	reply_add(fields, "BTS-Epoch", memo->epoch);
	reply_add(fields, "BTS-Role", role_word(role));
	if (role_follows(role)) {
		text_from_u64(r->begun_ms ? r->begun_lag_ms + (role_clock_ms() - r->begun_ms) : role_lag_ms(role), texts->lag);
		reply_add(fields, "BTS-Lag-Ms", texts->lag);
	}
	if (r->token)
		reply_add_token(r, fields, &token, texts);
	for (i = 0; i < r->header_count; i++)
		reply_add(fields, r->headers[i].name, r->headers[i].value);
}

/*
 * A write that has been done, the copies it asked for included, and whose answer would be success: may it still be told, or might
 * another node be primary by now, or have been in between, without it?  Here, as no answer gets out another way.
 */
static int reply_too_late(struct request *r, unsigned status)
{
	return status < 300 && r->route && (r->writes || (r->route->flags & ROUTE_WRITES)) &&
	       !role_may_tell(request_role(r), r->epochs);
}

/* The token stays: with it any node tells later whether the commit stands.  Not in another epoch, which the token would name. */
static void reply_unknown(struct request *r)
{
	if (r->epochs && r->epochs != role_epochs(request_role(r)))
		r->token = 0;
	request_drop_headers(r);
	r->bytes_out = 0;
	reply_problem(r, 503, "outcome-unknown", NULL,
		"committed here, but the deadline for this node's writes has passed since: another one may be, or have become, primary without it");
}

static void reply_send(struct request *r, unsigned status, struct MHD_Response *response)
{
	r->status = status;
	r->replied_us = request_timed_us(r);
	if (!response || MHD_queue_response(r->mhd, status, response) != MHD_YES)
		r->broken = 1;
}

/* Takes the response, which is NULL when there was no memory for it. */
static void reply_queue(struct request *r, unsigned status, const char *type, struct MHD_Response *response)
{
	struct reply_fields fields;
	struct reply_texts texts;
	unsigned i;

	if (response && reply_too_late(r, status)) {
		MHD_destroy_response(response);
		reply_unknown(r);
		return;
	}
	if (response) {
		reply_add_all(r, type, &fields, &texts);
		for (i = 0; i < fields.count; i++)
			MHD_add_response_header(response, fields.field[i].name, fields.field[i].value);
		if (request_server(r)->draining || r->last)
			MHD_add_response_header(response, "Connection", "close");
	}
	reply_send(r, status, response);
	if (response)
		MHD_destroy_response(response);
}

/* A body that is copied.  0: replied. */
static int reply_small(struct request *r, unsigned status, const char *type, struct bts_slice bytes)
{
	struct MHD_Response *response;
	struct reply_fields fields;
	struct reply_texts texts;

	if (bytes.size > REPLY_AGAIN_BODY || request_server(r)->draining || r->last || reply_too_late(r, status))
		return -1;
	reply_add_all(r, type, &fields, &texts);
	response = reply_again(&r->loop->again, &fields, bytes, &r->reply_kept);
	if (!response)
		return -1;
	reply_send(r, status, response);
	return 0;
}

void reply_empty(struct request *r, unsigned status)
{
	static char nothing[1];

	if (reply_small(r, status, NULL, (struct bts_slice){nothing, 0}))
		reply_queue(r, status, NULL, MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT));
}

void reply_buf(struct request *r, unsigned status, const char *type, struct buf *b)
{
	struct MHD_Response *response = NULL;
	size_t size = b->size;

	if (!b->failed) {
		response = MHD_create_response_from_buffer(b->size, b->data, MHD_RESPMEM_MUST_FREE);
		if (response)
			memset(b, 0, sizeof(*b));
	}
	server_conn_owes(r->conn, size);
	r->bytes_out += r->head ? 0 : size;
	buf_fini(b);
	reply_queue(r, status, type, response);
}

void reply_borrowed(struct request *r, unsigned status, const char *type, struct bts_slice bytes,
	void (*release)(void *arg), void *arg)
{
	struct MHD_Response *response;

	server_conn_owes(r->conn, bytes.size);
	r->bytes_out += r->head ? 0 : bytes.size;
	if (!reply_small(r, status, type, bytes)) {
		release(arg);
		return;
	}
	response = MHD_create_response_from_buffer_with_free_callback_cls(bytes.size, (void *)bytes.data, release, arg);
	if (!response)
		release(arg);
	reply_queue(r, status, type, response);
}

/* ---- large values ---- */

struct reply_value {
	struct bts_slice bytes;
	struct request *request; /* while it is read */
	void (*release)(void *arg);
	void *arg;
};

static ssize_t reply_piece(void *cls, uint64_t offset, char *out, size_t max)
{
	struct reply_value *v = cls;
	size_t n = v->bytes.size - (size_t)offset;

	if (n > max)
		n = max;
	memcpy(out, (const char *)v->bytes.data + offset, n);
	server_conn_progress(v->request->conn, n);
	v->request->bytes_out += n;
	return (ssize_t)n;
}

static void reply_value_free(void *cls)
{
	struct reply_value *v = cls;

	v->release(v->arg);
	free(v);
}

void reply_pieces(struct request *r, unsigned status, const char *type, struct bts_slice bytes, void (*release)(void *arg),
	void *arg)
{
	struct reply_value *v = calloc(1, sizeof(*v));
	struct MHD_Response *response = NULL;

	if (!v) {
		release(arg);
	} else {
		*v = (struct reply_value){bytes, r, release, arg};
		response = MHD_create_response_from_callback(bytes.size, REPLY_PIECE, reply_piece, v, reply_value_free);
		if (!response)
			reply_value_free(v);
	}
	reply_queue(r, status, type, response);
}

/* ---- bodies that threads make ---- */

struct reply_fetcher {
	struct work_job job; /* first: what the thread gets */
	struct reply_fetch fetch;
	struct request *request;
	uint64_t size;
	/* of the body: piece has [at, at + have), and [at, at + wanted) is being made while the connection is suspended */
	uint64_t at;
	size_t have, wanted;
	int failed, ended;
	char piece[REPLY_FETCH];
};

static int reply_fetch_step(struct work_job *job)
{
	struct reply_fetcher *f = (struct reply_fetcher *)job;

	ssize_t got = f->fetch.fetch(f->fetch.arg, f->at, f->piece, f->wanted);

	f->failed = got < 0;
	f->ended = got == 0;
	f->have = got > 0 ? (size_t)got : 0;
	return 0;
}

static ssize_t reply_fetch_read(void *cls, uint64_t offset, char *out, size_t max)
{
	struct reply_fetcher *f = cls;
	struct request *r = f->request;
	size_t n;

	if (f->failed || f->ended)
		return f->failed || f->size != REPLY_UNKNOWN ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
	if (offset >= f->at && offset - f->at < f->have) {
		n = f->have - (size_t)(offset - f->at);
		if (n > max)
			n = max;
		memcpy(out, f->piece + (offset - f->at), n);
		server_conn_progress(r->conn, n);
		r->bytes_out += n;
		return (ssize_t)n;
	}
	f->at = offset;
	f->have = 0;
	f->wanted = f->size - offset < REPLY_FETCH ? (size_t)(f->size - offset) : REPLY_FETCH;
	request_suspend(r, NULL);
	work_queue(request_server(r)->work, &f->job);
	return 0;
}

static void reply_fetch_free(void *cls)
{
	struct reply_fetcher *f = cls;

	f->fetch.release(f->fetch.arg);
	free(f);
}

void reply_fetched(struct request *r, unsigned status, const char *type, uint64_t size, const struct reply_fetch *fetch)
{
	struct reply_fetcher *f = malloc(sizeof(*f));
	struct MHD_Response *response = NULL;

	if (!f) {
		fetch->release(fetch->arg);
	} else {
		*f = (struct reply_fetcher){.job = {.step = reply_fetch_step, .owner = r}, .fetch = *fetch, .request = r, .size = size};
		response = MHD_create_response_from_callback(size == REPLY_UNKNOWN ? MHD_SIZE_UNKNOWN : size, REPLY_FETCH_ROOM,
			reply_fetch_read, f, reply_fetch_free);
		if (!response)
			reply_fetch_free(f);
		else if (r->head && size == REPLY_UNKNOWN) /* as reply_stream */
			MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
	}
	reply_queue(r, status, type, response);
}

/* ---- streams ---- */

struct reply_source {
	struct work_job job; /* first: what the thread gets */
	struct reply_stream stream;
	struct request *request; /* while it is read; its end comes before the release */
	unsigned status;
	const char *type; /* a literal */
	struct buf block;
	size_t sent; /* of the block */
	int more;    /* what fill last said */
};

/* Fill the block until it is worth sending; the state is left in more. */
static void reply_fill(struct reply_source *s)
{
	do {
		s->more = s->stream.fill(s->stream.arg, &s->block);
	} while (s->more == 1 && s->block.size < REPLY_BLOCK && !s->block.failed);
	if (s->block.failed)
		s->more = -1;
}

static int reply_work_step(struct work_job *job)
{
	struct reply_source *s = (struct reply_source *)job;

	if (s->stream.work(s->stream.arg))
		return 1;
	s->more = 1;
	return 0;
}

static void reply_work(struct reply_source *s, void (*resume)(struct request *))
{
	s->job = (struct work_job){.step = reply_work_step, .owner = s->request};
	request_suspend(s->request, resume);
	work_queue(request_server(s->request)->work, &s->job);
}

static ssize_t reply_read(void *cls, uint64_t offset, char *out, size_t max)
{
	struct reply_source *s = cls;
	size_t n;

	(void)offset;
	if (s->sent == s->block.size && s->more > 0 && s->more != REPLY_WORK) {
		s->sent = s->block.size = 0;
		reply_fill(s);
		if (s->more < 0 && !s->block.failed && s->stream.cut)
			s->stream.cut(s->request, s->stream.arg);
	}
	n = s->block.size - s->sent;
	if (!n && s->more == REPLY_REST)
		return 0;
	if (!n && s->more == REPLY_WORK) {
		reply_work(s, NULL); /* from here on it is the thread's */
		return 0;
	}
	if (!n || s->block.failed)
		return s->more < 0 || s->block.failed ? MHD_CONTENT_READER_END_WITH_ERROR
						      : MHD_CONTENT_READER_END_OF_STREAM;
	if (n > max)
		n = max;
	memcpy(out, s->block.data + s->sent, n);
	s->sent += n;
	server_conn_progress(s->request->conn, n);
	s->request->bytes_out += n;
	return (ssize_t)n;
}

static void reply_source_free(void *cls)
{
	struct reply_source *s = cls;

	if (s->stream.release)
		s->stream.release(s->stream.arg);
	buf_fini(&s->block);
	free(s);
}

static int reply_stream_begin(struct request *r, struct reply_source *s);

static void reply_stream_worked(struct request *r)
{
	struct reply_source *s = r->state;

	r->state = NULL;
	r->state_free = NULL;
	if (!reply_stream_begin(r, s))
		return;
	s->stream.broke(r, s->stream.arg);
	reply_source_free(s);
}

/* Or the library would send the last chunk of a body that is not sent. */
static void reply_head_only(struct MHD_Response *response)
{
	MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
}

/* The first block: 0, or -1 when it broke. */
static int reply_stream_begin(struct request *r, struct reply_source *s)
{
	struct MHD_Response *response;
	unsigned status = s->status;
	const char *type = s->type;

	reply_fill(s);
	if (s->more < 0)
		return -1;
	if (s->more == REPLY_WORK) {
		r->state = s;
		r->state_free = reply_source_free;
		reply_work(s, reply_stream_worked);
		return 0;
	}
	if (s->more == 0) {
		reply_buf(r, status, type, &s->block);
		reply_source_free(s);
		return 0;
	}
	response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, REPLY_BLOCK, reply_read, s, reply_source_free);
	if (!response)
		reply_source_free(s);
	else if (r->head)
		reply_head_only(response);
	reply_queue(r, status, type, response);
	return 0;
}

int reply_stream(struct request *r, unsigned status, const char *type, const struct reply_stream *stream)
{
	struct reply_source *s = calloc(1, sizeof(*s));

	if (!s)
		return -1;
	s->stream = *stream;
	s->request = r;
	s->status = status;
	s->type = type;
	s->more = 1;
	if (!reply_stream_begin(r, s))
		return 0;
	buf_fini(&s->block);
	free(s);
	return -1;
}

struct reply_feed {
	struct request *r;
	reply_feed_fn *read;
	void *arg;
};

static ssize_t reply_feed_read(void *cls, uint64_t offset, char *out, size_t max)
{
	struct reply_feed *feed = cls;
	ssize_t n = feed->read(feed->arg, out, max);

	(void)offset;
	if (n > 0) {
		server_conn_progress(feed->r->conn, (uint64_t)n);
		feed->r->bytes_out += (uint64_t)n;
	} else if (n == 0) {
		server_conn_owes(feed->r->conn, 0); /* all was taken: its time begins anew with the next */
		feed->r->part = REQUEST_WAIT;
		request_suspend(feed->r, NULL);
	}
	return n == -1 ? MHD_CONTENT_READER_END_OF_STREAM : n < 0 ? MHD_CONTENT_READER_END_WITH_ERROR : n;
}

void reply_feed(struct request *r, const char *type, reply_feed_fn *read, void *arg)
{
	struct reply_feed *feed = malloc(sizeof(*feed));
	struct MHD_Response *response = NULL;

	if (feed) {
		*feed = (struct reply_feed){r, read, arg};
		response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, REPLY_FEED_BLOCK, reply_feed_read, feed, free);
	}
	if (!response)
		free(feed);
	else if (r->head)
		reply_head_only(response);
	server_conn_owes(r->conn, 0);
	reply_queue(r, 200, type, response);
}

/* ---- problems ---- */

void reply_problem(
	struct request *r, unsigned status, const char *code, const char *extra, const char *format, ...)
{
	const char *title = MHD_get_reason_phrase_for(status);
	struct buf b = {0};
	char detail[512];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	buf_printf(&b, "{\"type\":\"urn:btree_store:problem:%s\",\"title\":", code);
	jsonout_string(&b, title ? title : "Error");
	buf_printf(&b, ",\"status\":%u,\"code\":\"%s\",\"detail\":", status, code);
	jsonout_string(&b, detail);
	buf_str(&b, ",\"instance\":");
	jsonout_string(&b, r->id);
	buf_printf(&b, "%s}\n", extra ? extra : "");
	if (status == 503 && strcmp(code, "outcome-unknown")) /* whether to do it again its sender decides */
		request_set_header(r, "Retry-After", "1");
	reply_buf(r, status, "application/problem+json", &b);
}
