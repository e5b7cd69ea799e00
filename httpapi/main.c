/* btsd: the REST server of a btree_store file, as a primary or as a follower. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "backups.h"
#include "compaction.h"
#include "config.h"
#include "durable.h"
#include "input.h"
#include "listener.h"
#include "log.h"
#include "notify.h"
#include "request.h"
#include "role.h"
#include "route.h"
#include "secure.h"
#include "server.h"
#include "token_command.h"
#include "snapshots.h"
#include "ttl_sweep.h"
#include "wait.h"
#include "watch.h"
#include "work.h"
#include "writer.h"

#define MAIN_GRACE_MS 20000
#define MAIN_WAITERS 4	 /* threads that may wait, for large values that are read and the like */
#define MAIN_UPLOADERS 2 /* and for those that are written: one waits for its flush, the other goes on */

/* What the program was started with. */
struct main_start {
	int argc;
	char **argv;
	struct settings settings;
	struct config config;
	sigset_t signals; /* blocked; taken by the main thread alone */
};

struct main_sockets {
	int fd[LISTENER_KINDS]; /* -1: none */
	char text[LISTENER_KINDS][64];
};

/* Before any thread, so that all inherit it and only sigwait below sees them. */
static void main_block_signals(sigset_t *stop)
{
	sigemptyset(stop);
	sigaddset(stop, SIGTERM);
	sigaddset(stop, SIGINT);
	sigaddset(stop, SIGHUP);
	sigprocmask(SIG_BLOCK, stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit of file size is an error like a full disk */
}

static void main_on_event(void *arg, const struct repl_event *event)
{
	static const char *const levels[] = {"info", "warn", "error"};

	(void)arg;
	log_event(levels[event->level], event->name, LOG_FIELDS(LOG_TEXT("detail", event->text)));
}

static const struct repl_events main_events = {main_on_event, NULL};

/* ---- SIGHUP ---- */

/* What may fail comes first: then the settings stay as they were.  What is wrong with a file is logged by who reads it. */
static const char *main_reload_files(struct server *server, const struct config *fresh)
{
	if (!secure_reload(server->guard, &main_events))
		return "a certificate or tokens could not be read; the settings stay as they were";
	if (access_reload(&server->access, fresh))
		return "the access log could not be opened; the settings stay as they were";
	return NULL;
}

static void main_reload(struct main_start *start, struct server *server)
{
	struct settings fresh;
	struct config config;
	char restart[256];
	unsigned changed;
	const char *wrong = NULL;

	notify_state(NOTIFY_RELOADING);
	wrong = config_again(&fresh, &config, start->argc, start->argv) ? fresh.why : main_reload_files(server, &config);
	if (wrong) {
		log_event("error", "reload-failed", LOG_FIELDS(LOG_TEXT("detail", wrong)));
	} else {
		changed = settings_adopt(&start->settings, &start->config, &fresh, &config, restart, sizeof(restart));
		log_init(server->config->log_format == CONFIG_LOG_JSON, server->config->log_level);
		log_event(*restart ? "warn" : "info", "reloaded",
			LOG_FIELDS(LOG_U64("changed", changed), LOG_TEXT("needs_restart", restart)));
	}
	settings_fini(&fresh);
	notify_state(NOTIFY_READY);
}

static void main_await_stop(struct main_start *start, struct server *server)
{
	int number = 0;

	while (sigwait(&start->signals, &number) || number == SIGHUP)
		if (number == SIGHUP)
			main_reload(start, server);
	notify_state(NOTIFY_STOPPING);
	log_event(
		"info", "stopping", LOG_FIELDS(LOG_TEXT("signal", number == SIGINT ? "SIGINT" : "SIGTERM")));
}

static void main_log_ready(const struct config *config, const struct role *role, const struct main_sockets *sockets)
{
	log_event("info", "ready",
		LOG_FIELDS(LOG_TEXT("role", role_word(role)), LOG_TEXT("name", role_name(role)),
			LOG_TEXT("data", config->data), LOG_TEXT("admin", sockets->text[LISTENER_ADMIN]),
			LOG_TEXT("replication", sockets->text[LISTENER_FRAMES]), LOG_TEXT("listen", sockets->text[LISTENER_API]),
			LOG_U64("pid", getpid())));
}

/* A primary is needed more than what is kept for readers. */
static void main_held(void *arg)
{
	struct server *server = arg;
	size_t leases = snapshots_clear(server->snapshots), images = backups_clear(server->backups);
	size_t bookmarks = watch_clear(server->watch);

	if (leases || images || bookmarks)
		log_event("warn", "snapshots-ended",
			LOG_FIELDS(LOG_U64("leases", leases), LOG_U64("images", images), LOG_U64("bookmarks", bookmarks),
				LOG_TEXT("detail", "a promotion waits for the pages that they keep")));
}

static struct bts *main_archived(void *arg)
{
	return role_db(arg);
}

static int main_archive(const struct config *config, struct server *server)
{
	const struct archive_options options = {.db = main_archived, .arg = server->role, .events = main_events};
	struct bts_error error = {0};

	if (!config->archive.url || !archive_open(&config->archive, &options, &server->archive, &error))
		return 0;
	log_event("error", "archive-not-opened", LOG_FIELDS(LOG_TEXT("detail", error.text)));
	return -1;
}

/* Followers are served where replication has a listener of its own, else, without TLS, where everything is. */
static int main_start_failover(struct server *server, const struct main_sockets *sockets, const char *url)
{
	const struct config *config = server->config;
	bool apart = sockets->fd[LISTENER_FRAMES] >= 0;
	struct failover_run_options options = {.node = role_node(server->role), .place = config->failover.place, .name = role_name(server->role),
		.url = config->url ? config->url : url, .source = config->failover.advertise, .members = config->failover.members,
		.survive = (unsigned)config->failover.survive, .ttl_ms = config->failover.ttl_ms, .events = role_events(server->role)};
	struct bts_error error = {0};
	char source[80];

	if (!config->failover.place)
		return 0;
	snprintf(source, sizeof(source), "%s://%s", config->secure.tls_cert ? "https" : "http",
		sockets->text[apart ? LISTENER_FRAMES : LISTENER_API]);
	if (!options.source)
		options.source = !apart && config->url ? config->url : source;
	if (!failover_run_start(&options, &server->failover, &error))
		return 0;
	log_event("error", "failover-not-started", LOG_FIELDS(LOG_TEXT("detail", error.text)));
	return -1;
}

/* Sockets are there: open, serve until told to stop, close. */
static int main_serve(struct main_start *start, const struct main_sockets *sockets)
{
	const struct config *config = &start->config;
	struct server server = {.config = config};
	struct bts_error error = {0};
	char url[80];
	int status = 1;

	snprintf(url, sizeof(url), "%s://%s", config->secure.tls_cert ? "https" : "http", sockets->text[LISTENER_API]);
	if (secure_open(&config->secure, &main_events, &server.guard, &error)) {
		log_event("error", "secrets-not-read", LOG_FIELDS(LOG_TEXT("detail", error.text)));
		return 1;
	}
	if (role_open(config, config->url ? config->url : url, &server.role)) {
		guard_free(server.guard);
		return 1;
	}
	if (writer_start(server.role, request_written, &server.writer))
		goto close;
	server.compaction = compaction_new(server.role);
	if (!server.compaction)
		goto close;
	if (snapshots_start(server.role, config, &server.snapshots) || backups_start(server.role, config, &server.backups))
		goto close;
	role_on_held(server.role, main_held, &server);
	if (wait_start(server.role, &server.wait) || durable_start(server.role, config, &server.durable))
		goto close;
	if (watch_start(server.role, config, &server.watch))
		goto close;
	if (ttl_sweep_start(server.role, server.writer, &server.sweep) || work_start(MAIN_WAITERS, &server.work) ||
		work_start(MAIN_UPLOADERS, &server.uploaders))
		goto close;
	if (main_archive(config, &server))
		goto close;
	if (access_start(&server.access, config, (unsigned)config->threads + 1))
		goto close;
	if (server_start(&server, sockets->fd))
		_exit(1); /* some threads may run; nothing was promised to anybody yet */
	if (main_start_failover(&server, sockets, url))
		_exit(1);
	main_log_ready(config, server.role, sockets);
	notify_state(NOTIFY_READY);
	main_await_stop(start, &server);
	failover_run_stop(server.failover); /* others can take over, and get what they lack, while this goes on */
	role_drain(server.role);
	wait_drain(server.wait);
	watch_drain(server.watch);
	durable_drain(server.durable);
	server_stop(&server, MAIN_GRACE_MS);
	status = 0;
close:
	access_stop(&server.access);
	work_stop(server.work);
	work_stop(server.uploaders);
	ttl_sweep_stop(server.sweep);
	writer_stop(server.writer);
	wait_stop(server.wait);
	watch_stop(server.watch);
	durable_stop(server.durable);
	snapshots_stop(server.snapshots);
	backups_stop(server.backups);
	compaction_free(server.compaction);
	server_free(&server);
	archive_stop(server.archive);
	failover_run_free(server.failover);
	role_close(server.role);
	guard_free(server.guard);
	log_event("info", "stopped", NULL);
	return status;
}

static int main_listen(const struct config *config, struct main_sockets *sockets)
{
	const struct settings_address *const addresses[] = {
		[LISTENER_API] = &config->listen, [LISTENER_ADMIN] = &config->admin, [LISTENER_FRAMES] = &config->replication};

	for (int i = 0; i < LISTENER_KINDS; i++) {
		sockets->fd[i] = -1;
		strcpy(sockets->text[i], "none");
		if (!addresses[i]->size)
			continue;
		sockets->fd[i] = listener_open(addresses[i], sockets->text[i]);
		if (sockets->fd[i] < 0)
			return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct main_start start;
	struct main_sockets sockets;
	unsigned seed = 1;
	int status;

	if (argc > 1 && !strcmp(argv[1], "token"))
		return token_command(argc - 1, argv + 1);
	if (argc == 2 && !strcmp(argv[1], "--print-routes")) {
		route_print();
		return 0;
	}
	start.argc = argc;
	start.argv = argv;
	status = config_start(&start.settings, &start.config, argc, argv);
	if (status >= 0)
		goto end;
	status = 1;
	log_init(start.config.log_format == CONFIG_LOG_JSON, start.config.log_level);
	main_block_signals(&start.signals);
	(void)!getrandom(&seed, sizeof(seed), 0);
	input_seed(seed | 1);
	if (main_listen(&start.config, &sockets))
		goto end;
	status = main_serve(&start, &sockets);
end:
	settings_fini(&start.settings);
	return status;
}
