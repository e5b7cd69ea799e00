/*
 * Roles and scrubs of the file's node (admin.h), where this server was given one.
 *
 * What takes long runs in a thread of its own while the request is suspended.  The thread puts the request into a list and wakes the loop,
 * which resumes it.  A stop cuts what runs short (node_cancel), and waits for it.
 */
#include "serve_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "query.h"

#define SERVE_ADMIN_VALUE 4097 /* bytes of a parameter, its end included */

struct serve_job {
	struct serve_request *request;
	struct serve_job *next; /* among the done */
	struct admin *admin;
	bool done; /* the loop's */
};

static const struct serve_task {
	const char *path;
	enum admin_kind get, post;
	bool has_get;
} serve_tasks[] = {
	{"/v1/admin/promote", ADMIN_ROLE, ADMIN_PROMOTE, true},
	{"/v1/admin/demote", ADMIN_ROLE, ADMIN_DEMOTE, true},
	{"/v1/admin/follow", ADMIN_ROLE, ADMIN_FOLLOW, true},
	{"/v1/admin/scrub", ADMIN_SCRUB_STATUS, ADMIN_SCRUB, true},
	{ELECT_PROMISE_PATH, ADMIN_ROLE, ADMIN_PROMISE, false},
};

static const struct serve_task *serve_find_task(const struct serve *serve, const char *url)
{
	size_t i;

	for (i = 0; serve->node && i < sizeof(serve_tasks) / sizeof(serve_tasks[0]); i++)
		if (strcmp(url, serve_tasks[i].path) == 0)
			return &serve_tasks[i];
	return NULL;
}

void serve_job_free(struct serve_job *job)
{
	if (!job)
		return;
	admin_free(job->admin);
	free(job);
}

static enum MHD_Result serve_admin_reply(struct serve_request *request, struct MHD_Connection *connection, const struct admin *admin)
{
	const struct admin_reply *reply = admin_reply(admin);
	struct serve_problem problem = {.status = reply->status, .code = reply->code, .detail = reply->detail};
	struct MHD_Response *response;

	if (!reply->body) {
		problem.more = reply;
		return serve_problem(request, connection, &problem);
	}
	response = MHD_create_response_from_buffer(strlen(reply->body), reply->body, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	serve_headers(request, response, NULL);
	serve_admin_headers(response, reply);
	MHD_add_response_header(response, "Content-Type", "application/json");
	return serve_queue(request, connection, reply->status, response);
}

void serve_admin_headers(struct MHD_Response *response, const struct admin_reply *reply)
{
	for (unsigned i = 0; i < reply->header_count; i++)
		if (strcmp(reply->headers[i].name, "BTS-Error") != 0) /* every problem has it */
			MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
}

/* ---- parameters ---- */

struct serve_arguments {
	struct admin *admin;
	enum admin_kind kind;
	unsigned seen; /* bits, by place among the names */
	const char *wrong;
	bool refused;
};

static enum MHD_Result serve_on_argument(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct serve_arguments *arguments = arg;
	const char *const *names = admin_params(arguments->kind);
	char decoded[SERVE_ADMIN_VALUE];
	unsigned i = 0;

	(void)kind;
	while (names[i] && strcmp(names[i], name) != 0)
		i++;
	if (!names[i])
		arguments->wrong = "an unknown query parameter";
	else if (arguments->seen & 1u << i)
		arguments->wrong = "a query parameter came twice";
	else if (!value || !query_unescape(value, decoded, sizeof(decoded)))
		arguments->wrong = "a query parameter is malformed or too long";
	else
		arguments->refused = !admin_param(arguments->admin, name, (struct bts_slice){decoded, strlen(decoded)});
	arguments->seen |= names[i] ? 1u << i : 0;
	return arguments->wrong || arguments->refused ? MHD_NO : MHD_YES;
}

/* ---- threads ---- */

static void *serve_job_main(void *arg)
{
	struct serve_job *job = arg;
	struct serve *serve = job->request->serve;

	admin_run(job->admin);
	pthread_mutex_lock(&serve->jobs_lock);
	job->next = serve->jobs_done;
	serve->jobs_done = job;
	serve->jobs_running--;
	serve_wake(serve);
	pthread_cond_signal(&serve->jobs_ended);
	pthread_mutex_unlock(&serve->jobs_lock); /* from here on the server may be gone */
	return NULL;
}

static bool serve_job_start(struct serve_job *job)
{
	struct serve *serve = job->request->serve;
	pthread_attr_t attributes;
	pthread_t thread;
	bool started;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&serve->jobs_lock);
	started = pthread_create(&thread, &attributes, serve_job_main, job) == 0;
	serve->jobs_running += started;
	pthread_mutex_unlock(&serve->jobs_lock);
	pthread_attr_destroy(&attributes);
	return started;
}

