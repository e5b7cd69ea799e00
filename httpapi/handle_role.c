/*
 * Roles over HTTP: promote, demote, follow, promise (R8, R9).
 *
 * Each may take seconds (it asks other nodes, waits for flushes), so none runs in a serving thread: the request is suspended and
 * a thread of its own does the work and resumes it.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "elect.h"
#include "handle.h"
#include "position.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "sources.h"

#define HANDLE_URLS_MAX 4096

struct handle_job {
	struct request *request;
	struct role *role;
	void (*run)(struct handle_job *);
	/* asked for */
	char *members, *source, *primary_url; /* owned, NULL: not given */
	unsigned survive;
	bool has_expect, has_digest;
	struct bts_position expect;
	uint8_t digest[16], database[16];
	/* became of it */
	enum bts_err err;
	const char *code; /* "", or what the election says */
	char why[ELECT_WHY_SIZE];
	struct bts_error error;
	struct bts_role now;
};

static void job_free(void *arg)
{
	struct handle_job *job = arg;

	free(job->members);
	free(job->source);
	free(job->primary_url);
	free(job);
}

/* The parameter as a string (owned), NULL when absent or longer than can be; *long tells which. */
static char *job_text(struct request *r, const char *name, bool *refused)
{
	const struct bts_slice *value = request_param(r, name);
	char *text;

	if (!value || *refused)
		return NULL;
	text = value->size <= HANDLE_URLS_MAX && !memchr(value->data, 0, value->size) ? malloc(value->size + 1) : NULL;
	if (!text) {
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter %s can not be that", name);
		*refused = true;
		return NULL;
	}
	memcpy(text, value->data, value->size);
	text[value->size] = '\0';
	return text;
}

/* As job_text, given to parse, which says whether it is well-formed.  True: it was there. */
static bool job_parse(struct request *r, const char *name, bool (*parse)(const char *text, struct handle_job *),
	struct handle_job *job, bool *refused)
{
	char *text = job_text(r, name, refused);
	bool right = text && parse(text, job), there = text != NULL;

	free(text);
	if (there && !right) {
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter %s is malformed", name);
		*refused = true;
	}
	return right;
}

static bool job_parse_expect(const char *text, struct handle_job *job)
{
	return position_parse(text, &job->expect);
}

static bool job_parse_digest(const char *text, struct handle_job *job)
{
	return position_hex_parse(text, job->digest, sizeof(job->digest));
}

static bool job_parse_epoch(const char *text, struct handle_job *job)
{
	return position_epoch_parse(text, &job->expect) && job->expect.epoch > 0;
}

static bool job_parse_database(const char *text, struct handle_job *job)
{
	return position_hex_parse(text, job->database, sizeof(job->database));
}

static bool job_parse_source(const char *text, struct handle_job *job)
{
	struct sources sources;

	(void)job;
	return !sources_parse(&sources, text, NULL);
}

static void job_position(struct request *r, struct buf *b, const struct bts_role *now)
{
	static const char *const words[] = {"", "primary", "follower", "fenced"};
	char text[POSITION_TEXT_SIZE], id[POSITION_ID_SIZE], digest[POSITION_ID_SIZE], chain[POSITION_ID_SIZE], number[24];

	position_text(&now->position, text);
	position_hex(now->position.database, 16, id);
	position_hex(now->position.chain, 16, chain);
	position_hex(now->digest, 16, digest);
	snprintf(number, sizeof(number), "%" PRIu32, now->promised);
	request_set_header(r, "BTS-Position", text);
	request_set_header(r, "BTS-Database", id);
	request_set_header(r, "BTS-Digest", digest);
	buf_printf(b,
		"{\"role\":\"%s\",\"position\":\"%s\",\"root_digest\":\"%s\",\"database_id\":\"%s\",\"epoch\":%" PRIu32
		",\"epoch_random\":\"%016" PRIx64 "\",\"txid\":%" PRIu64 ",\"chain\":\"%s\",\"promised_epoch\":%s}\n",
		words[now->role], text, digest, id, now->position.epoch, now->position.epoch_random,
		(uint64_t)now->position.txid, chain, now->promised ? number : "null");
}

static void job_reply_role(struct request *r, const struct bts_role *now)
{
	struct buf b = {0};

	request_set_header(r, "Cache-Control", "no-store");
	job_position(r, &b, now);
	reply_buf(r, 200, "application/json", &b);
}

/* What these calls fail with means something else than where keys are read. */
static void job_refuse(struct request *r, struct handle_job *job)
{
	static const struct {
		enum bts_err err;
		unsigned status;
		const char *code;
	} meanings[] = {
		{BTS_EXISTS, 409, "already-primary"},
		{BTS_DIVERGED, 409, "unexpected-position"},
		{BTS_FENCED, 409, "promised"},
		{BTS_BUSY, 409, "busy"},
		{BTS_INVALID, 409, "wrong-role"},
		{BTS_NOT_FOUND, 503, "unavailable"},
	};

	if (*job->code) {
		request_set_header(r, "BTS-Error", job->code);
		reply_problem(r, 409, job->code, NULL, "%s", job->why);
		return;
	}
	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
		if (meanings[i].err == job->err) {
			request_set_header(r, "BTS-Error", meanings[i].code);
			reply_problem(r, meanings[i].status, meanings[i].code, NULL, "%s", job->error.text);
			return;
		}
	}
	reply_error(r, job->err, &job->error);
}

