/* Scrubbing over HTTP: begin it in the background, and see how far it is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "handle.h"
#include "jsonout.h"
#include "repair.h"
#include "reply.h"
#include "request.h"
#include "role.h"

#define HANDLE_PEERS_MAX 4096

static void scrub_reply(struct request *r, unsigned status, const struct repair_status *now)
{
	struct buf b = {0};

	buf_printf(&b,
		"{\"running\":%s,\"ended\":%s,\"pages_read\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"damaged\":%" PRIu64
		",\"repaired\":%" PRIu64 ",\"lost\":%zu,\"snapshots_hidden\":%s,\"lost_pages\":[",
		now->running ? "true" : "false", now->ended ? "true" : "false", now->scrub.done, now->scrub.total,
		now->scrub.damaged, now->scrub.repaired, now->lost, now->scrub.hidden ? "true" : "false");
	for (size_t i = 0; i < now->lost && i < REPAIR_LISTED; i++)
		buf_printf(&b, "%s{\"page\":%" PRIu64 ",\"pages\":%" PRIu32 ",\"birth\":%" PRIu64 "}", i ? "," : "",
			now->listed[i].pgno, now->listed[i].count, now->listed[i].birth);
	buf_str(&b, "],\"error\":");
	jsonout_string(&b, now->error.code ? now->error.text : "");
	buf_str(&b, "}\n");
	request_set_header(r, "Cache-Control", "no-store");
	reply_buf(r, status, "application/json", &b);
}

void handle_scrub_get(struct request *r)
{
	struct repair_status *now = calloc(1, sizeof(*now));

	if (!now)
		reply_problem(r, 503, "unavailable", NULL, "no memory");
	else if (!role_scrub_status(request_role(r), now))
		reply_problem(r, 404, "not-found", NULL, "nothing was scrubbed since this process began");
	else
		scrub_reply(r, 200, now);
	free(now);
}

/* Decimal digits alone; 0 is no rate. */
static int scrub_rate(const struct bts_slice *text, uint64_t *rate)
{
	const char *digits = text->data;

	*rate = 0;
	for (size_t i = 0; i < text->size; i++) {
		if (digits[i] < '0' || digits[i] > '9' || *rate > (UINT64_C(1) << 50))
			return 0;
		*rate = *rate * 10 + (uint64_t)(digits[i] - '0');
	}
	return *rate >= 4096;
}

void handle_scrub_post(struct request *r)
{
	const struct bts_slice *from = request_param(r, "from"), *rate = request_param(r, "rate");
	struct role *role = request_role(r);
	struct bts_error error = {0};
	char peers[HANDLE_PEERS_MAX];
	struct repair_status *now;
	uint64_t bytes = 0;
	enum bts_err err;

	if ((from && (from->size >= sizeof(peers) || memchr(from->data, 0, from->size))) || (rate && !scrub_rate(rate, &bytes))) {
		reply_problem(r, 400, "invalid-parameter", NULL,
			"from is a list of URLs with commas between, rate bytes a second, 4096 or more");
		return;
	}
	snprintf(peers, sizeof(peers), "%.*s", from ? (int)from->size : 0, from ? (const char *)from->data : "");
	err = role_scrub(role, from ? peers : role_source_url(role), bytes, &error);
	now = err ? NULL : calloc(1, sizeof(*now));
	if (err == BTS_BUSY)
		reply_problem(r, 409, "busy", NULL, "%s", error.text);
	else if (err || !now || !role_scrub_status(role, now))
		reply_problem(r, 503, "unavailable", NULL, "%s", err ? error.text : "no memory");
	else
		scrub_reply(r, 202, now);
	free(now);
}
