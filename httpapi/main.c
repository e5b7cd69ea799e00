/* btsd: the REST server of a btree_store file, as a primary or as a follower. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "config.h"
#include "durable.h"
#include "input.h"
#include "log.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "wait.h"
#include "writer.h"

#define MAIN_GRACE_MS 20000

/* Before any thread, so that all inherit it and only sigwait below sees them. */
static void main_block_signals(sigset_t *stop)
{
	sigemptyset(stop);
	sigaddset(stop, SIGTERM);
	sigaddset(stop, SIGINT);
	sigaddset(stop, SIGHUP);
	sigprocmask(SIG_BLOCK, stop, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void main_await_stop(const sigset_t *stop)
{
	int number = 0;

	while (sigwait(stop, &number) || number == SIGHUP)
		if (number == SIGHUP)
			log_event("info", "reload",
				LOG_FIELDS(LOG_TEXT("detail", "nothing to reload in this version")));
	log_event(
		"info", "stopping", LOG_FIELDS(LOG_TEXT("signal", number == SIGINT ? "SIGINT" : "SIGTERM")));
}

static void main_log_ready(
	const struct config *config, const struct role *role, const char *listen, const char *admin)
{
	log_event("info", "ready",
		LOG_FIELDS(LOG_TEXT("role", role_word(role)), LOG_TEXT("name", role_name(role)),
			LOG_TEXT("data", config->data), LOG_TEXT("admin", admin), LOG_TEXT("listen", listen),
			LOG_U64("pid", getpid())));
}

/* Sockets are there: open, serve until told to stop, close. */
static int main_serve(const struct config *config, const sigset_t *stop, int fd, int admin_fd,
	const char *listen, const char *admin)
{
	struct server server = {.config = config};
	char url[80];
	int status = 1;

	snprintf(url, sizeof(url), "http://%s", listen);
	if (role_open(config, url, &server.role))
		return 1;
	if (writer_start(server.role, request_written, &server.writer))
		goto close;
	if (wait_start(server.role, &server.wait) || durable_start(server.role, config, &server.durable))
		goto close;
	if (server_start(&server, fd, admin_fd))
		_exit(1); /* some threads may run; nothing was promised to anybody yet */
	main_log_ready(config, server.role, listen, admin);
	main_await_stop(stop);
	role_drain(server.role);
	wait_drain(server.wait);
	durable_drain(server.durable);
	server_stop(&server, MAIN_GRACE_MS);
	status = 0;
close:
	writer_stop(server.writer);
	wait_stop(server.wait);
	durable_stop(server.durable);
	server_free(&server);
	role_close(server.role);
	log_event("info", "stopped", NULL);
	return status;
}

int main(int argc, char **argv)
{
	struct config config;
	char listen[64], admin[64] = "none";
	unsigned seed = 1;
	int status, fd, admin_fd = -1;
	sigset_t stop;

	status = config_parse(&config, argc, argv);
	if (status >= 0)
		return status;
	log_init(config.log_json);
	main_block_signals(&stop);
	(void)!getrandom(&seed, sizeof(seed), 0);
	input_seed(seed | 1);
	fd = server_listen(&config.listen, listen);
	if (fd < 0)
		return 1;
	if (config.admin.size) {
		admin_fd = server_listen(&config.admin, admin);
		if (admin_fd < 0)
			return 1;
	}
	return main_serve(&config, &stop, fd, admin_fd, listen, admin);
}
