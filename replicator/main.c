/* bts-replicator: serves the frames of a file that another process writes. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <btree_store/ship.h>

#include "archive.h"
#include "archive_command.h"
#include "fail.h"
#include "failover_run.h"
#include "node.h"
#include "notify.h"
#include "pace.h"
#include "query.h"
#include "repair.h"
#include "replay.h"
#include "secure.h"
#include "serve.h"
#include "settings.h"
#include "sources.h"
#include "store.h"

/* Well above what a follower takes for an answer that does not wait: SESSION_EARLY_MS. */
#define MAIN_WAIT_LEAST_MS 200
#define MAIN_PIN_LEAST (UINT64_C(1) << 20)
#define MAIN_PIN_MOST (UINT64_C(1) << 40)

enum { MAIN_OK = 0, MAIN_FAILURE = 1, MAIN_USAGE = 2 };

struct main_settings {
	const char *data;
	struct settings_address listen;
	const char *name;
	uint64_t wait_max_ms;
	uint64_t pin_limit; /* 0: by the file's size */
	uint64_t serve_rate; /* bytes a second; 0: no limit */
	unsigned log_format, log_level; /* SETTINGS_NOW */
	int log_requests;
	int admin, rejoin;
	const char *from; /* NULL: not given */
	struct failover_settings failover;
	struct secure secure;
	struct archive_settings archive;
	const char *apply; /* a file of frames, "-": standard input; NULL: serve */
	const char *scrub; /* peers to repair from, "": none; NULL: serve */
	struct archive_command command;
};

/* What the program was started with. */
struct main_start {
	int argc;
	char **argv;
	struct settings settings;
	struct main_settings values;
	sigset_t signals; /* blocked; taken by the main thread alone */
	char listen[300]; /* with the port that was taken, once something listens */
};

static const char main_help[] =
	"Usage: bts-replicator --data FILE --listen HOST:PORT [OPTION...]\n"
	"       bts-replicator --data FILE --scrub URL[,URL]\n"
	"       bts-replicator --data FILE --apply FRAMES\n"
	"       bts-replicator --archive URL --list|--archive-verify|--prune AGE|--restore FILE [--at TIME|TXID]\n"
	"Serves the committed state of FILE to followers, from a process of its own beside the program that writes FILE.\n";

static const char main_trailer[] =
	"\nRoutes: GET /v1/replication/frames, /v1/replication/position, /v1/replication/segments, /livez, /readyz, /metrics;\n"
	"POST /v1/replication/pages.  With --admin: /v1/admin/{promote,demote,follow,scrub}, POST /v1/replication/promise.\n"
	"SIGTERM and SIGINT stop it cleanly.  Exit status: 0, 1 failure, 2 usage.\n";

static const char *main_check_name(const char *text)
{
	return query_node_valid(text) ? NULL : "a node name: letters, digits, '.', '_', '-', at most 63";
}

static const char *main_check_from(const char *text)
{
	struct sources sources;

	return sources_parse(&sources, text, NULL) ? "http://HOST:PORT, or several with commas between" : NULL;
}

static const char *main_check_scrub(const char *text)
{
	return *text ? main_check_from(text) : NULL;
}