static void job_done(struct request *r)
{
	struct handle_job *job = r->state;
	char number[24];

	if (job->err == BTS_FENCED && job->now.position.epoch) { /* what a candidate has to bid above */
		uint32_t epoch = job->now.position.epoch > job->now.promised ? job->now.position.epoch : job->now.promised;

		snprintf(number, sizeof(number), "%" PRIu32, epoch);
		request_set_header(r, "BTS-Promised", number);
	}
	if (job->err || *job->code)
		job_refuse(r, job);
	else
		job_reply_role(r, &job->now);
}

static void *job_main(void *arg)
{
	struct handle_job *job = arg;
	struct request *r = job->request;
	struct server *server = request_server(r);

	job->run(job);
	server_resume(&r, 1); /* which may be over, and the server on its way out, before this returns */
	atomic_fetch_sub(&server->jobs, 1);
	return NULL;
}

/* Takes the job. */
static void job_start(struct request *r, struct handle_job *job)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int os;

	job->request = r;
	job->role = request_role(r);
	job->code = "";
	r->state = job;
	r->state_free = job_free;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* Only this thread takes up what is resumed, so it is not before it was suspended. */
	atomic_fetch_add(&request_server(r)->jobs, 1);
	os = pthread_create(&thread, &attributes, job_main, job);
	pthread_attr_destroy(&attributes);
	if (os)
		atomic_fetch_sub(&request_server(r)->jobs, 1);
	if (os)
		reply_problem(r, 503, "unavailable", NULL, "no thread for it now");
	else
		request_suspend(r, job_done);
}

static struct handle_job *job_new(struct request *r)
{
	struct handle_job *job = calloc(1, sizeof(*job));

	if (!job)
		reply_problem(r, 503, "out-of-memory", NULL, "no memory for it now");
	return job;
}

void handle_role(struct request *r)
{
	struct bts_role now;
	struct bts_error error = {0};
	enum bts_err err = role_info(request_role(r), &now, &error);

	if (err)
		reply_problem(r, 503, "unavailable", NULL, "%s", error.text);
	else
		job_reply_role(r, &now);
}

static void job_run_promote(struct handle_job *job)
{
	struct role_promotion wanted = {.members = job->members, .survive = job->survive};

	if (job->has_expect) {
		struct bts_role now;

		job->err = role_info(job->role, &now, &job->error);
		if (job->err)
			return;
		memcpy(job->expect.database, now.position.database, 16);
		wanted.expect = &job->expect;
	}
	if (job->has_digest)
		wanted.expect_digest = job->digest;
	job->err = role_promote(job->role, &wanted, &job->now, &job->code, job->why, &job->error);
}

void handle_promote(struct request *r)
{
	struct handle_job *job = job_new(r);
	struct bts_error error = {0};
	uint64_t survive = 0;
	struct elect elect;
	bool refused = false;
	int force;

	if (!job)
		return;
	job->members = job_text(r, "members", &refused);
	job->has_expect = job_parse(r, "expect", job_parse_expect, job, &refused);
	job->has_digest = job_parse(r, "digest", job_parse_digest, job, &refused);
	if (refused || request_param_u64(r, "survive", 0, ELECT_MEMBERS_MAX, &survive)) {
		job_free(job);
		return;
	}
	force = request_param_flag(r, "force");
	if (force < 0) {
		job_free(job);
		return;
	}
	job->survive = (unsigned)survive;
	if (job->members && elect_init(&elect, job->members, job->survive, &error)) {
		reply_problem(r, 400, "invalid-parameter", NULL, "%s", error.text);
		job_free(job);
		return;
	}
	if (!job->members && !(job->has_expect && job->has_digest) && !force) {
		reply_problem(r, 400, "invalid-parameter", NULL,
			"say who is asked (members and survive), or where this node must stand (expect and digest), or force");
		job_free(job);
		return;
	}
	job->run = job_run_promote;
	job_start(r, job);
}

static void job_run_demote(struct handle_job *job)
{
	job->err = role_demote(job->role, &job->now, &job->error);
	if (!job->err && job->source)
		job->err = role_follow(job->role, job->source, job->primary_url, &job->error);
}

static void job_run_follow(struct handle_job *job)
{
	job->err = role_follow(job->role, job->source, job->primary_url, &job->error);
	if (!job->err && role_info(job->role, &job->now, NULL))
		job->now.role = BTS_ROLE_FOLLOWER; /* nothing came yet */
}

static void handle_change(struct request *r, void (*run)(struct handle_job *), bool needs_source)
{
	struct handle_job *job = job_new(r);
	bool refused = false;

	if (!job)
		return;
	job->run = run;
	job->source = job_text(r, needs_source ? "url" : "upstream", &refused);
	if (job->source)
		(void)job_parse(r, needs_source ? "url" : "upstream", job_parse_source, job, &refused);
	job->primary_url = job_text(r, "primary_url", &refused);
	if (!refused && needs_source && !job->source) {
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter url says whom to follow");
		refused = true;
	}
	if (refused)
		job_free(job);
	else
		job_start(r, job);
}

void handle_demote(struct request *r)
{
	handle_change(r, job_run_demote, false);
}

void handle_follow(struct request *r)
{
	handle_change(r, job_run_follow, true);
}

static void job_run_promise(struct handle_job *job)
{
	job->err = role_promise(job->role, job->expect.epoch, job->expect.epoch_random, job->database, &job->now, &job->error);
}

void handle_promise(struct request *r)
{
	struct handle_job *job = job_new(r);
	bool refused = false, epoch, database;

	if (!job)
		return;
	job->run = job_run_promise;
	epoch = job_parse(r, "epoch", job_parse_epoch, job, &refused);
	database = job_parse(r, "database", job_parse_database, job, &refused);
	if (!refused && !(epoch && database)) {
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameters epoch and database are needed");
		refused = true;
	}
	if (refused)
		job_free(job);
	else
		job_start(r, job);
}
