/*
 * Roles and scrubs over HTTP: promote, demote, follow, promise (R8, R9), scrub.  What they mean is the replicator's (admin.h).
 *
 * Each change may take seconds (it asks other nodes, waits for flushes), so none runs in a serving thread: the request is suspended
 * and a thread of its own does the work and resumes it.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "buf.h"
#include "handle.h"
#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"

struct handle_job {
	struct request *request;
	struct admin *admin;
};

static void job_free(void *arg)
{
	struct handle_job *job = arg;

	admin_free(job->admin);
	free(job);
}

static void job_reply(struct request *r, const struct admin *admin)
{
	const struct admin_reply *reply = admin_reply(admin);
	struct buf b = {0};

	for (unsigned i = 0; i < reply->header_count; i++)
		request_set_header(r, reply->headers[i].name, reply->headers[i].value);
	if (!reply->body) {
		reply_problem(r, reply->status, reply->code, NULL, "%s", reply->detail);
		return;
	}
	request_set_header(r, "Cache-Control", "no-store");
	buf_str(&b, reply->body);
	reply_buf(r, reply->status, "application/json", &b);
}

static void job_done(struct request *r)
{
	job_reply(r, ((struct handle_job *)r->state)->admin);
}

static void *job_main(void *arg)
{
	struct handle_job *job = arg;
	struct request *r = job->request;
	struct server *server = request_server(r);

	admin_run(job->admin);
	server_resume(&r, 1); /* which may be over, and the server on its way out, before this returns */
	atomic_fetch_sub(&server->jobs, 1);
	return NULL;
}

/* Takes the administration's job. */
static void job_start(struct request *r, struct admin *admin)
{
	struct handle_job *job = calloc(1, sizeof(*job));
	pthread_attr_t attributes;
	pthread_t thread;
	int os;

	if (!job) {
		admin_free(admin);
		reply_problem(r, 503, "out-of-memory", NULL, "no memory for it now");
		return;
	}
	job->request = r;
	job->admin = admin;
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

static void handle_job(struct request *r, enum admin_kind kind)
{
	struct admin *admin = admin_new(role_node(request_role(r)), kind);
	bool right = true;

	if (!admin) {
		reply_problem(r, 503, "out-of-memory", NULL, "no memory for it now");
		return;
	}
	for (const char *const *name = admin_params(kind); *name && right; name++) {
		const struct bts_slice *value = request_param(r, *name);

		right = !value || admin_param(admin, *name, *value);
	}
	right = right && admin_check(admin);
	if (right && admin_slow(kind)) {
		job_start(r, admin);
		return;
	}
	if (right)
		admin_run(admin);
	job_reply(r, admin);
	admin_free(admin);
}

void handle_role(struct request *r)
{
	handle_job(r, ADMIN_ROLE);
}

void handle_promote(struct request *r)
{
	handle_job(r, ADMIN_PROMOTE);
}

void handle_demote(struct request *r)
{
	handle_job(r, ADMIN_DEMOTE);
}

void handle_follow(struct request *r)
{
	handle_job(r, ADMIN_FOLLOW);
}

void handle_promise(struct request *r)
{
	handle_job(r, ADMIN_PROMISE);
}

void handle_scrub_get(struct request *r)
{
	handle_job(r, ADMIN_SCRUB_STATUS);
}

void handle_scrub_post(struct request *r)
{
	handle_job(r, ADMIN_SCRUB);
}
