/* GET /v1/replication/segments: which numbers this node's history has left out (R3), for whoever looks where histories part. */
#include "serve_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "position.h"

#define SEGMENTS_MAX 4096 /* the newest; a file has one for each opening after a crash and each epoch */

static void segments_print(FILE *out, const struct bts_position *head, const struct bts_segment *segments, size_t count)
{
	char text[POSITION_TEXT_SIZE], id[POSITION_ID_SIZE];

	position_hex(head->database, sizeof(head->database), id);
	position_text(head, text);
	fprintf(out, "{\"database_id\":\"%s\",\"position\":\"%s\",\"segments\":[", id, text);
	for (size_t i = 0; i < count; i++) {
		struct bts_position last = {
			.epoch = segments[i].epoch, .epoch_random = segments[i].epoch_random, .txid = segments[i].last};

		memcpy(last.chain, segments[i].chain, sizeof(last.chain));
		position_text(&last, text);
		fprintf(out, "%s{\"last\":\"%s\",\"first\":", i ? "," : "", text);
		if (segments[i].first)
			fprintf(out, "%" PRIu64 "}", segments[i].first);
		else
			fprintf(out, "null}");
	}
	fprintf(out, "]}\n");
}

enum MHD_Result serve_segments(struct serve_request *request, struct MHD_Connection *connection)
{
	struct serve_problem problem = {.status = 503, .code = "unavailable", .detail = "no memory for the segments"};
	struct bts_segment *segments = malloc(SEGMENTS_MAX * sizeof(*segments));
	enum MHD_Result result = MHD_NO;
	struct bts_position head;
	struct bts_error error;
	char *text = NULL;
	size_t size, count;
	FILE *out;

	out = segments ? open_memstream(&text, &size) : NULL;
	if (!out) {
		free(segments);
		return serve_problem(request, connection, &problem);
	}
	if (bts_ship_position(request->serve->db, &head, &error) ||
		bts_ship_segments(request->serve->db, segments, SEGMENTS_MAX, &count, &error)) {
		problem.detail = error.text;
		fclose(out);
		result = serve_problem(request, connection, &problem);
	} else {
		segments_print(out, &head, segments, count < SEGMENTS_MAX ? count : SEGMENTS_MAX);
		if (fclose(out) == 0)
			result = serve_text(request, connection, MHD_HTTP_OK, "application/json", text, &head);
	}
	free(text);
	free(segments);
	return result;
}
