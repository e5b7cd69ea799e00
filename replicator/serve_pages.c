/* POST /v1/replication/pages. */
#include "serve_private.h"

#include <stdlib.h>
#include <sys/socket.h>

struct serve_answer {
	struct serve_answer *next, *prev;
	struct serve *serve;
	struct pages_stream *stream;
	struct serve_turn turn;
	int fd;
	uint64_t since_ms, bytes; /* as of a frame (serve_frame.c) */
};

static ssize_t serve_pages_read(void *arg, uint64_t at, char *out, size_t cap)
{
	struct serve_answer *answer = arg;
	size_t got;

	(void)at;
	cap = serve_pace_take(&answer->turn, answer->serve, cap);
	if (!cap) {
		answer->since_ms = serve_now_ms();
		return 0;
	}
	pages_stream_read(answer->stream, out, cap, &got);
	pace_return(&answer->serve->pace, cap - got);
	answer->bytes += got;
	return got > 0 ? (ssize_t)got : MHD_CONTENT_READER_END_OF_STREAM;
}

static void serve_pages_free(void *arg)
{
	struct serve_answer *answer = arg;

	if (answer->prev)
		answer->prev->next = answer->next;
	else
		answer->serve->answers = answer->next;
	if (answer->next)
		answer->next->prev = answer->prev;
	serve_pace_leave(&answer->turn);
	pages_stream_close(answer->stream);
	free(answer);
}

/* libmicrohttpd finds the connection closed, and lets go of the stream. */
static void serve_pages_break(struct serve_answer *answer)
{
	if (answer->fd >= 0)
		shutdown(answer->fd, SHUT_RDWR);
	answer->fd = -1;
	serve_pace_wake(&answer->turn);
}

void serve_pages_watch(struct serve *serve, uint64_t now)
{
	for (struct serve_answer *answer = serve->answers; answer; answer = answer->next) {
		if (answer->bytes >= SERVE_LEAST_BYTES) {
			answer->bytes = 0;
			answer->since_ms = now;
		} else if (now - answer->since_ms >= serve->slow_ms) {
			serve_pages_break(answer);
		}
	}
}

void serve_pages_expire(struct serve *serve, bts_txid txid)
{
	for (struct serve_answer *answer = serve->answers; answer; answer = answer->next)
		if (pages_stream_position(answer->stream)->txid == txid)
			serve_pages_break(answer);
	pages_pins_expire(serve->pins, txid);
}

static enum MHD_Result serve_pages_send(
	struct serve_request *request, struct MHD_Connection *connection, struct pages_stream *stream)
{
	struct serve_problem problem = {.status = 503, .code = "unavailable", .detail = "no memory for pages"};
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct serve_answer *answer = calloc(1, sizeof(*answer));
	struct MHD_Response *response;

	if (!answer) {
		pages_stream_close(stream);
		return serve_problem(request, connection, &problem);
	}
	answer->stream = stream;
	answer->serve = request->serve;
	answer->turn.connection = connection;
	answer->fd = info ? info->connect_fd : -1;
	answer->since_ms = serve_now_ms();
	answer->next = request->serve->answers;
	if (answer->next)
		answer->next->prev = answer;
	request->serve->answers = answer;
	response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, 128 * 1024, serve_pages_read, answer, serve_pages_free);
	if (!response) {
		serve_pages_free(answer);
		return serve_problem(request, connection, &problem);
	}
	request->serve->pages_answers++;
	serve_headers(request, response, pages_stream_position(stream));
	MHD_add_response_header(response, "Content-Type", "application/vnd.btree-store.pages");
	return serve_queue(request, connection, MHD_HTTP_OK, response);
}

enum MHD_Result serve_pages(struct serve_request *request, struct MHD_Connection *connection)
{
	struct serve *serve = request->serve;
	struct serve_problem problem = {.status = 400, .code = "bad-request"};
	struct pages_query *query;
	struct pages_stream *stream;
	struct bts_error error;
	enum bts_err err;

	query = malloc(sizeof(*query));
	if (!query || (request->body && !request->post)) {
		free(query);
		problem = (struct serve_problem){.status = 503, .code = "unavailable", .detail = "no memory for pages"};
		return serve_problem(request, connection, &problem);
	}
	err = request->body > SERVE_POST_MAX
		      ? fail_set(&error, BTS_INVALID, "a body of more than %d bytes", SERVE_POST_MAX)
		      : pages_query_decode(query, request->post, request->body, &error);
	if (!err)
		err = pages_stream_open(serve->pins, query, serve_now_ms(), &stream, &error);
	free(query);
	if (!err)
		return serve_pages_send(request, connection, stream);
	problem.detail = error.text;
	if (err == BTS_NOT_FOUND || err == BTS_DIVERGED) {
		problem.status = 409;
		problem.code = err == BTS_DIVERGED ? "wrong-database" : "gone";
	} else if (err != BTS_INVALID && err != BTS_VERSION) {
		problem.status = 503;
		problem.code = err == BTS_CORRUPT ? "corrupt" : "unavailable";
	}
	return serve_problem(request, connection, &problem);
}
