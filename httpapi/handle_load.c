/*
 * Bulk load: POST /v1/buckets/{bucket}/load, a record of NDJSON a line.
 *
 * Records are parsed as they come and given to the writer in chunks, each one commit; while a chunk is being
 * written the connection is suspended, so the client is held back by the disk and at most one chunk is in
 * memory.  Lines are short enough for that, and what is held of them counts as body memory.  The first failure
 * ends the load: what was committed before stays, and the reply names the line and the counts.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "durable.h"
#include "handle.h"
#include "lines.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"

#define LOAD_CHUNK_PAIRS 1000
#define LOAD_CHUNK_BYTES ((size_t)1 << 20)
#define LOAD_LINE_MAX ((size_t)8 << 20)

struct load_place {
	size_t key, key_size, value, value_size; /* in the arena */
};

struct load {
	struct lines lines;
	struct buf arena;
	struct load_place places[LOAD_CHUNK_PAIRS];
	struct writer_pair pairs[LOAD_CHUNK_PAIRS];
	size_t count;
	uint64_t records, commits, bytes; /* committed */
	int finishing;
};

static void load_free(void *state)
{
	struct load *l = state;

	lines_fini(&l->lines);
	buf_fini(&l->arena);
	free(l);
}

/* NULL after a refusal. */
static struct load *load_state(struct request *r)
{
	size_t max_body = SETTINGS_NOW(request_server(r)->config->max_body);
	struct load *l = r->state;

	if (l || r->early_status || handle_ttl(r, &r->op.ttl_ms))
		return l;
	l = calloc(1, sizeof(*l));
	if (!l) {
		snprintf(r->problem, sizeof(r->problem), "out of memory");
		request_refuse(r, 503, "out-of-memory");
		return NULL;
	}
	lines_init(&l->lines, max_body < LOAD_LINE_MAX ? max_body : LOAD_LINE_MAX);
	r->state = l;
	r->state_free = load_free;
	return l;
}

/* Nothing of the load is needed after it. */
static void load_refuse(struct request *r, unsigned status, const char *code, uint64_t line, const char *why)
{
	struct load *l = r->state;
	char at[32] = "";

	if (line)
		snprintf(at, sizeof(at), ",\"line\":%" PRIu64, line);
	snprintf(r->early_extra, sizeof(r->early_extra), "%s,\"records\":%" PRIu64 ",\"commits\":%" PRIu64,
		at, l->records, l->commits);
	if (line)
		snprintf(r->problem, sizeof(r->problem), "line %" PRIu64 ": %.120s", line, why);
	else
		snprintf(r->problem, sizeof(r->problem), "%.159s", why);
	request_refuse(r, status, code);
	lines_fini(&l->lines);
	buf_fini(&l->arena);
	(void)request_hold(r, 0);
}

static void load_refuse_long(struct request *r)
{
	struct load *l = r->state;
	char why[80];

	snprintf(why, sizeof(why), "longer than the %zu bytes that a line may have", l->lines.max);
	load_refuse(r, 413, "line-too-long", l->lines.number + 1, why);
}

/* 0, or -1 after a refusal. */
static int load_hold(struct request *r, uint64_t line)
{
	struct load *l = r->state;

	if (!request_hold(r, l->lines.held.cap + l->arena.cap))
		return 0;
	load_refuse(r, 503, "unavailable", line, "no memory for this line now");
	return -1;
}

/* ---- chunks ---- */

static void load_reply(struct request *r)
{
	struct load *l = r->state;
	struct buf b = {0};

	r->token = 1;
	buf_printf(&b,
		"{\"records\":%" PRIu64 ",\"lines\":%" PRIu64 ",\"commits\":%" PRIu64 ",\"bytes\":%" PRIu64
		",\"txid\":%" PRIu64,
		l->records, l->lines.number, l->commits, l->bytes, (uint64_t)r->txid);
	durable_members(r, &b);
	buf_str(&b, "}\n");
	reply_buf(r, r->unreached ? 202 : 200, "application/json", &b);
}

