/* Replies: the headers of all of them, texts, and problems by RFC 9457. */
#include "serve_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "position.h"
#include "session.h"

#define SERVE_FORK_SIZE 192

static const char *serve_title(unsigned status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 409:
		return "Conflict";
	case 421:
		return "Misdirected Request";
	default:
		return status == 503 ? "Service Unavailable" : "Internal Server Error";
	}
}

/* Through whom commits come here and how old they may be, for those who follow this node in turn. */
static void serve_chain(struct serve_request *request, struct MHD_Response *response)
{
	char via[BTS_VIA_MAX + 1], text[32];
	uint64_t lag_ms;
	bool known = source_chain(&request->serve->source, via, &lag_ms);

	if (request->chain_seen) {
		known = known && request->chain_known;
		lag_ms = request->chain_lag_ms > lag_ms ? request->chain_lag_ms : lag_ms;
	}
	if (via[0])
		MHD_add_response_header(response, "BTS-Via", via);
	if (strcmp(serve_role(request->serve), "primary") == 0) { /* whose deadline has passed does not know whether it still is */
		known = request->serve->db && bts_deadline(request->serve->db, NULL, NULL) == BTS_FENCED;
		lag_ms = SESSION_LAG_UNKNOWN_MS;
	}
	snprintf(text, sizeof(text), "%" PRIu64, lag_ms);
	if (known)
		MHD_add_response_header(response, "BTS-Lag-Ms", text);
}

void serve_headers(
	struct serve_request *request, struct MHD_Response *response, const struct bts_position *head)
{
	char text[32];

	MHD_add_response_header(response, "X-Request-Id", request->id);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "BTS-Role", serve_role(request->serve));
	snprintf(text, sizeof(text), "%" PRIu64, serve_realtime_ms());
	MHD_add_response_header(response, "BTS-Time-Ms", text);
	if (!head)
		return;
	serve_chain(request, response);
	snprintf(text, sizeof(text), "%" PRIu64, head->txid);
	MHD_add_response_header(response, "BTS-Txid", text);
	snprintf(text, sizeof(text), "%" PRIu32, head->epoch);
	MHD_add_response_header(response, "BTS-Epoch", text);
	if (request->has_digest) {
		char digest[POSITION_ID_SIZE];

		position_hex(request->digest, sizeof(request->digest), digest);
		MHD_add_response_header(response, "BTS-Digest", digest);
	}
}

enum MHD_Result serve_queue(
	struct serve_request *request, struct MHD_Connection *connection, unsigned status, struct MHD_Response *response)
{
	enum MHD_Result queued = MHD_queue_response(connection, status, response);

	request->status = status;
	MHD_destroy_response(response);
	return queued;
}

enum MHD_Result serve_text(struct serve_request *request, struct MHD_Connection *connection, unsigned status,
	const char *type, const char *text, const struct bts_position *head)
{
	struct MHD_Response *response;

	/* libmicrohttpd does not change the bytes; its parameter lacks a const. */
	response =
		MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	serve_headers(request, response, head);
	if (type)
		MHD_add_response_header(response, "Content-Type", type);
	return serve_queue(request, connection, status, response);
}

void serve_json_escape(const char *text, char *out, size_t size)
{
	size_t at = 0;

	for (; *text && at + 7 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\') {
			out[at++] = '\\';
			out[at++] = (char)c;
		} else if (c < 0x20 || c > 0x7e) {
			at += (size_t)snprintf(out + at, size - at, "\\u%04x", c);
		} else {
			out[at++] = (char)c;
		}
	}
	out[at] = '\0';
}

/* Members of a problem; "" where no fork is known. */
static void serve_fork(const struct bts_position *fork, char out[SERVE_FORK_SIZE])
{
	char chain[POSITION_ID_SIZE];

	out[0] = '\0';
	if (!fork)
		return;
	position_hex(fork->chain, sizeof(fork->chain), chain);
	snprintf(out, SERVE_FORK_SIZE,
		",\"fork\":{\"epoch\":%" PRIu32 ",\"epoch_random\":\"%016" PRIx64 "\",\"txid\":%" PRIu64 ",\"chain\":\"%s\"}",
		fork->epoch, fork->epoch_random, (uint64_t)fork->txid, chain);
}

enum MHD_Result serve_problem(
	struct serve_request *request, struct MHD_Connection *connection, const struct serve_problem *problem)
{
	char body[2048], detail[1024], fork[SERVE_FORK_SIZE];
	struct MHD_Response *response;
	int size;

	serve_json_escape(problem->detail, detail, sizeof(detail));
	serve_fork(problem->fork, fork);
	size = snprintf(body, sizeof(body),
		"{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,\"detail\":\"%s\",\"instance\":\"%"
		"s\",\"code\":\"%s\"%s}\n",
		serve_title(problem->status), problem->status, detail, request->id, problem->code, fork);
	response = MHD_create_response_from_buffer((size_t)size, body, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	request->serve->errors++;
	serve_headers(request, response, problem->head);
	MHD_add_response_header(response, "Content-Type", "application/problem+json");
	/* The same word where a follower finds it without reading JSON. */
	MHD_add_response_header(response, "BTS-Error", problem->code);
	if (problem->fork) {
		char text[POSITION_TEXT_SIZE];

		position_text(problem->fork, text);
		MHD_add_response_header(response, "BTS-Fork", text);
	}
	if (problem->more)
		serve_admin_headers(response, problem->more);
	if (problem->allow)
		MHD_add_response_header(response, "Allow", problem->allow);
	if (problem->status == 401)
		MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"btree_store\"");
	if (problem->status == 503)
		MHD_add_response_header(response, "Retry-After", "1");
	return serve_queue(request, connection, problem->status, response);
}