static const struct settings_row main_rows[] = {
	SETTINGS_GROUP("The node"),
	{"data", SETTINGS_PATH(struct main_settings, data), .arg = "FILE", .help = "the database; opened for reading only, but for --admin"},
	{"name", SETTINGS_TEXT(struct main_settings, name), .arg = "NODE", .check = main_check_name,
		.help = "name of this node where the program that writes FILE tells none; followers see it"},
	{"admin", SETTINGS_FLAG(struct main_settings, admin),
		.help = "roles can be changed here: promote, demote, follow, promise, scrub, as with btsd (needs --name)"},
	{"from", SETTINGS_TEXT(struct main_settings, from), .arg = "URL[,URL]", .check = main_check_from,
		.help = "with --admin: the nodes to follow while FILE is not a primary's"},
	{"rejoin", SETTINGS_FLAG(struct main_settings, rejoin),
		.help = "with --admin: when the histories parted, write what only FILE has to FILE.orphans-EPOCH-TXID.ndjson, then "
			"take the source's"},
	{"scrub", SETTINGS_TEXT(struct main_settings, scrub), .arg = "URL[,URL]", .check = main_check_scrub,
		.help = "instead of serving: read every page of FILE, repair damaged ones from these nodes (\"\": only read), "
			"and exit: 1 when some are left"},

	{"apply", SETTINGS_PATH(struct main_settings, apply), .arg = "FRAMES",
		.help = "instead of serving: put the frames in that file (-: standard input), as /v1/backup?since= gives them, onto "
			"FILE, which nobody else has open, and exit"},

	SETTINGS_GROUP("Serving"),
	{"listen", SETTINGS_ADDRESS(struct main_settings, listen), .arg = "HOST:PORT",
		.help = "where to serve; port 0 takes a free one; beyond the loopback only with TLS and credentials"},
	{"wait-max", SETTINGS_DURATION(struct main_settings, wait_max_ms), .arg = "DURATION", .fallback = "60s",
		.least = MAIN_WAIT_LEAST_MS, .most = QUERY_WAIT_MS_MAX, .help = "longest long poll granted, as 30s or 500ms"},
	{"pin-limit", SETTINGS_BYTES(struct main_settings, pin_limit), .arg = "BYTES", .least = MAIN_PIN_LEAST,
		.most = MAIN_PIN_MOST,
		.help = "a frame whose snapshot keeps more than that from being reused is broken off (default: a quarter of the "
			"file, at least 256M)"},
	{"serve-rate", SETTINGS_BYTES(struct main_settings, serve_rate), .arg = "BYTES", .least = PACE_RATE_LEAST,
		.most = MAIN_PIN_MOST, .help = "sent a second to all followers together (default: no limit)"},

	ARCHIVE_ROWS(struct main_settings, archive),
	ARCHIVE_COMMAND_ROWS(struct main_settings, command),

	FAILOVER_ROWS(struct main_settings, failover),

	SECURE_ROWS(struct main_settings, secure),

	SETTINGS_GROUP("Logs"),
	{"log-format", SETTINGS_ENUM(struct main_settings, log_format), .words = "text|json", .fallback = "text",
		.flags = SETTINGS_RELOAD, .help = "one event a line on standard error"},
	{"log-level", SETTINGS_ENUM(struct main_settings, log_level), .words = "info|warn|error", .fallback = "info",
		.flags = SETTINGS_RELOAD, .help = "the least that is logged"},
	{"log-requests", SETTINGS_FLAG(struct main_settings, log_requests),
		.help = "a line for each request at its end, too: method, path, status, duration, id, follower"},
};

/* Quotes, backslashes and controls escaped, as JSON and key=value readers both take it. */
static void main_quote(const char *text, FILE *out)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			fprintf(out, "\\u%04x", (unsigned char)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

static void main_log(void *arg, const struct repl_event *event)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static const char *const levels[] = {"info", "warn", "error"};
	const struct main_settings *settings = arg;
	struct timespec now;
	bool json = SETTINGS_NOW(settings->log_format);
	struct tm utc;
	char when[40];

	if ((unsigned)event->level < SETTINGS_NOW(settings->log_level))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
	pthread_mutex_lock(&lock);
	fprintf(stderr,
		json ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"event\":\"%s\",\"text\":"
			       : "time=%s.%03ldZ level=%s event=%s text=",
		when, now.tv_nsec / 1000000, levels[event->level], event->name);
	main_quote(event->text, stderr);
	fputs(json ? "}\n" : "\n", stderr);
	pthread_mutex_unlock(&lock);
}

/* The customary soft limit is no more than the connections that are served. */
static void main_raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static bool main_port_is_open(const struct main_settings *values)
{
	return !strcmp(strrchr(values->listen.text, ':'), ":0");
}

