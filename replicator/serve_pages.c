/* POST /v1/replication/pages. */
#include "serve_private.h"

#include <stdlib.h>

struct serve_answer {
	struct pages_stream *stream;
};

static ssize_t serve_pages_read(void *arg, uint64_t at, char *out, size_t cap)
{
	struct serve_answer *answer = arg;
	size_t got;

	(void)at;
	pages_stream_read(answer->stream, out, cap, &got);
	return got > 0 ? (ssize_t)got : MHD_CONTENT_READER_END_OF_STREAM;
}

static void serve_pages_free(void *arg)
{
	struct serve_answer *answer = arg;

	pages_stream_close(answer->stream);
	free(answer);
}

static enum MHD_Result serve_pages_send(
	struct serve_request *request, struct MHD_Connection *connection, struct pages_stream *stream)
{
	struct serve_problem problem = {.status = 503, .code = "unavailable", .detail = "no memory for pages"};
	struct serve_answer *answer = calloc(1, sizeof(*answer));
	struct MHD_Response *response;
	enum MHD_Result queued;

	if (!answer) {
		pages_stream_close(stream);
		return serve_problem(request, connection, &problem);
	}
	answer->stream = stream;
	response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, 128 * 1024, serve_pages_read, answer, serve_pages_free);
	if (!response) {
		serve_pages_free(answer);
		return serve_problem(request, connection, &problem);
	}
	request->serve->pages_answers++;
	serve_headers(request, response, pages_stream_position(stream));
	MHD_add_response_header(response, "Content-Type", "application/vnd.btree-store.pages");
	queued = MHD_queue_response(connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return queued;
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