void serve_admin_resume(struct serve *serve)
{
	struct serve_job *done;

	pthread_mutex_lock(&serve->jobs_lock);
	while (atomic_load(&serve->stopping) && serve->jobs_running)
		pthread_cond_wait(&serve->jobs_ended, &serve->jobs_lock);
	done = serve->jobs_done;
	serve->jobs_done = NULL;
	pthread_mutex_unlock(&serve->jobs_lock);
	while (done) {
		struct serve_job *job = done;

		done = job->next;
		job->done = true;
		MHD_resume_connection(job->request->connection);
	}
}

/* ---- the request ---- */

unsigned serve_admin_scope(const struct serve *serve, const char *url)
{
	const struct serve_task *task = serve_find_task(serve, url);

	return !task ? 0 : task->post == ADMIN_PROMISE ? KEYRING_ELECT : KEYRING_ADMIN;
}

static enum MHD_Result serve_admin_begin(struct serve_request *request, struct MHD_Connection *connection, enum admin_kind kind)
{
	struct serve_problem problem = {.status = 400, .code = "invalid-parameter"};
	struct serve_job *job = request->job;
	struct serve_arguments arguments = {.admin = job->admin, .kind = kind};

	MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, serve_on_argument, &arguments);
	problem.detail = arguments.wrong;
	if (arguments.wrong)
		return serve_problem(request, connection, &problem);
	if (arguments.refused || !admin_check(job->admin))
		return serve_admin_reply(request, connection, job->admin);
	if (!admin_slow(kind)) {
		admin_run(job->admin);
		return serve_admin_reply(request, connection, job->admin);
	}
	/* The loop's last turn takes requests, too: nobody would wait for their threads. */
	if (atomic_load(&request->serve->stopping)) {
		problem = (struct serve_problem){.status = 503, .code = "unavailable", .detail = "stopping"};
		return serve_problem(request, connection, &problem);
	}
	request->connection = connection;
	MHD_suspend_connection(connection);
	if (serve_job_start(job))
		return MHD_YES;
	MHD_resume_connection(connection);
	problem = (struct serve_problem){.status = 503, .code = "unavailable", .detail = "no thread for it now"};
	return serve_problem(request, connection, &problem);
}

bool serve_admin(struct serve_request *request, struct MHD_Connection *connection, const char *url, const char *method,
	enum MHD_Result *result)
{
	const struct serve_task *task = serve_find_task(request->serve, url);
	struct serve_problem problem = {.status = 405,
		.code = "method-not-allowed",
		.detail = "this path does not have that method"};
	bool post = strcmp(method, "POST") == 0;
	enum admin_kind kind;

	if (!task)
		return false;
	if (request->job && request->job->done) {
		*result = serve_admin_reply(request, connection, request->job->admin);
		return true;
	}
	kind = post ? task->post : task->get;
	problem.allow = task->has_get ? "GET, POST" : "POST";
	if (post || (task->has_get && strcmp(method, "GET") == 0))
		problem = (struct serve_problem){.status = 503, .code = "unavailable", .detail = "no memory for it now"};
	request->job = problem.status == 503 ? calloc(1, sizeof(*request->job)) : NULL;
	if (request->job)
		request->job->admin = admin_new(request->serve->node, kind);
	if (!request->job || !request->job->admin) {
		*result = serve_problem(request, connection, &problem);
		return true;
	}
	request->job->request = request;
	*result = serve_admin_begin(request, connection, kind);
	return true;
}