static int main_read(struct settings *s, struct main_settings *values, int argc, char **argv)
{
	char why[SECURE_WHY_SIZE];
	const char *wrong;

	*s = (struct settings){.program = "bts-replicator", .version = bts_version(), .usage = main_help, .trailer = main_trailer,
		.rows = main_rows, .count = sizeof(main_rows) / sizeof(main_rows[0])};
	memset(values, 0, sizeof(*values));
	if (settings_read(s, values, argc, argv, environ))
		return -1;
	if (s->help || s->tell_version)
		return 0;
	if (archive_command_fits(&values->command))
		return settings_refuse(s, "%s", archive_command_fits(&values->command));
	if (archive_command_given(&values->command))
		return values->archive.url ? 0 : settings_refuse(s, "--archive URL is missing");
	if (!values->data)
		return settings_refuse(s, "--data FILE is missing");
	if (values->scrub && values->apply)
		return settings_refuse(s, "--apply goes not with --scrub");
	if (!values->scrub && !values->apply && !values->listen.size)
		return settings_refuse(s, "--listen HOST:PORT is missing");
	if (values->admin && (!values->name || values->scrub || values->apply))
		return settings_refuse(s, values->name ? "--admin goes not with --scrub or --apply" : "--admin needs --name");
	if (!values->admin && (values->from || values->rejoin))
		return settings_refuse(s, "%s is for --admin", values->from ? "--from" : "--rejoin");
	wrong = failover_fits(&values->failover);
	if (!wrong && values->failover.place && !values->admin)
		wrong = "--failover is for --admin";
	if (!wrong && values->failover.place && !values->failover.advertise && main_port_is_open(values))
		wrong = "--failover with port 0 needs --advertise";
	if (wrong)
		return settings_refuse(s, "%s", wrong);
	if (!secure_fits(&values->secure, why) || !secure_may_serve(&values->secure, &values->listen, false, why))
		return settings_refuse(s, "%s", why);
	return 0;
}

/* -1: go on; else the exit status. */
static int main_parse(struct main_start *start)
{
	struct settings *s = &start->settings;
	int status;

	if (main_read(s, &start->values, start->argc, start->argv))
		return settings_complain(s);
	status = settings_asked(s);
	return status < 0 ? settings_checked(s) : status;
}

static void main_reload(struct main_start *start, struct guard *guard, const struct repl_events *events)
{
	struct main_settings values;
	struct settings fresh;
	char restart[256];
	unsigned changed;

	notify_state(NOTIFY_RELOADING);
	if (main_read(&fresh, &values, start->argc, start->argv)) {
		repl_emit(events, REPL_ERROR, "reload-failed", "%s", fresh.why);
	} else if (!secure_reload(guard, events)) {
		repl_emit(events, REPL_ERROR, "reload-failed", "a certificate or tokens could not be read; the settings stay as they were");
	} else {
		changed = settings_adopt(&start->settings, &start->values, &fresh, &values, restart, sizeof(restart));
		repl_emit(events, *restart ? REPL_WARN : REPL_INFO, "reloaded", "%u changed, needs a restart: %s", changed,
			*restart ? restart : "none");
	}
	settings_fini(&fresh);
	notify_state(NOTIFY_READY);
}

/*
 * Until a signal comes, or the file is poisoned: then this process must let go of it, or no writer could open it again.
 * A supervisor starts it anew.
 */
static enum bts_err main_wait(struct bts *db, struct node *node, struct main_start *start, struct guard *guard,
	const struct repl_events *events, int *signal, struct bts_error *error)
{
	const struct timespec patience = {1, 0};
	enum bts_err err = BTS_OK;

	do {
		*signal = sigtimedwait(&start->signals, NULL, &patience);
		if (*signal == SIGHUP)
			main_reload(start, guard, events);
		else if (*signal < 0)
			err = bts_sync(db, error);
		if (err == BTS_UNKNOWN) /* of writes whose deadline passed: who made them is told */
			err = BTS_OK;
		if (node)
			node_look(node);
	} while ((*signal < 0 || *signal == SIGHUP) && !err);
	return err;
}

/* Owned: serve_stop.  Tells where, by that event; a port that was free to choose stays what it is. */
static enum bts_err main_serve(struct main_start *start, struct guard *guard, const struct repl_events *events, struct node *node,
	struct bts *db, struct archive *archive, struct serve **serve, struct bts_error *error)
{
	const struct main_settings *settings = &start->values;
	const char *listen = settings->listen.text;
	const struct serve_options options = {
		.db = db, .node = node, .archive = archive,
		.listen = start->listen[0] ? start->listen : listen, .name = settings->name, .wait_max_ms = (unsigned)settings->wait_max_ms,
		.pin_limit = settings->pin_limit, .rate = settings->serve_rate, .events = *events,
		.guard = guard, .tls = settings->secure.tls_cert != NULL, .log_requests = settings->log_requests};
	enum bts_err err = serve_start(&options, serve, error);

