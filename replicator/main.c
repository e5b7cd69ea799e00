/* bts-replicator: serves the frames of a file that another process writes. */
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <btree_store/ship.h>

#include "fail.h"
#include "position.h"
#include "query.h"
#include "repair.h"
#include "serve.h"

/* Well above what a follower takes for an answer that does not wait: SESSION_EARLY_MS. */
#define MAIN_WAIT_LEAST_MS 200
#define MAIN_PIN_LEAST (UINT64_C(1) << 20)
#define MAIN_PIN_MOST (UINT64_C(1) << 40)

enum { MAIN_OK = 0, MAIN_FAILURE = 1, MAIN_USAGE = 2 };

struct main_settings {
	const char *data;
	const char *listen;
	const char *name;
	unsigned wait_max_ms;
	uint64_t pin_limit;
	bool json;
	const char *scrub; /* peers to repair from, "": none; NULL: serve */
};

static const char main_help[] =
	"usage: bts-replicator --data FILE --listen HOST:PORT [options]\n"
	"\n"
	"Serves the committed state of FILE to followers, from a process of its own beside the program that "
	"writes FILE.\n"
	"\n"
	"  --data FILE          the database; opened for reading only\n"
	"  --listen HOST:PORT   a loopback address to serve on; port 0 takes a free one\n"
	"  --name NODE          name of this node where the program that writes FILE tells none; followers see it\n"
	"  --scrub URL[,URL]    instead of serving: read every page of FILE, repair damaged ones from these nodes\n"
	"                       (\"\": only read), and exit: 1 when some are left\n"
	"  --wait-max DURATION  longest long poll granted, as 30s or 500ms (200ms to 60s, default 60s)\n"
	"  --pin-limit BYTES    a frame whose snapshot keeps more than that from being reused is broken off (1M to 1024G; K, M, G\n"
	"                       are multiples of 1024; default a quarter of the file, at least 256M)\n"
	"  --log-format FORMAT  text (key=value, the default) or json, one line an event on standard error\n"
	"  --help               print this\n"
	"  --version            print the version\n"
	"\n"
	"Routes: GET /v1/replication/frames, /v1/replication/position, /v1/replication/segments, /livez, /readyz, /metrics;\n"
	"POST /v1/replication/pages.\n"
	"SIGTERM and SIGINT stop it cleanly.  Exit status: 0, 1 failure, 2 usage.\n";

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
	struct tm utc;
	char when[40];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
	pthread_mutex_lock(&lock);
	fprintf(stderr,
		settings->json ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"event\":\"%s\",\"text\":"
			       : "time=%s.%03ldZ level=%s event=%s text=",
		when, now.tv_nsec / 1000000, levels[event->level], event->name);
	main_quote(event->text, stderr);
	fputs(settings->json ? "}\n" : "\n", stderr);
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

static int main_usage(const char *format, const char *what)
{
	fprintf(stderr, "bts-replicator: ");
	fprintf(stderr, format, what);
	fprintf(stderr, "\nTry 'bts-replicator --help'.\n");
	return MAIN_USAGE;
}

static bool main_bytes(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMG";
	size_t digits = strspn(text, "0123456789");
	const char *unit = text[digits] ? strchr(units, text[digits]) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
	char number[16];

	if (digits >= sizeof(number) || (text[digits] && (!unit || text[digits + 1])))
		return false;
	memcpy(number, text, digits);
	number[digits] = '\0';
	if (!position_number_parse(number, MAIN_PIN_MOST >> shift, bytes))
		return false;
	*bytes <<= shift;
	return *bytes >= MAIN_PIN_LEAST;
}

