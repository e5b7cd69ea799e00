/*
 * libmicrohttpd's callbacks: what happens to a request before it is routed.
 *
 * libmicrohttpd accepts requests that two parties may read differently, decodes %2F before we see it and
 * closes the connection when answered too early; so the first call only says yes, the body of any method is
 * dropped to its end, and what could be smuggled is refused here.
 */
#include "rawhead.h"
#include "serve_private.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define SERVE_PARAMETERS 32

/* Identity: parameters are decoded by query.c, once. */
size_t serve_on_unescape(void *arg, struct MHD_Connection *connection, char *text)
{
	(void)arg;
	(void)connection;
	return strlen(text);
}

/*
 * The library makes a record of each parameter; where these do not fit its memory it answers while it reads, and knows no more where it
 * is.  So a query with many is cut in its buffer, which it calls its own to change.
 */
static bool serve_cut_query(const char *uri)
{
	char *query = strchr(uri, '?');
	unsigned count = 0;

	for (const char *at = query; at && *at; at++)
		count += *at == '&';
	if (count < SERVE_PARAMETERS)
		return false;
	query[1] = '\0';
	return true;
}

void *serve_on_uri(void *arg, const char *uri, struct MHD_Connection *connection)
{
	struct serve_request *request = calloc(1, sizeof(*request));
	size_t size = strcspn(uri, "?");

	if (!request)
		return NULL;
	serve_conn_begun(arg, connection, request);
	request->serve = arg;
	request->target_size = strlen(uri);
	request->crowded = serve_cut_query(uri);
	request->absolute = uri[0] != '/' && strcmp(uri, "*") != 0;
	if (size >= sizeof(request->path))
		size = sizeof(request->path) - 1;
	memcpy(request->path, uri, size);
	return request;
}

static void serve_make_id(struct serve_request *request, struct MHD_Connection *connection)
{
	const char *given = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "X-Request-Id");
	size_t size = given ? strlen(given) : 0, i;
	uint64_t random = 0;

	while (size > 0 && (given[size - 1] == ' ' || given[size - 1] == '\t'))
		size--;
	for (i = 0; i < size && (isalnum((unsigned char)given[i]) || strchr("._-", given[i])); i++)
		;
	if (size > 0 && size <= SERVE_ID_MAX && i == size) {
		memcpy(request->id, given, size);
		request->id[size] = '\0';
		return;
	}
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = serve_now_ms();
	snprintf(request->id, sizeof(request->id), "%016llx", (unsigned long long)random);
}

struct serve_filter {
	unsigned lengths, codings, hosts, authorizations, origins;
	bool bad_name;
	struct rawhead raw;
};

/* The request line: pointers into the library's buffer. */
struct serve_line {
	const char *method, *url, *version;
};

static enum MHD_Result serve_on_filter(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_size,
	const char *value, size_t size)
{
	struct serve_filter *filter = arg;

	(void)kind;
	(void)name_size;
	rawhead_field(&filter->raw, name, value, size);
	for (size_t i = 0; i < size; i++)
		filter->bad_name |= (unsigned char)value[i] < ' ' && value[i] != '\t';
	if (!*name || strpbrk(name, " \t"))
		filter->bad_name = true;
	if (strcasecmp(name, "Content-Length") == 0)
		filter->lengths++;
	if (strcasecmp(name, "Host") == 0)
		filter->hosts++;
	if (strcasecmp(name, "Origin") == 0)
		filter->origins++;
	if (strcasecmp(name, "Authorization") == 0)
		filter->authorizations++;
	if (strcasecmp(name, "Transfer-Encoding") == 0)
		filter->codings++;
	return MHD_YES;
}

