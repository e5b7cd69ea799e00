/*
 * Tokens over HTTP.  The file is written and flushed by another thread (work.h), while the request is suspended: serving threads do
 * not wait for the disk.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "guard.h"
#include "handle.h"
#include "jsonout.h"
#include "log.h"
#include "reply.h"
#include "request.h"
#include "server.h"
#include "work.h"

struct token_job {
	struct work_job work;
	struct keyring *keyring;
	int revoke;
	char id[KEYRING_ID_SIZE]; /* to revoke */
	struct keyring_entry entry;
	char token[KEYRING_TOKEN_SIZE];
	enum bts_err err;
	struct bts_error error;
};

static void token_job_free(void *arg)
{
	struct token_job *job = arg;

	explicit_bzero(job->token, sizeof(job->token));
	free(job);
}

/* What of an entry may be known. */
static void token_members(struct buf *b, const struct keyring_entry *e)
{
	char id[KEYRING_ID_SIZE], scopes[KEYRING_SCOPES_SIZE], expires[24] = "null";

	keyring_id(e->sum, id);
	keyring_scopes_text(e->scopes, scopes);
	if (e->expires_s)
		snprintf(expires, sizeof(expires), "%" PRIu64, e->expires_s);
	buf_printf(b,
		"\"id\":\"%s\",\"name\":\"%s\",\"scope\":\"%s\",\"bucket\":\"%s\",\"created_s\":%" PRIu64
		",\"expires_s\":%s",
		id, e->name, scopes, e->buckets, e->created_s, expires);
}

static struct keyring *token_keyring(struct request *r)
{
	struct keyring *keyring = guard_keyring(request_server(r)->guard);

	if (!keyring)
		reply_problem(r, 409, "no-token-file", NULL, "this server runs without --token-file");
	return keyring;
}

void handle_tokens_get(struct request *r)
{
	struct keyring *keyring = token_keyring(r);
	struct bts_error error = {0};
	struct keyring_list list;
	struct buf b = {0};

	if (!keyring)
		return;
	if (keyring_load(keyring_path(keyring), &list, &error)) {
		reply_problem(r, 500, "io-error", NULL, "%s", error.text);
		return;
	}
	buf_str(&b, "{\"items\":[");
	for (size_t i = 0; i < list.count; i++) {
		buf_str(&b, i ? ",{" : "{");
		token_members(&b, &list.entries[i]);
		buf_str(&b, "}");
	}
	buf_str(&b, "],\"next\":null}\n");
	keyring_list_free(&list);
	request_set_header(r, "Cache-Control", "no-store");
	reply_buf(r, 200, "application/json", &b);
}

static void token_done(struct request *r)
{
	struct token_job *job = r->state;
	struct buf b = {0};

	request_set_header(r, "Cache-Control", "no-store");
	if (job->err == BTS_NOT_FOUND) {
		reply_problem(r, 404, "not-found", NULL, "%s", job->error.text);
	} else if (job->err == BTS_LIMIT) {
		reply_problem(r, 409, "too-many-tokens", NULL, "%s", job->error.text);
	} else if (job->err) {
		reply_problem(r, 500, "io-error", NULL, "%s", job->error.text);
	} else if (job->revoke) {
		reply_empty(r, 204);
	} else {
		buf_str(&b, "{");
		token_members(&b, &job->entry);
		buf_printf(&b, ",\"token\":\"%s\"}\n", job->token);
		reply_buf(r, 201, "application/json", &b);
	}
}

static int token_run(struct work_job *work)
{
	struct token_job *job = (struct token_job *)work;
	const char *path = keyring_path(job->keyring);

	if (job->revoke)
		job->err = keyring_revoke(path, job->id, &job->error);
	else
		job->err = keyring_create(path, &job->entry, job->token, &job->error);
	if (job->err)
		return 0;
	if (!job->revoke)
		keyring_id(job->entry.sum, job->id);
	job->err = keyring_reload(job->keyring, &job->error);
	log_event("info", job->revoke ? "token-revoked" : "token-created",
		LOG_FIELDS(LOG_TEXT("id", job->id), LOG_TEXT("request", work->owner->id)));
	return 0;
}

/* Takes the job. */
static void token_start(struct request *r, struct token_job *job)
{
	job->work.step = token_run;
	job->work.owner = r;
	r->state = job;
	r->state_free = token_job_free;
	work_queue(request_server(r)->work, &job->work);
	request_suspend(r, token_done);
}

/* The parameter as text; -1 after a reply when it is too long, 0 when absent. */
static int token_param(struct request *r, const char *name, char *out, size_t size)
{
	const struct bts_slice *value = request_param(r, name);

	if (!value)
		return 0;
	if (value->size >= size || memchr(value->data, 0, value->size)) {
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter %s is too long", name);
		return -1;
	}
	memcpy(out, value->data, value->size);
	out[value->size] = '\0';
	return 1;
}

/* NULL, or the name of the parameter that is wrong. */
static const char *token_wish(struct keyring_entry *e, const char *scope, const char *expires)
{
	if (!keyring_scopes_parse(scope, &e->scopes))
		return "scope";
	if (!e->buckets[0])
		strcpy(e->buckets, "*");
	if (!keyring_buckets_valid(e->buckets) || !keyring_limit_fits(e))
		return "bucket";
	if (!keyring_expiry_parse(expires, &e->expires_s))
		return "expires";
	return keyring_name_valid(e->name) ? NULL : "name";
}

void handle_tokens_post(struct request *r)
{
	char scope[KEYRING_SCOPES_SIZE] = "", expires[16] = "0";
	struct keyring *keyring = token_keyring(r);
	struct token_job *job;
	const char *wrong;

	if (!keyring)
		return;
	job = calloc(1, sizeof(*job));
	if (!job) {
		reply_problem(r, 503, "out-of-memory", NULL, "no memory for it now");
		return;
	}
	job->keyring = keyring;
	if (token_param(r, "scope", scope, sizeof(scope)) < 0 ||
		token_param(r, "expires", expires, sizeof(expires)) < 0 ||
		token_param(r, "bucket", job->entry.buckets, sizeof(job->entry.buckets)) < 0 ||
		token_param(r, "name", job->entry.name, sizeof(job->entry.name)) < 0) {
		token_job_free(job);
		return;
	}
	wrong = token_wish(&job->entry, scope, expires);
	if (wrong) {
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter %s can not be that", wrong);
		token_job_free(job);
		return;
	}
	token_start(r, job);
}

void handle_tokens_delete(struct request *r)
{
	struct keyring *keyring = token_keyring(r);
	struct token_job *job;
	int there;

	if (!keyring)
		return;
	job = calloc(1, sizeof(*job));
	if (!job) {
		reply_problem(r, 503, "out-of-memory", NULL, "no memory for it now");
		return;
	}
	job->keyring = keyring;
	job->revoke = 1;
	there = token_param(r, "id", job->id, sizeof(job->id));
	if (there > 0) {
		token_start(r, job);
		return;
	}
	if (!there)
		reply_problem(r, 400, "invalid-parameter", NULL, "the parameter id says which");
	token_job_free(job);
}
