/* Compaction over HTTP: begin it in the background, see how far it is, stop it. */
#include <inttypes.h>
#include <stdlib.h>

#include "compaction.h"
#include "handle.h"
#include "jsonout.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "work.h"

#define COMPACT_RATE_DEFAULT (UINT64_C(64) << 20)
#define COMPACT_RATE_LEAST 65536

static void compact_reply(struct request *r, unsigned status)
{
	struct compaction_status now;
	struct buf b = {0};

	compaction_status(request_server(r)->compaction, &now);
	if (!now.begun) {
		reply_problem(r, 404, "not-found", NULL, "nothing was compacted since this process began");
		return;
	}
	buf_printf(&b,
		"{\"running\":%s,\"ended\":%s,\"steps\":%" PRIu64 ",\"pages_moved\":%" PRIu64 ",\"pages_truncated\":%" PRIu64
		",\"bytes_before\":%" PRIu64 ",\"file_bytes\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"held_by_reader\":%" PRIu64
		",\"held_by_snapshot\":%" PRIu64 ",\"stuck_page\":%" PRIu64 ",\"error\":",
		now.running ? "true" : "false", now.ended ? "true" : "false", now.steps, now.pages_moved, now.pages_truncated,
		now.bytes_before, now.last.file_bytes, now.last.pages, (uint64_t)now.last.reader, (uint64_t)now.last.snapshot,
		now.last.stuck);
	jsonout_string(&b, now.error.code ? now.error.text : "");
	buf_str(&b, "}\n");
	request_set_header(r, "Cache-Control", "no-store");
	reply_buf(r, status, "application/json", &b);
}

void handle_compact_get(struct request *r)
{
	compact_reply(r, 200);
}

void handle_compact_post(struct request *r)
{
	uint64_t rate = COMPACT_RATE_DEFAULT;
	struct bts_error error = {0};
	enum bts_err err;

	if (request_param_u64(r, "rate", COMPACT_RATE_LEAST, UINT64_C(1) << 50, &rate))
		return;
	if (role_follows(request_role(r))) {
		reply_problem(r, 409, "wrong-role", NULL, "only a primary's file is compacted; a follower's is as its source's");
		return;
	}
	if (role_late(request_role(r))) {
		reply_error(r, BTS_FENCED, NULL);
		return;
	}
	err = compaction_start(request_server(r)->compaction, rate, &error);
	if (err == BTS_BUSY)
		reply_problem(r, 409, "busy", NULL, "a compaction is under way");
	else if (err)
		reply_problem(r, 503, "unavailable", NULL, "no thread for it now");
	else
		compact_reply(r, 202);
}

/* The end of the step under way is waited for by another thread. */
struct compact_stop {
	struct work_job job;
	int ran;
};

static int compact_stop(struct work_job *job)
{
	struct compact_stop *stop = (struct compact_stop *)job;

	stop->ran = compaction_stop(request_server(job->owner)->compaction);
	return 0;
}

static void compact_stopped(struct request *r)
{
	struct compact_stop *stop = r->state;

	if (stop->ran)
		compact_reply(r, 200);
	else
		reply_problem(r, 404, "not-found", NULL, "no compaction is under way");
}

void handle_compact_delete(struct request *r)
{
	struct compact_stop *stop = calloc(1, sizeof(*stop));

	if (!stop) {
		reply_error(r, BTS_MEMORY, NULL);
		return;
	}
	stop->job = (struct work_job){.step = compact_stop, .owner = r};
	r->state = stop;
	r->state_free = free;
	work_queue(request_server(r)->work, &stop->job);
	request_suspend(r, compact_stopped);
}
