/* The routes: which path and method is answered how. */
#include "serve_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "keyring.h"
#include "position.h"

#define SERVE_PROBE_METHODS "GET, HEAD, OPTIONS"

struct serve_arguments {
	struct query_decoder decoder;
	struct bts_error error;
	enum bts_err err;
};

static enum MHD_Result serve_on_argument(
	void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct serve_arguments *arguments = arg;

	(void)kind;
	arguments->err = query_decode(&arguments->decoder, name, value, &arguments->error);
	return arguments->err ? MHD_NO : MHD_YES;
}

static enum bts_err serve_parse(
	struct serve_request *request, struct MHD_Connection *connection, struct bts_error *error)
{
	struct serve_arguments arguments = {.err = BTS_OK};
	unsigned wait;

	query_decode_start(&arguments.decoder);
	MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, serve_on_argument, &arguments);
	if (!arguments.err)
		arguments.err = query_decode_finish(&arguments.decoder, &arguments.error);
	if (arguments.err) {
		*error = arguments.error;
		return arguments.err;
	}
	request->query = arguments.decoder.query;
	wait = request->query.wait_ms;
	if (wait > request->serve->wait_max_ms)
		wait = request->serve->wait_max_ms;
	request->deadline_ms = serve_now_ms() + wait;
	request->parsed = true;
	return BTS_OK;
}