/* -1: go on; else the exit status. */
static int main_parse(int argc, char **argv, struct main_settings *settings)
{
	static const struct option options[] = {
		{"data", required_argument, NULL, 'd'},
		{"listen", required_argument, NULL, 'l'},
		{"name", required_argument, NULL, 'n'},
		{"wait-max", required_argument, NULL, 'w'},
		{"scrub", required_argument, NULL, 's'},
		{"pin-limit", required_argument, NULL, 'p'},
		{"log-format", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			settings->data = optarg;
			break;
		case 'l':
			settings->listen = optarg;
			break;
		case 'n':
			settings->name = optarg;
			if (!query_node_valid(optarg))
				return main_usage("--name '%s': letters, digits, '.', '_', '-', at most 63", optarg);
			break;
		case 's':
			settings->scrub = optarg;
			break;
		case 'w':
			if (!query_duration_parse(optarg, &settings->wait_max_ms) ||
				settings->wait_max_ms < MAIN_WAIT_LEAST_MS)
				return main_usage(
					"--wait-max '%s': a duration from 200ms to 60s, as 30s or 500ms",
					optarg);
			break;
		case 'p':
			if (!main_bytes(optarg, &settings->pin_limit))
				return main_usage("--pin-limit '%s': bytes from 1M to 1024G, as 512M", optarg);
			break;
		case 'f':
			settings->json = strcmp(optarg, "json") == 0;
			if (!settings->json && strcmp(optarg, "text") != 0)
				return main_usage("--log-format '%s': text or json", optarg);
			break;
		case 'h':
			fputs(main_help, stdout);
			return MAIN_OK;
		case 'v':
			printf("bts-replicator %s\n", bts_version());
			return MAIN_OK;
		default:
			fputs("Try 'bts-replicator --help'.\n", stderr);
			return MAIN_USAGE;
		}
	}
	if (optind < argc)
		return main_usage("unexpected argument '%s'", argv[optind]);
	if (settings->data && settings->scrub)
		return -1;
	if (!settings->data || !settings->listen)
		return main_usage("%s is missing", settings->data ? "--listen HOST:PORT" : "--data FILE");
	return -1;
}

/*
 * Until a signal comes, or the file is poisoned: then this process must let go of it, or no writer could open it again.
 * A supervisor starts it anew.
 */
static enum bts_err main_wait(struct bts *db, const sigset_t *signals, int *signal, struct bts_error *error)
{
	const struct timespec patience = {1, 0};
	enum bts_err err = BTS_OK;

	do {
		*signal = sigtimedwait(signals, NULL, &patience);
		if (*signal < 0)
			err = bts_sync(db, error);
	} while (*signal < 0 && !err);
	return err;
}

static enum bts_err main_run(struct main_settings *settings, const sigset_t *signals, struct bts_error *error)
{
	const struct repl_events events = {main_log, settings};
	struct serve_options serve_options = {
		.listen = settings->listen, .name = settings->name, .wait_max_ms = settings->wait_max_ms,
		.pin_limit = settings->pin_limit, .events = events};
	struct bts_options options;
	struct serve *serve = NULL;
	struct bts *db = NULL;
	enum bts_err err;
	int signal = 0;

	bts_options_init(&options);
	options.flags = BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING;
	err = bts_open(settings->data, &options, &db, error);
	if (err)
		return err;
	serve_options.db = db;
	err = serve_start(&serve_options, &serve, error);
	if (err)
		goto fail;
	repl_emit(&events, REPL_INFO, "ready", "listen=%.*s:%u data=%s version=%s",
		(int)(strrchr(settings->listen, ':') - settings->listen), settings->listen, serve_port(serve),
		settings->data, bts_version());
	err = main_wait(db, signals, &signal, error);
	if (!err)
		repl_emit(&events, REPL_INFO, "stopping", "signal %d", signal);
	serve_stop(serve);
	repl_emit(&events, REPL_INFO, "stopped", "%s closed", settings->data);
fail:
	bts_close(db);
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
	if (err == BTS_READ_ONLY) {
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

int main(int argc, char **argv)
{
	struct main_settings settings = {0};
	struct repl_events events = {main_log, &settings};
	struct bts_error error = {0};
	sigset_t signals;
	int status;

	status = main_parse(argc, argv, &settings);
	if (status >= 0)
		return status;
	/* Blocked before any thread starts, so that only sigwait takes them. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	main_raise_descriptors();
	if (settings.scrub ? main_scrub(&settings, &error) : main_run(&settings, &signals, &error)) {
		repl_emit(&events, REPL_ERROR, "failed", "%s: %s", bts_err_name(error.code), error.text);
		return error.code == BTS_INVALID ? MAIN_USAGE : MAIN_FAILURE;
	}
	return MAIN_OK;
}