static void load_written(struct request *r)
{
	struct load *l = r->state;
	const char *code;
	unsigned status;

	r->txid = r->op.txid;
	if (r->op.result == WRITER_NO_BUCKET) {
		load_refuse(r, 404, "bucket-not-found", 0, "there is no such bucket");
		return;
	}
	if (r->op.result == WRITER_FAILED) {
		role_met(request_role(r), r->op.error.code, &r->op.error);
		status = reply_meaning(r->op.error.code, &code);
		load_refuse(r, status, code, 0, r->op.error.text);
		return;
	}
	l->records += l->count;
	l->commits += l->count > 0;
	l->bytes += l->arena.size;
	l->count = 0;
	l->arena.size = 0;
	if (l->finishing)
		durable_await(r, load_reply); /* the last commit's copies hold those before it */
}

static void load_submit(struct request *r)
{
	struct load *l = r->state;
	size_t i;

	for (i = 0; i < l->count; i++) {
		const struct load_place *p = &l->places[i];

		l->pairs[i].key = (struct bts_slice){l->arena.data + p->key, p->key_size};
		l->pairs[i].value = (struct bts_slice){l->arena.data + p->value, p->value_size};
	}
	r->op.kind = WRITER_LOAD;
	r->op.bucket = r->bucket;
	r->op.pairs = l->pairs;
	r->op.pair_count = l->count;
	r->op.bytes = l->arena.size;
	r->op.owner = r;
	if (!l->commits)
		durable_expect(r);
	r->part = REQUEST_QUEUE;
	r->loop->wrote = 1;
	if (writer_append(request_server(r)->writer, &r->op))
		load_refuse(r, 503, "write-queue-full", 0, "too many writes are waiting for the disk");
	else
		request_suspend(r, load_written);
}

/* 1 when a full chunk was submitted, 0 to go on, -1 after a refusal. */
static int load_line(struct request *r, struct bts_slice line)
{
	struct load *l = r->state;
	struct load_place *p = &l->places[l->count];
	struct input_record record;
	const char *code;
	char why[160];

	if (!line.size)
		return 0;
	code = input_record_parse(&record, line, why);
	if (code) {
		load_refuse(r, 400, code, l->lines.number, why);
		return -1;
	}
	*p = (struct load_place){
		l->arena.size, record.key.size, l->arena.size + record.key.size, record.value.size};
	buf_add(&l->arena, record.key.data, record.key.size);
	buf_add(&l->arena, record.value.data, record.value.size);
	input_record_fini(&record);
	if (l->arena.failed) {
		load_refuse(r, 503, "out-of-memory", l->lines.number, "out of memory");
		return -1;
	}
	if (load_hold(r, l->lines.number))
		return -1;
	l->count++;
	if (l->count < LOAD_CHUNK_PAIRS && l->arena.size < LOAD_CHUNK_BYTES)
		return 0;
	load_submit(r);
	return r->early_status ? -1 : 1;
}

size_t handle_load_feed(struct request *r, const char *data, size_t size)
{
	struct load *l = load_state(r);
	size_t used = 0, n;
	struct bts_slice line;
	enum lines_got got;

	while (l && used < size) {
		got = lines_next(&l->lines, data + used, size - used, &n, &line);
		used += n;
		if (got == LINES_TOO_LONG)
			load_refuse_long(r);
		else if (got == LINES_MEMORY)
			load_refuse(r, 503, "out-of-memory", l->lines.number + 1, "out of memory");
		else if (got == LINES_LINE && load_line(r, line) == 1)
			return used;
		else if (got == LINES_MORE)
			(void)load_hold(r, l->lines.number + 1);
		if (r->early_status)
			break;
	}
	return r->early_status ? size : used;
}

void handle_load(struct request *r)
{
	struct load *l = load_state(r);
	struct bts_slice line;

	if (!l)
		return;
	if (!l->finishing) {
		l->finishing = 1;
		if (lines_last(&l->lines, &line) == LINES_LINE && load_line(r, line))
			return;
	}
	/* Nothing at all still asks the writer, who knows whether there is such a bucket. */
	if (l->count || !l->commits)
		load_submit(r);
	else
		durable_await(r, load_reply);
}
