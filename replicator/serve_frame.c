/*
 * A frame as an answer, and what it may cost.
 *
 * While a frame is sent its snapshot keeps pages from being reused, and the file grows by as much as is overwritten
 * meanwhile.  A follower that trickles, or a link that is too slow for the writer, must not decide how much that is.
 * So a frame of which too little is taken in a while, or whose snapshot holds more than a budget, is broken off; a first transfer goes on
 * from there with the next request, to a newer commit.
 */
#include "serve_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SERVE_BLOCK (128 * 1024) /* bytes libmicrohttpd asks a frame for at a time */
#define SERVE_WATCH_MS 1000	 /* between two looks at what frames cost, at least */
#define SERVE_WATCH_SHARE 20	 /* and at most one part in so many of the time is spent on it */

static ssize_t serve_frame_read(void *arg, uint64_t at, char *out, size_t cap)
{
	struct serve_frame *frame = arg;
	struct bts_error error;
	size_t got;

	(void)at;
	/* Nor is a follower slow that has to wait for its turn. */
	if (!frame->broken) {
		cap = serve_pace_take(&frame->turn, frame->serve, cap);
		if (!cap) {
			frame->since_ms = serve_now_ms();
			return 0;
		}
	}
	if (source_stream_read(frame->stream, out, cap, &got, &error)) {
		repl_emit(&frame->serve->events, frame->broken ? REPL_WARN : REPL_ERROR, "frame-broken", "follower %s: %s",
			frame->follower[0] ? frame->follower : "-", frame->broken ? frame->broken : error.text);
		return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	pace_return(&frame->serve->pace, cap - got);
	frame->bytes += got;
	/* A source that is not ready is not a follower that is slow. */
	if (source_stream_held(frame->stream))
		frame->since_ms = serve_now_ms();
	return got > 0 ? (ssize_t)got : MHD_CONTENT_READER_END_OF_STREAM;
}

static void serve_frame_free(void *arg)
{
	struct serve_frame *frame = arg;
	struct serve *serve = frame->serve;

	if (frame->prev)
		frame->prev->next = frame->next;
	else if (serve->frames == frame)
		serve->frames = frame->next;
	if (frame->next)
		frame->next->prev = frame->prev;
	serve_pace_leave(&frame->turn);
	source_stream_close(frame->stream);
	free(frame);
}

static struct serve_frame *serve_frame_new(
	struct serve_request *request, struct MHD_Connection *connection, struct bts_error *error)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct serve_frame *frame = calloc(1, sizeof(*frame));
	struct serve *serve = request->serve;

	if (!frame) {
		fail_set(error, BTS_MEMORY, "no memory for a frame");
		return NULL;
	}
	if (source_stream_open(&serve->source, &request->query, &frame->stream, error)) {
		free(frame);
		return NULL;
	}
	frame->serve = serve;
	frame->turn.connection = connection;
	frame->fd = info ? info->connect_fd : -1;
	memcpy(frame->follower, request->query.follower, sizeof(frame->follower));
	frame->since_ms = serve_now_ms();
	frame->next = serve->frames;
	if (frame->next)
		frame->next->prev = frame;
	serve->frames = frame;
	return frame;
}

/* For a first transfer, so that it can say how far it has come.  What is free is part of it, as page numbers are what it goes by. */
static void serve_tell_size(struct serve *serve, struct MHD_Response *response)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	char text[24];

	if (bts_stat(serve->db, &stat, NULL))
		return;
	snprintf(text, sizeof(text), "%" PRIu64, stat.pages * stat.page_size);
	MHD_add_response_header(response, "BTS-Size", text);
}

enum MHD_Result serve_send_frame(struct serve_request *request, struct MHD_Connection *connection)
{
	struct serve_problem problem = {
		.status = 503, .code = "unavailable", .detail = "no memory for a frame"};
	struct MHD_Response *response;
	struct bts_error error;
	struct serve_frame *frame = serve_frame_new(request, connection, &error);

