/*
 * A request from its first byte to its reply.
 *
 * The HTTP library calls request_access once when the headers are there, then for each piece of body, then
 * once more with none.  A reply queued in the first call would close the connection, so what the checks find
 * is remembered, the body is read and dropped, and the reply given at its end.  Only what makes the end of
 * the body doubtful (framing) or would have the client send a large body for nothing is answered at once.
 */
#include "request.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "durable.h"
#include "framing.h"
#include "reply.h"
#include "server.h"
#include "text.h"
#include "tls.h"
#include "wait.h"

#define REQUEST_DROP_MAX ((uint64_t)256 << 20) /* of a body that nobody wants */
#define REQUEST_STRANGER_MAX ((uint64_t)1 << 20) /* of one from who may do nothing, as no credentials were shown or wanted */
/*
 * Of the library for a connection: the head lies there, a record for each of its fields, and behind them the head of the reply.  A write
 * is not to be made that could not be answered, so what remains for a reply is seen to first.
 */
#define REQUEST_MEMORY 24576
#define REQUEST_HEAD 16384 /* bytes */
#define REQUEST_FIELD 64   /* at least what the library's record of a field takes */
#define REQUEST_REPLY 6144 /* a Location with a key of which each byte is encoded, a base of 2 KiB, and the others */
#define REQUEST_FIELDS ((REQUEST_MEMORY / 2 - REQUEST_REPLY) / REQUEST_FIELD) /* beside half of it full of what comes behind */
#define REQUEST_TRAILERS 1024 /* bytes of fields behind a chunked body, which nobody reads */
#define REQUEST_INACTIVITY_S 60
#define REQUEST_SPARES 256
#define REQUEST_BODY_KEPT 1024 /* of memory that a spare one has for its next body */
#define REQUEST_BODY_COUNTED 4096 /* less is bounded by the number of connections */
#define REQUEST_BODIES ((size_t)1 << 30) /* bytes of bodies in memory, all requests together */

struct server *request_server(const struct request *r)
{
	return r->loop->server;
}

struct role *request_role(const struct request *r)
{
	return r->loop->server->role;
}

void *request_session(const struct request *r)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);

	return info ? info->tls_session : NULL;
}