	if (err)
		return err;
	snprintf(start->listen, sizeof(start->listen), "%.*s:%u", (int)(strrchr(listen, ':') - listen), listen,
		serve_port(*serve));
	repl_emit(events, REPL_INFO, db ? "ready" : "awaits-first-commit", "listen=%s data=%s version=%s", start->listen, settings->data,
		bts_version());
	notify_state(NOTIFY_READY);
	return BTS_OK;
}

/* There is no file yet: until it comes, or a signal, only health is served. */
static enum bts_err main_await(struct main_start *start, struct guard *guard, const struct repl_events *events, struct node *node,
	struct bts **db, int *signal, struct bts_error *error)
{
	const struct timespec patience = {0, 50000000};
	struct serve *serve;
	enum bts_err err = main_serve(start, guard, events, NULL, NULL, NULL, &serve, error);

	while (!err && !(*db = node_db(node))) {
		*signal = sigtimedwait(&start->signals, NULL, &patience);
		if (*signal == SIGHUP)
			main_reload(start, guard, events);
		else if (*signal > 0)
			break;
	}
	if (!err)
		serve_stop(serve);
	return err;
}

static enum bts_err main_start_failover(const struct main_settings *settings, struct node *node, const struct repl_events *events,
	struct failover_run **run, struct bts_error *error)
{
	char source[80];
	struct failover_run_options options = {.node = node, .place = settings->failover.place, .name = settings->name, .url = "",
		.source = settings->failover.advertise ? settings->failover.advertise : source, .members = settings->failover.members,
		.survive = (unsigned)settings->failover.survive, .ttl_ms = settings->failover.ttl_ms, .events = *events};

	snprintf(source, sizeof(source), "%s://%.64s", settings->secure.tls_cert ? "https" : "http", settings->listen.text);
	return failover_run_start(&options, run, error);
}

/* With --admin.  A file that is not there yet is waited for: *db stays NULL when a signal comes first. */
static enum bts_err main_open_node(struct main_start *start, struct guard *guard, const struct repl_events *events, struct node **node, struct bts **db,
	struct failover_run **run, int *signal, struct bts_error *error)
{
	const struct main_settings *settings = &start->values;
	const struct node_options options = {.kind = NODE_ANY,
		.path = settings->data,
		.name = settings->name,
		.source = settings->from,
		.rejoin = settings->rejoin,
		.deadline = settings->failover.place != NULL,
		.awaits = settings->failover.place != NULL,
		.events = *events};
	enum bts_err err = node_open(&options, node, error);

	if (!err && settings->failover.place)
		err = main_start_failover(settings, *node, events, run, error);
	if (!err)
		*db = node_db(*node);
	if (!err && !*db)
		err = main_await(start, guard, events, *node, db, signal, error);
	return err;
}

static enum bts_err main_open(struct main_start *start, struct guard *guard, const struct repl_events *events, struct node **node, struct bts **db,
	struct failover_run **run, int *signal, struct bts_error *error)
{
	struct bts_options options;

	if (start->values.admin)
		return main_open_node(start, guard, events, node, db, run, signal, error);
	bts_options_init(&options);
	options.flags = BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING;
	return bts_open(start->values.data, &options, db, error);
}

static void main_close(struct node *node, struct bts *db)
{
	if (node)
		node_close(node);
	else
		bts_close(db);
}

static struct bts *main_archived(void *arg)
{
	return arg;
}

static enum bts_err main_archive(
	const struct main_settings *settings, struct bts *db, const struct repl_events *events, struct archive **archive, struct bts_error *error)
{
	const struct archive_options options = {
		.db = main_archived, .arg = db, .pin_limit = settings->pin_limit, .events = *events};

	return settings->archive.url ? archive_open(&settings->archive, &options, archive, error) : BTS_OK;
}

static enum bts_err main_run(struct main_start *start, struct guard *guard, struct bts_error *error)
{
	struct main_settings *settings = &start->values;
	const struct repl_events events = {main_log, settings};
	struct archive *archive = NULL;
	struct serve *serve = NULL;
	struct failover_run *run = NULL;
	struct node *node = NULL;
	struct bts *db = NULL;
	enum bts_err err;
	int signal = 0;