/* What makes the request ambiguous, or NULL. */
static const char *serve_filter(
	const struct serve_request *request, struct MHD_Connection *connection, const struct serve_line *line)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	struct serve_filter filter = {0};

	rawhead_begin(&filter.raw, line->url, request->target_size, line->version);
	MHD_get_connection_values_n(connection, MHD_HEADER_KIND, serve_on_filter, &filter);
	if (request->absolute)
		return "the request target must begin with a slash";
	if (request->crowded)
		return "more than 32 query parameters";
	if (strcmp(MHD_get_version(), RAWHEAD_LIBRARY) == 0 && info && rawhead_is_odd(&filter.raw, line->method, info->header_size))
		return "a zero byte, a folded line or a bare line feed in the head";
	if (filter.bad_name)
		return "a header field has a malformed name or value";
	if (filter.lengths > 1)
		return "more than one length of the body";
	if (filter.codings) /* its end may be read differently (the library takes bare line feeds), and no peer needs one */
		return "a body without Content-Length";
	if (filter.hosts > 1 || filter.authorizations > 1 || filter.origins > 1)
		return "a header that may come once came twice";
	return NULL;
}

/* Who needs the body finds that it is missing, or cut, by its own length. */
static void serve_keep_body(struct serve_request *request, const char *method, const char *data, size_t size)
{
	if (strcmp(method, "POST") != 0 || request->body >= SERVE_POST_MAX)
		return;
	if (!request->post)
		request->post = malloc(SERVE_POST_MAX);
	if (size > SERVE_POST_MAX - request->body)
		size = SERVE_POST_MAX - request->body;
	if (request->post)
		memcpy(request->post + request->body, data, size);
}

enum MHD_Result serve_on_request(void *arg, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_size, void **context)
{
	struct serve_request *request = *context;
	struct serve_problem problem = {.status = 400, .code = "bad-request"};

	if (!request)
		return MHD_NO;
	if (!request->begun) {
		request->begun = true;
		request->begun_ms = serve_now_ms();
		snprintf(request->method, sizeof(request->method), "%s", method);
		serve_conn_headed(connection);
		serve_make_id(request, connection);
		((struct serve *)arg)->requests++;
		problem.detail = serve_filter(request, connection, &(struct serve_line){method, url, version});
		request->refusal = problem.detail ? NULL : serve_refusal(request, connection, url, method);
		/* Nothing after an ambiguous request is believed: the early answer closes the connection. */
		return problem.detail ? serve_problem(request, connection, &problem) : MHD_YES;
	}
	if (*upload_size > 0) {
		serve_keep_body(request, method, upload, *upload_size);
		request->body += *upload_size;
		*upload_size = 0;
		return request->body > SERVE_BODY_MAX ? MHD_NO : MHD_YES;
	}
	serve_conn_asked(connection);
	return serve_route(request, connection, url, method);
}

static void serve_unlink(struct serve_request *request)
{
	struct serve *serve = request->serve;

	if (!request->suspended)
		return;
	if (request->prev)
		request->prev->next = request->next;
	else
		serve->suspended = request->next;
	if (request->next)
		request->next->prev = request->prev;
	request->next = request->prev = NULL;
	request->suspended = false;
	serve->suspended_count--;
}

void serve_resume(struct serve_request *request)
{
	serve_unlink(request);
	MHD_resume_connection(request->connection);
}

/* At its end: of a long poll after the wait, of a frame when it is sent, or not. */
static void serve_log(const struct serve *serve, const struct serve_request *request, enum MHD_RequestTerminationCode code)
{
	if (serve->log_requests && request->begun)
		repl_emit(&serve->events, REPL_INFO, "request", "%s %s %u%s %llu ms id=%s follower=%s", request->method, request->path,
			request->status, code == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "" : " broken-off",
			(unsigned long long)(serve_now_ms() - request->begun_ms), request->id,
			request->query.follower[0] ? request->query.follower : "-");
}

void serve_on_completed(
	void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
	struct serve_request *request = *context;

	serve_conn_answered(connection);
	if (!request)
		return;
	serve_log(arg, request, code);
	serve_unlink(request);
	serve_job_free(request->job);
	free(request->post);
	free(request);
	*context = NULL;
}