/* A suspended connection does not notice that its peer has gone; nobody waits behind a closed one. */
static bool serve_peer_gone(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	char byte;

	return info && recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void serve_suspend(struct serve_request *request, struct MHD_Connection *connection)
{
	struct serve *serve = request->serve;

	request->connection = connection;
	request->looked_ms = serve_now_ms();
	request->suspended = true;
	request->prev = NULL;
	request->next = serve->suspended;
	if (serve->suspended)
		serve->suspended->prev = request;
	serve->suspended = request;
	serve->suspended_count++;
	if (request->deadline_ms < serve->due_ms)
		serve->due_ms = request->deadline_ms;
	MHD_suspend_connection(connection);
}

/* Of the newest commit, while it still is the one told of. */
static void serve_learn_digest(struct serve_request *request, const struct bts_position *head)
{
	struct bts_role role = {.size = sizeof(role)};
	struct bts_error error;

	request->has_digest = !bts_role(request->serve->db, &role, &error) && role.position.txid == head->txid;
	memcpy(request->digest, role.digest, sizeof(request->digest));
}

static void serve_see_chain(struct serve_request *request)
{
	char via[BTS_VIA_MAX + 1];

	request->chain_known = source_chain(&request->serve->source, via, &request->chain_lag_ms);
	request->chain_seen = true;
}

static enum MHD_Result serve_frames(struct serve_request *request, struct MHD_Connection *connection)
{
	struct serve *serve = request->serve;
	struct serve_problem problem = {0};
	struct source_answer answer;
	struct bts_error error;

	if (!request->parsed && serve_parse(request, connection, &error)) {
		problem = (struct serve_problem){.status = 400, .code = "bad-request", .detail = error.text};
		return serve_problem(request, connection, &problem);
	}
	if (serve_peer_gone(connection))
		return MHD_NO;
	if (atomic_load(&serve->stopping)) {
		problem = (struct serve_problem){.status = 503, .code = "unavailable", .detail = "stopping"};
		return serve_problem(request, connection, &problem);
	}
	serve_see_chain(request); /* before the head: what comes in between is not in the answer */
	source_decide(&serve->source, &request->query, &answer);
	if (answer.verdict == SOURCE_REFUSED) {
		problem.status = (unsigned)answer.status;
		problem.code = answer.code;
		problem.detail = answer.detail;
		problem.head = answer.status == 409 ? &answer.head : NULL;
		problem.fork = answer.has_fork ? &answer.fork : NULL;
		return serve_problem(request, connection, &problem);
	}
	if (!request->acknowledged)
		source_acknowledge(&serve->source, &request->query);
	request->acknowledged = true;
	if (answer.verdict == SOURCE_FRAME)
		return serve_send_frame(request, connection);
	if (serve_now_ms() >= request->deadline_ms) {
		serve_learn_digest(request, &answer.head);
		return serve_text(request, connection, MHD_HTTP_NO_CONTENT, NULL, "", &answer.head);
	}
	serve_suspend(request, connection);
	return MHD_YES;
}

/* What every other route needs first; false: already answered, *result is what to return. */
static bool serve_head(struct serve_request *request, struct MHD_Connection *connection,
	struct bts_position *head, enum MHD_Result *result)
{
	struct serve_problem problem = {.status = 503, .code = "unavailable"};
	struct bts_error error;

	if (!bts_ship_position(request->serve->db, head, &error))
		return true;
	problem.detail = error.text;
	*result = serve_problem(request, connection, &problem);
	return false;
}

static enum MHD_Result serve_position(struct serve_request *request, struct MHD_Connection *connection)
{
	char id[POSITION_ID_SIZE], chain[POSITION_ID_SIZE], body[512];
	enum MHD_Result result;
	struct bts_position head;

	if (!serve_head(request, connection, &head, &result))
		return result;
	position_hex(head.database, sizeof(head.database), id);
	position_hex(head.chain, sizeof(head.chain), chain);
	snprintf(body, sizeof(body),
		"{\"database_id\":\"%s\",\"epoch\":%" PRIu32 ",\"epoch_random\":\"%016" PRIx64
		"\",\"txid\":%" PRIu64 ",\"chain\":\"%s\",\"page_size\":%" PRIu32 "}\n",
		id, head.epoch, head.epoch_random, head.txid, chain, request->serve->source.page_size);
	return serve_text(request, connection, MHD_HTTP_OK, "application/json", body, &head);
}

static enum MHD_Result serve_livez(struct serve_request *request, struct MHD_Connection *connection)
{
	return serve_text(request, connection, MHD_HTTP_OK, "text/plain", "ok\n", NULL);
}

static enum MHD_Result serve_readyz(struct serve_request *request, struct MHD_Connection *connection)
{
	enum MHD_Result result;
	struct bts_position head;

	if (!serve_head(request, connection, &head, &result))
		return result;
	return serve_text(request, connection, MHD_HTTP_OK, "text/plain", "ok\n", &head);
}

static enum MHD_Result serve_made(struct serve_request *request, struct MHD_Connection *connection,
	char *(*make)(struct serve *serve, const struct bts_position *head), const char *type)
{
	enum MHD_Result result;
	struct bts_position head;
	char *text;

	if (!serve_head(request, connection, &head, &result))
		return result;
	text = make(request->serve, &head);
	if (!text)
		return MHD_NO;
	result = serve_text(request, connection, MHD_HTTP_OK, type, text, &head);
	free(text);
	return result;
}

static enum MHD_Result serve_metrics_route(struct serve_request *request, struct MHD_Connection *connection)
{
	return serve_made(request, connection, serve_metrics, "text/plain; version=0.0.4");
}

static enum MHD_Result serve_status_route(struct serve_request *request, struct MHD_Connection *connection)
{
	return serve_made(request, connection, serve_status, "application/json");
}

typedef enum MHD_Result serve_route_fn(struct serve_request *request, struct MHD_Connection *connection);

static const struct serve_entry {
	const char *path;
	bool probe;	/* HEAD and OPTIONS too, as load balancers ask */
	bool arguments; /* checks its query parameters itself; others take none */
	bool post;	/* POST instead of GET */
	bool open;	/* to anybody: health */
	unsigned scope; /* that others need, KEYRING_* */
	serve_route_fn *fn;
} serve_routes[] = {
	{.path = QUERY_PATH, .arguments = true, .scope = KEYRING_REPLICATE, .fn = serve_frames},
	{.path = PAGES_PATH, .post = true, .scope = KEYRING_REPLICATE, .fn = serve_pages},
	{.path = "/v1/replication/position", .probe = true, .scope = KEYRING_REPLICATE, .fn = serve_position},
	{.path = "/v1/replication/segments", .probe = true, .scope = KEYRING_REPLICATE, .fn = serve_segments},
	{.path = "/livez", .probe = true, .open = true, .fn = serve_livez},
	{.path = "/healthz", .probe = true, .open = true, .fn = serve_livez},
	{.path = "/readyz", .probe = true, .open = true, .fn = serve_readyz},
	{.path = "/metrics", .probe = true, .scope = KEYRING_READ, .fn = serve_metrics_route},
	{.path = "/v1/status", .probe = true, .scope = KEYRING_READ, .fn = serve_status_route},
};

bool serve_route_row(size_t i, const char **method, const char **path, const char **scope)
{
	const struct serve_entry *entry = &serve_routes[i];

	if (i >= sizeof(serve_routes) / sizeof(serve_routes[0]))
		return false;
	*method = entry->post ? "POST" : "GET";
	*path = entry->path;
	*scope = entry->open ? "none" : entry->scope == KEYRING_REPLICATE ? "replicate" : entry->scope == KEYRING_READ ? "read" : "admin";
	return true;
}

static const struct serve_entry *serve_find(const char *url)
{
	size_t i;

	for (i = 0; i < sizeof(serve_routes) / sizeof(serve_routes[0]); i++) {
		if (strcmp(url, serve_routes[i].path) == 0)
			return &serve_routes[i];
	}
	return NULL;
}

/*
 * A path that does not exist wants credentials too, as any of them may be for one that does.  The routes of health are anybody's, under
 * any name.
 */
const struct guard_words *serve_refusal(
	struct serve_request *request, struct MHD_Connection *connection, const char *url, const char *method)
{
	const struct serve_entry *entry = serve_find(url);
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	struct guard_caller caller = {
		.authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization"),
		.host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host"),
		.origin = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Origin"),
		.reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0,
		.tls = request->serve->tls,
		.session = info && request->serve->tls ? info->tls_session : NULL};
	unsigned scope = !entry ? serve_admin_scope(request->serve, url) : entry->scope ? entry->scope : KEYRING_ADMIN;
	enum guard_verdict verdict;
	struct guard_grant grant;

	if (!request->serve->guard || (entry && entry->open))
		return NULL;
	verdict = guard_admit(request->serve->guard, &caller, &grant);
	/* Nothing here is for who is limited to some buckets: all of it is about the whole file. */
	if (verdict == GUARD_ADMITTED &&
		(!scope || (!grant.limited && guard_allows(&grant, scope, (struct bts_slice){"", 0}))))
		return NULL;
	return guard_words(verdict);
}

bool serve_claims(const char *bytes, size_t size)
{
	static const char common[] = "/v1/replication/";
	size_t at = 0, i, length;

	while (at < size && bytes[at] >= 'A' && bytes[at] <= 'Z')
		at++;
	if (at == size || bytes[at++] != ' ')
		return false;
	for (i = 0; i < sizeof(serve_routes) / sizeof(serve_routes[0]); i++) {
		length = strlen(serve_routes[i].path);
		if (size - at > length && memcmp(bytes + at, serve_routes[i].path, length) == 0 &&
			strchr("? ", bytes[at + length]) && strncmp(serve_routes[i].path, common, sizeof(common) - 1) == 0)
			return true;
	}
	return false;
}

static enum MHD_Result serve_options_reply(struct serve_request *request, struct MHD_Connection *connection)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

	if (!response)
		return MHD_NO;
	serve_headers(request, response, NULL);
	MHD_add_response_header(response, "Allow", SERVE_PROBE_METHODS);
	return serve_queue(request, connection, MHD_HTTP_NO_CONTENT, response);
}