void request_peer(const struct request *r, char text[REQUEST_PEER_SIZE])
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *peer = info ? info->client_addr : NULL;

	if (!peer || !inet_ntop(peer->sa_family,
			     peer->sa_family == AF_INET6
				     ? (const void *)&((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr
				     : (const void *)&((const struct sockaddr_in *)(const void *)peer)->sin_addr,
			     text, REQUEST_PEER_SIZE))
		snprintf(text, REQUEST_PEER_SIZE, "-");
}

static void request_give(struct server_loop *loop, struct request *r)
{
	if (loop->spares == REQUEST_SPARES) {
		buf_fini(&r->body);
		free(r);
		return;
	}
	r->next = loop->spare;
	loop->spare = r;
	loop->spares++;
}

static void request_free(struct request *r)
{
	if (r->state_free)
		r->state_free(r->state);
	request_drop_headers(r);
	reply_again_end(r->reply_kept);
	(void)request_hold(r, 0);
	if (r->body.cap > REQUEST_BODY_KEPT || r->body.failed)
		buf_fini(&r->body);
	free(r->buckets);
	uri_fini(&r->uri);
	request_give(r->loop, r);
}

void request_suspend(struct request *r, void (*resume)(struct request *))
{
	r->resume = resume;
	r->suspended_us = request_timed_us(r);
	server_conn_suspend(r->conn);
	MHD_suspend_connection(r->mhd);
}

void request_go_on(struct request *r)
{
	request_account(r);
	if (r->ended) {
		r->loop->suspended--;
		request_free(r);
		return;
	}
	server_conn_resume(r->conn);
	if (r->parked)
		request_unpark(r);
	else
		MHD_resume_connection(r->mhd);
}

static void request_op_done(struct request *r)
{
	if (r->op.result == WRITER_DONE || r->op.result == WRITER_CREATED || r->op.result == WRITER_UNCHANGED)
		durable_await(r, r->written);
	else
		r->written(r);
}

void request_write(struct request *r, void (*written)(struct request *))
{
	r->op.owner = r;
	r->written = written;
	durable_expect(r);
	/* Only this thread takes up what the writer hands back, so it cannot be resumed before it is
	 * suspended. */
	r->part = REQUEST_QUEUE;
	r->loop->wrote = 1;
	if (writer_append(request_server(r)->writer, &r->op))
		reply_problem(r, 503, "write-queue-full", NULL, "too many writes are waiting for the disk");
	else if (request_park(r, request_op_done))
		request_suspend(r, request_op_done);
}

void request_written(struct writer_op *ops)
{
	struct request *batch[256];
	size_t n = 0;

	while (ops) {
		struct writer_op *op = ops;

		ops = op->next;
		if (op->done)
			op->done(op);
		else
			batch[n++] = op->owner;
		if (n == sizeof(batch) / sizeof(batch[0]) || !ops) {
			server_resume(batch, n);
			n = 0;
		}
	}
}

void request_refuse(struct request *r, unsigned status, const char *code)
{
	if (!r->early_status) {
		r->early_status = status;
		r->early_code = code;
	}
}

static void request_answer_refusal(struct request *r)
{
	char allow[64];

	if (r->allowed) {
		route_allow(r->allowed, allow);
		request_set_header(r, "Allow", allow);
	}
	if (r->early_status == 204)
		reply_empty(r, 204);
	else
		reply_problem(r, r->early_status, r->early_code, r->early_extra, "%s", r->problem);
}

/* ---- the checks when the headers are there ---- */

static uint64_t request_drop_max(const struct request *r)
{
	return r->scopes ? REQUEST_DROP_MAX : REQUEST_STRANGER_MAX;
}

static void request_check_body(struct request *r, const struct framing *f)
{
	size_t max = SETTINGS_NOW(request_server(r)->config->max_body);
	const char *expect = request_get_header(r, "Expect");

	if (!r->early_status && (r->route->flags & ROUTE_BODY) && f->length > max) {
		snprintf(r->problem, sizeof(r->problem),
			"the body has %" PRIu64 " bytes, at most %zu are allowed", f->length, max);
		request_refuse(r, 413, "body-too-large");
	}
	if (!r->early_status && (r->route->flags & ROUTE_ANNOUNCED))
		(void)r->route->feed(r, NULL, f->length);
	/* A client that waits for leave to send need not; one that sends too much is cut off. */
	if (r->early_status && !r->status && (expect || f->length > request_drop_max(r)))
		request_answer_refusal(r);
}

static enum MHD_Result request_start(
	struct request *r, struct MHD_Connection *mhd, const char *url, const char *method, const char *version)
{
	const struct framing_line line = {method, url, version, r->target_size};
	struct framing framing;
	const char *problem;

	r->mhd = mhd;
	r->head = !strcmp(method, "HEAD");
	r->method = route_method(method);
	problem = framing_problem(&framing, mhd, &line);
	r->headers_seen = framing.seen;
	r->last = framing.codings != 0;
	server_conn_headed(r->conn);
	request_take_id(r);
	if (framing.head > REQUEST_HEAD || framing.fields > REQUEST_FIELDS ||
		framing.head + framing.cookies + framing.fields * REQUEST_FIELD > REQUEST_MEMORY - REQUEST_REPLY) {
		reply_problem(r, 431, "head-too-large", NULL, "a head of %zu bytes in %zu fields", framing.head, framing.fields);
		return r->broken ? MHD_NO : MHD_YES;
	}
	if (problem) {
		reply_problem(r, 400, "bad-request", NULL, "%s", problem);
		return r->broken ? MHD_NO : MHD_YES;
	}
	request_check_route(r, method, &framing);
	/* Strangers, who can send a head without a body to hold a place, are among those that room is made of. */
	if (!r->scopes)
		r->conn->headed = 0;
	request_check_body(r, &framing);
	return r->broken ? MHD_NO : MHD_YES;
}

/* ---- the body ---- */

int request_hold(struct request *r, size_t bytes)
{
	atomic_size_t *all = &request_server(r)->body_bytes;
	size_t before = r->body_counted;

	if (bytes == before)
		return 0;
	r->body_counted = bytes;
	if (bytes <= before) {
		atomic_fetch_sub(all, before - bytes);
		return 0;
	}
	return atomic_fetch_add(all, bytes - before) + bytes - before <= REQUEST_BODIES ? 0 : -1;
}

void request_collect(struct request *r, const char *data, size_t size, size_t max)
{
	if (r->body.size + size > max) {
		snprintf(r->problem, sizeof(r->problem), "the body has more than the allowed %zu bytes",
			max);
		request_refuse(r, 413, "body-too-large");
		return;
	}
	buf_add(&r->body, data, size);
	if (!r->body.failed && (r->body.cap < REQUEST_BODY_COUNTED || !request_hold(r, r->body.cap)))
		return;
	snprintf(r->problem, sizeof(r->problem), "no memory for this body now");
	request_refuse(r, 503, "unavailable");
}

static void request_call_resume(struct request *r)
{
	void (*resume)(struct request *) = r->resume;

	r->resume = NULL;
	resume(r);
}

/*
 * A fed body has no limit of size while it is taken, so neither when what was committed of it is to be told at
 * its end: the deadline of the connection ends a slow one.
 */
static int request_drops_too_much(const struct request *r)
{
	return r->dropped > request_drop_max(r) && !(r->route && r->route->feed && r->state);
}

static enum MHD_Result request_upload(struct request *r, const char *data, size_t *size)
{
	size_t used = *size;

	if (r->resume)
		request_call_resume(r);
	if (r->early_status || r->status)
		r->dropped += used;
	else if (r->route->feed)
		used = r->route->feed(r, data, *size);
	else if (r->route->flags & ROUTE_BODY)
		request_collect(r, data, *size, SETTINGS_NOW(request_server(r)->config->max_body));
	else
		r->dropped += used;
	r->bytes_in += used;
	server_conn_progress(r->conn, used);
	*size -= used;
	return r->broken || request_drops_too_much(r) ? MHD_NO : MHD_YES;
}

/* ---- the library's callbacks ---- */

/* A loop keeps some for its next requests: each is too large for the allocator's fast lists. */
static struct request *request_take(struct server_loop *loop)
{
	struct request *r = loop->spare;
	struct buf body;

	if (!r)
		return calloc(1, sizeof(*r));
	loop->spare = r->next;
	loop->spares--;
	body = r->body;
	body.size = 0;
	memset(r, 0, offsetof(struct request, problem));
	r->problem[0] = r->early_extra[0] = r->id[0] = '\0';
	r->body = body;
	return r;
}

void request_spares_free(struct server_loop *loop)
{
	struct request *r;

	while ((r = loop->spare)) {
		loop->spare = r->next;
		buf_fini(&r->body);
		free(r);
	}
}

static void request_end(
	void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode why);

/* One that the library gave up without a word, as it does where its memory for the head is used up. */
static void request_lost(void *cls, struct MHD_Connection *mhd, struct server_conn *conn)
{
	void *context = conn->request;

	if (context)
		request_end(cls, mhd, &context, MHD_REQUEST_TERMINATED_WITH_ERROR);
}

/*
 * The library goes on to take the query apart, a record for each parameter, as many as there are; where these do not fit it answers
 * while it reads, and knows no more where it is.  We have it all in the target and cut its copy, which it calls its own to change.
 */
static void request_hide_query(const char *target)
{
	char *query = strchr(target, '?');

	if (query)
		query[1] = '\0';
}

static void *request_new(void *cls, const char *target, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct request *r;

	if (!info || !info->socket_context)
		return NULL;
	request_lost(cls, mhd, info->socket_context);
	r = request_take(cls);
	if (!r)
		return NULL;
	r->loop = cls;
	r->conn = info->socket_context;
	r->started_us = request_now_us();
	r->target_size = strlen(target);
	r->uri_err = uri_parse(&r->uri, target, r->problem);
	request_hide_query(target);
	if (r->uri_err == URI_MEMORY) {
		request_give(cls, r);
		return NULL;
	}
	r->loop->called = 1;
	r->conn->request = r;
	server_conn_busy(r->conn);
	metrics_begin(r->loop->metrics);
	return r;
}

static void request_end(
	void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode why)
{
	struct request *r = *context;

	(void)cls;
	(void)why;
	*context = NULL;
	if (!r)
		return;
	r->mhd = mhd;
	r->loop->called = 1;
	r->conn->request = NULL;
	request_tell(r);
	server_conn_idle(r->conn);
	if (!r->parked) {
		request_free(r);
		return;
	}
	request_unpark(r); /* the writer has it: memory until request_go_on */
	r->ended = 1;
}

static enum MHD_Result request_add_trailer(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_size,
	const char *value, size_t size)
{
	(void)kind;
	(void)name;
	(void)value;
	*(size_t *)cls += name_size + size + REQUEST_FIELD;
	return MHD_YES;
}

/* They lie where the reply is to lie, too. */
static void request_check_trailers(struct request *r)
{
	size_t bytes = 0;

	MHD_get_connection_values_n(r->mhd, MHD_FOOTER_KIND, request_add_trailer, &bytes);
	if (bytes <= REQUEST_TRAILERS)
		return;
	snprintf(r->problem, sizeof(r->problem), "too many fields behind the body");
	request_refuse(r, 431, "head-too-large");
}

static enum MHD_Result request_access(void *cls, struct MHD_Connection *mhd, const char *url,
	const char *method, const char *version, const char *data, size_t *size, void **context)
{
	struct request *r = *context;

	(void)cls;
	if (!r)
		return MHD_NO;
	if (!r->mhd)
		return request_start(r, mhd, url, method, version);
	/* The library goes on to the next chunk of a chunked body that it has already, also of a suspended
	 * connection: it is given again after the resume. */
	if (r->conn->suspended)
		return MHD_YES;
	r->loop->called = 1;
	if (*size)
		return request_upload(r, data, size);
	r->conn->receiving = 0;
	if (!r->handled)
		r->received_us = request_timed_us(r);
	if (r->resume)
		request_call_resume(r);
	if (!r->early_status && !r->handled && r->last)
		request_check_trailers(r);
	if (!r->early_status && !r->handled) {
		r->handled = 1;
		/* Whether one that may write reads, its handler knows. */
		if ((r->route->flags & (ROUTE_READS | ROUTE_MAY_WRITE)) != ROUTE_READS || !wait_before(r))
			r->route->handle(r);
	}
	if (r->early_status && !r->status)
		request_answer_refusal(r);
	return r->broken ? MHD_NO : MHD_YES;
}

static void request_connection(
	void *cls, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
			MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

		*context = server_conn_new(cls, info ? info->connect_fd : -1);
	} else {
		struct server_conn *conn = *context;

		if (conn && conn->request) {
			conn->request->headers_seen = 0; /* they are gone */
			request_lost(cls, mhd, conn);
		}
		server_conn_free(conn);
		*context = NULL;
	}
}

/* Ours decodes; the library's would cut at %00 and turn %2F into a slash. */
static size_t request_no_unescape(void *cls, struct MHD_Connection *mhd, char *text)
{
	(void)cls;
	(void)mhd;
	return strlen(text);
}

struct MHD_Daemon *request_daemon(struct server_loop *loop, unsigned connection_limit)
{
	struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
		{MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, tls_callback()}, {MHD_OPTION_END, 0, NULL}};

	return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME |
					(loop->tls ? MHD_USE_TLS : MHD_NO_FLAG), 0, NULL,
		NULL, request_access, loop, MHD_OPTION_CONNECTION_LIMIT, connection_limit,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
		REQUEST_INACTIVITY_S, MHD_OPTION_UNESCAPE_CALLBACK, request_no_unescape, NULL,
		MHD_OPTION_URI_LOG_CALLBACK, request_new, loop, MHD_OPTION_NOTIFY_COMPLETED, request_end,
		NULL, MHD_OPTION_NOTIFY_CONNECTION, request_connection, loop, MHD_OPTION_ARRAY,
		loop->tls ? tls : &tls[2], MHD_OPTION_END);
}