	if (!frame) {
		problem.detail = error.text;
		return serve_problem(request, connection, &problem);
	}
	response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, SERVE_BLOCK, serve_frame_read, frame, serve_frame_free);
	if (!response) {
		serve_frame_free(frame);
		return serve_problem(request, connection, &problem);
	}
	if (!request->query.after.txid)
		serve_tell_size(request->serve, response);
	source_stream_digest(frame->stream, request->digest);
	request->has_digest = true;
	serve_headers(request, response, source_stream_target(frame->stream));
	MHD_add_response_header(response, "Content-Type", "application/vnd.btree-store.frame");
	return serve_queue(request, connection, MHD_HTTP_OK, response);
}

/* The snapshot goes at once; libmicrohttpd finds the connection closed. */
static void serve_break(struct serve_frame *frame, const char *why)
{
	if (frame->broken)
		return;
	frame->broken = why;
	source_stream_break(frame->stream);
	if (frame->fd >= 0)
		shutdown(frame->fd, SHUT_RDWR);
	serve_pace_wake(&frame->turn);
	repl_emit(&frame->serve->events, REPL_WARN, "frame-expired", "follower %s, commit %" PRIu64 ": %s",
		frame->follower[0] ? frame->follower : "-", source_stream_target(frame->stream)->txid, why);
}

static void serve_watch_speed(struct serve *serve, uint64_t now)
{
	struct serve_frame *frame;

	for (frame = serve->frames; frame; frame = frame->next) {
		if (frame->bytes >= SERVE_LEAST_BYTES) {
			frame->bytes = 0;
			frame->since_ms = now;
		} else if (now - frame->since_ms >= serve->slow_ms) {
			serve_break(frame, "taken too slowly");
		}
	}
}

struct serve_pins {
	struct serve *serve;
	uint64_t limit;
};

static void serve_on_reader(void *arg, const struct bts_reader_info *info)
{
	struct serve_pins *pins = arg;
	struct serve_frame *frame;

	if (!info->own || info->held_bytes <= pins->limit)
		return;
	for (frame = pins->serve->frames; frame; frame = frame->next)
		if (source_stream_target(frame->stream)->txid == info->txid)
			serve_break(frame, "its snapshot holds more than the limit");
	serve_pages_expire(pins->serve, info->txid);
}

/* A snapshot of the newest commit holds nothing. */
static bool serve_pins_any(const struct serve *serve)
{
	uint64_t head = atomic_load(&serve->head);
	const struct serve_frame *frame;

	for (frame = serve->frames; frame; frame = frame->next)
		if (!frame->broken && source_stream_target(frame->stream)->txid < head)
			return true;
	return pages_pins_before(serve->pins, head);
}

void serve_watch(struct serve *serve)
{
	struct serve_pins pins = {serve, serve->pin_limit};
	struct bts_stat stat = {.size = sizeof(stat)};
	uint64_t now, took;

	if (!serve->db || (!serve->frames && !pages_pins_before(serve->pins, UINT64_MAX)))
		return;
	now = serve_now_ms();
	if (now < serve->watch_ms)
		return;
	serve_watch_speed(serve, now);
	serve_pages_watch(serve, now);
	serve->watch_ms = now + SERVE_WATCH_MS;
	if (!serve_pins_any(serve))
		return;
	if (!pins.limit && !bts_stat(serve->db, &stat, NULL))
		pins.limit = stat.file_bytes / 4 > SERVE_PIN_LEAST ? stat.file_bytes / 4 : SERVE_PIN_LEAST;
	if (!pins.limit || bts_readers(serve->db, serve_on_reader, &pins, NULL))
		return; /* looked at again in a moment */
	took = (serve_now_ms() - now) * SERVE_WATCH_SHARE;
	if (took > SERVE_WATCH_MS)
		serve->watch_ms = now + took;
}