enum MHD_Result serve_route(
	struct serve_request *request, struct MHD_Connection *connection, const char *url, const char *method)
{
	const struct serve_entry *entry = serve_find(url);
	struct serve_problem problem = {.status = 404, .code = "not-found", .detail = "no such path"};

	enum MHD_Result result;

	if (request->refusal) {
		problem = (struct serve_problem){
			.status = request->refusal->status, .code = request->refusal->code, .detail = request->refusal->detail};
		return serve_problem(request, connection, &problem);
	}
	if (!request->serve->db && !(entry && entry->fn == serve_livez)) {
		problem = (struct serve_problem){.status = 503, .code = "unavailable", .detail = "no commit has been received yet"};
		return serve_problem(request, connection, &problem);
	}
	if (!entry && serve_admin(request, connection, url, method, &result))
		return result;
	if (!entry)
		return serve_problem(request, connection, &problem);
	if (entry->probe && strcmp(method, "OPTIONS") == 0)
		return serve_options_reply(request, connection);
	if (strcmp(method, entry->post ? "POST" : "GET") != 0 && !(entry->probe && strcmp(method, "HEAD") == 0)) {
		problem = (struct serve_problem){.status = 405,
			.code = "method-not-allowed",
			.detail = "this path does not have that method",
			.allow = entry->post ? "POST" : entry->probe ? SERVE_PROBE_METHODS : "GET"};
		return serve_problem(request, connection, &problem);
	}
	if (!entry->arguments &&
		MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, NULL, NULL) > 0) {
		problem = (struct serve_problem){.status = 400,
			.code = "bad-request",
			.detail = "this path takes no query parameters"};
		return serve_problem(request, connection, &problem);
	}
	return entry->fn(request, connection);
}