	err = main_open(start, guard, &events, &node, &db, &run, &signal, error);
	if (err || !db)
		goto fail;
	err = main_archive(settings, db, &events, &archive, error);
	if (err)
		goto fail;
	err = main_serve(start, guard, &events, node, db, archive, &serve, error);
	if (err)
		goto fail;
	err = main_wait(db, node, start, guard, &events, &signal, error);
	notify_state(NOTIFY_STOPPING);
	if (!err)
		repl_emit(&events, REPL_INFO, "stopping", "signal %d", signal);
	failover_run_stop(run); /* while followers are served: they get what they lack */
	serve_stop(serve);
	repl_emit(&events, REPL_INFO, "stopped", "%s closed", settings->data);
fail:
	failover_run_stop(run);
	failover_run_free(run);
	archive_stop(archive);
	main_close(node, db);
	return err;
}

/* Of a primary's file beside whoever writes it; of a follower's with nobody at it. */
static enum bts_err main_scrub(struct main_settings *settings, struct bts_error *error)
{
	struct repair_options repair = {.peers = settings->scrub, .rate = UINT64_MAX, .events = {main_log, settings}};
	struct repair_status status = {0};
	struct bts_options options;
	struct repair *running;
	enum bts_err err;

	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING;
	err = bts_open(settings->data, &options, &repair.db, error);
	if (err == BTS_READ_ONLY || err == BTS_FENCED) {
		options.flags |= BTS_OPEN_FOLLOWER;
		err = bts_open(settings->data, &options, &repair.db, error);
	}
	if (err)
		return err;
	err = repair_start(&repair, &running, error);
	if (!err) {
		repair_wait(running);
		repair_status(running, &status);
		repair_stop(running);
		if (status.error.code)
			err = fail_set(error, status.error.code, "%s", status.error.text);
		else if (status.lost || status.scrub.hidden)
			err = fail_set(error, BTS_CORRUPT, "%zu damaged units are left in %s", status.lost, settings->data);
	}
	bts_close(repair.db);
	return err;
}

static enum bts_err main_apply(struct main_settings *settings, struct bts_error *error)
{
	const struct repl_events events = {main_log, settings};
	bool standard = !strcmp(settings->apply, "-");
	int fd = standard ? STDIN_FILENO : open(settings->apply, O_RDONLY | O_CLOEXEC);
	struct replay_counts counts;
	enum bts_err err;

	if (fd < 0)
		return fail_os(error, errno, "%s", settings->apply);
	err = replay_frames(settings->data, fd, &counts, error);
	if (!standard)
		close(fd);
	if (!err)
		repl_emit(&events, REPL_INFO, "applied", "%" PRIu64 " frames, %" PRIu64 " pages; %" PRIu64 " were there already",
			counts.frames, counts.pages, counts.passed);
	return err;
}

/* What it was started for. */
static enum bts_err main_do(struct main_start *start, struct guard *guard, struct bts_error *error)
{
	const struct repl_events events = {main_log, &start->values};

	if (archive_command_given(&start->values.command))
		return archive_command_run(&start->values.command, start->values.archive.url, &events, error);
	if (start->values.apply)
		return main_apply(&start->values, error);
	return start->values.scrub ? main_scrub(&start->values, error) : main_run(start, guard, error);
}

int main(int argc, char **argv)
{
	static struct main_start start;
	struct repl_events events = {main_log, &start.values};
	struct bts_error error = {0};
	struct guard *guard = NULL;
	int status;

	start.argc = argc;
	start.argv = argv;
	status = main_parse(&start);
	if (status >= 0)
		goto end;
	/* Blocked before any thread starts, so that only the wait below takes them. */
	sigemptyset(&start.signals);
	sigaddset(&start.signals, SIGTERM);
	sigaddset(&start.signals, SIGINT);
	sigaddset(&start.signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &start.signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	main_raise_descriptors();
	status = MAIN_OK;
	if (secure_open(&start.values.secure, &events, &guard, &error) ||
		main_do(&start, guard, &error)) {
		repl_emit(&events, REPL_ERROR, "failed", "%s: %s", bts_err_name(error.code), error.text);
		status = error.code == BTS_INVALID ? MAIN_USAGE : MAIN_FAILURE;
	}
end:
	guard_free(guard);
	settings_fini(&start.settings);
	return status;
}
