/*
 * The loop and the waiter of the frame server.
 *
 * libmicrohttpd's own event threads stall when a multiple of 128 sockets is ready at once, so the loop is
 * ours: it polls libmicrohttpd's epoll descriptor, the listening socket and an eventfd.  Everything of
 * libmicrohttpd, of the source and of the suspended requests belongs to the loop's thread; the waiter shares
 * only `head` and the eventfd.
 */
#include "serve_private.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls.h"

#define SERVE_TICK_MS 500  /* the loop looks around at least so often */
#define SERVE_REST_MS 100  /* no connection is taken for so long after one could not be */
#define SERVE_WAIT_MS 1000 /* of one bts_ship_wait: the time a stop may take at worst */
#define SERVE_POOL 131072  /* bytes of libmicrohttpd's memory a connection */
#define SERVE_PER_ADDRESS 256 /* connections from one address, where others than this machine may ask */
#define SERVE_ACCEPTS 64   /* connections taken in one turn of the loop */

static uint64_t serve_clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t serve_now_ms(void)
{
	return serve_clock_ms(CLOCK_MONOTONIC);
}

uint64_t serve_realtime_ms(void)
{
	return serve_clock_ms(CLOCK_REALTIME);
}

void serve_wake(struct serve *serve)
{
	uint64_t one = 1;
	ssize_t done;

	/* It fails only when the counter is full, and then the loop is awake. */
	done = write(serve->wake_fd, &one, sizeof(one));
	(void)done;
}

static void *serve_waiter(void *arg)
{
	struct serve *serve = arg;
	bts_txid known = 0, head;
	enum bts_err err;

	while (!atomic_load(&serve->stopping)) {
		err = bts_ship_wait(serve->db, known, SERVE_WAIT_MS, &head);
		if (!err && head > known) {
			known = head;
			pthread_mutex_lock(&serve->ages_lock);
			ages_note(&serve->ages, head, serve_now_ms());
			pthread_mutex_unlock(&serve->ages_lock);
			atomic_store(&serve->head, head);
			serve_wake(serve);
		} else if (err != BTS_OK && err != BTS_TIMEOUT) {
			/* The file is poisoned or unreadable; requests find out why.  Do not spin. */
			poll(NULL, 0, SERVE_WAIT_MS);
		}
	}
	return NULL;
}

/* Out of descriptors or memory: the listening socket stays readable, and polling it would only spin. */
static void serve_accept_failed(struct serve *serve, int os)
{
	if (os == EAGAIN)
		serve->accept_resting = false;
	if (os != EMFILE && os != ENFILE && os != ENOMEM && os != ENOBUFS)
		return;
	serve->accept_ms = serve_now_ms() + SERVE_REST_MS;
	if (!serve->accept_resting)
		repl_emit(&serve->events, REPL_WARN, "accept-failed", "%s", strerror(os));
	serve->accept_resting = true;
}

static int serve_next_socket(struct serve *serve, struct sockaddr *peer, socklen_t *size)
{
	ssize_t got;
	int fd;

	if (serve->adopt_fd < 0)
		return accept4(serve->listen_fd, peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
	for (;;) {
		got = read(serve->listen_fd, &fd, sizeof(fd));
		if (got != (ssize_t)sizeof(fd))
			return -1;
		if (getpeername(fd, peer, size) == 0)
			return fd;
		close(fd); /* gone already */
		*size = sizeof(struct sockaddr_storage);
	}
}

void serve_adopt(struct serve *serve, int fd)
{
	/* A pipe takes that many bytes whole or not at all; full, nobody keeps up with what comes. */
	if (write(serve->adopt_fd, &fd, sizeof(fd)) != (ssize_t)sizeof(fd))
		close(fd);
}

static void serve_accept(struct serve *serve)
{
	struct sockaddr_storage peer;
	socklen_t size;
	int fd, i, one = 1;

	for (i = 0; i < SERVE_ACCEPTS; i++) {
		size = sizeof(peer);
		fd = serve_next_socket(serve, (struct sockaddr *)&peer, &size);
		if (fd < 0) {
			serve_accept_failed(serve, errno);
			return;
		}
		/* A frame's last bytes are small: they must not wait for the acknowledgement of those before.
		 */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		serve_conn_make_room(serve);
		/* libmicrohttpd closes the socket when it does not take it. */
		if (MHD_add_connection(serve->daemon, fd, (struct sockaddr *)&peer, size) != MHD_YES)
			repl_emit(&serve->events, REPL_WARN, "connection-refused", "more than %d connections",
				SERVE_CONNECTIONS_MAX);
	}
}

/* Those with news, at their deadline, or not looked at for long; all of them when stopping. */
static void serve_resume_due(struct serve *serve)
{
	struct serve_request *request = serve->suspended, *next;
	uint64_t now = serve_now_ms(), head = atomic_load(&serve->head);
	bool stopping = atomic_load(&serve->stopping);

	serve->due_ms = UINT64_MAX;
	for (; request; request = next) {
		next = request->next;
		if (stopping || head > request->query.after.txid || now >= request->deadline_ms ||
			now - request->looked_ms >= SERVE_HEARTBEAT_MS)
			serve_resume(request);
		else if (request->deadline_ms < serve->due_ms)
			serve->due_ms = request->deadline_ms;
	}
}

/* The loop need not turn before that instant; ms is how long it may sleep. */
static int serve_sooner(int ms, uint64_t now, uint64_t instant)
{
	if (instant <= now)
		return 0;
	return instant - now < (uint64_t)ms ? (int)(instant - now) : ms;
}

static int serve_timeout(struct serve *serve, bool resting)
{
	uint64_t now = serve_now_ms();
	int ms = serve_sooner(SERVE_TICK_MS, now, serve->due_ms);
	MHD_UNSIGNED_LONG_LONG wanted;

	if (serve->turns)
		ms = serve_sooner(ms, now, pace_due(&serve->pace));
	if (resting)
		ms = serve_sooner(ms, now, serve->accept_ms);
	if (MHD_get_timeout(serve->daemon, &wanted) == MHD_YES && wanted < (unsigned)ms)
		ms = (int)wanted;
	return ms;
}

static void *serve_loop(void *arg)
{
	const union MHD_DaemonInfo *info;
	struct serve *serve = arg;
	struct pollfd fds[3];
	uint64_t count;
	bool resting;

	info = MHD_get_daemon_info(serve->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	fds[0] = (struct pollfd){.fd = info->epoll_fd, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = serve->wake_fd, .events = POLLIN};
	fds[2] = (struct pollfd){.fd = serve->listen_fd, .events = POLLIN};
	while (!atomic_load(&serve->stopping)) {
		resting = serve_now_ms() < serve->accept_ms;
		fds[2].revents = 0;
		if (poll(fds, resting ? 2 : 3, serve_timeout(serve, resting)) < 0 && errno != EINTR)
			break;
		if (fds[1].revents && read(serve->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			break;
		if (fds[2].revents)
			serve_accept(serve);
		serve_resume_due(serve);
		serve_watch(serve);
		serve_conn_watch(serve);
		serve_pace_resume(serve);
		serve_admin_resume(serve);
		if (serve->db)
			pages_pins_tick(serve->pins, serve_now_ms());
		MHD_run(serve->daemon);
	}
	serve_resume_due(serve);
	serve_pace_resume(serve);
	serve_admin_resume(serve);
	MHD_run(serve->daemon);
	return NULL;
}

static enum bts_err serve_start_daemon(struct serve *serve, struct bts_error *error)
{
	struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
		{MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, tls_callback()}, {MHD_OPTION_END, 0, NULL}};

	serve->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME |
						 (serve->tls ? MHD_USE_TLS : MHD_NO_FLAG),
		0, NULL, NULL, serve_on_request, serve, MHD_OPTION_NOTIFY_COMPLETED, serve_on_completed,
		serve, MHD_OPTION_URI_LOG_CALLBACK, serve_on_uri, serve, MHD_OPTION_NOTIFY_CONNECTION, serve_on_connection, serve,
		MHD_OPTION_UNESCAPE_CALLBACK,
		serve_on_unescape, serve, MHD_OPTION_CONNECTION_LIMIT, (unsigned)SERVE_CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SERVE_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)SERVE_POOL, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		(unsigned)(serve->tls ? SERVE_PER_ADDRESS : 0), MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_ARRAY, serve->tls ? tls : &tls[2], MHD_OPTION_END);
	if (!serve->daemon)
		return fail_set(error, BTS_IO, "libmicrohttpd does not start");
	return BTS_OK;
}

static enum bts_err serve_open_pipe(struct serve *serve, struct bts_error *error)
{
	int fds[2];

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC))
		return fail_os(error, errno, "pipe");
	serve->listen_fd = fds[0];
	serve->adopt_fd = fds[1];
	return BTS_OK;
}

const char *serve_role(const struct serve *serve)
{
	struct bts_role role = {.size = sizeof(role)};

	if (!serve->db || bts_role(serve->db, &role, NULL))
		return "follower";
	return role.role == BTS_ROLE_PRIMARY ? "primary" : role.role == BTS_ROLE_FENCED ? "fenced" : "follower";
}

static enum bts_err serve_start_threads(struct serve *serve, struct bts_error *error)
{
	int os;

	os = serve->db ? pthread_create(&serve->waiter, NULL, serve_waiter, serve) : 0;
	if (os)
		return fail_os(error, os, "starting the waiter's thread");
	serve->waiter_started = serve->db != NULL;
	os = pthread_create(&serve->loop, NULL, serve_loop, serve);
	if (os)
		return fail_os(error, os, "starting the loop's thread");
	serve->loop_started = true;
	return BTS_OK;
}

static enum bts_err serve_open_source(struct serve *serve, const struct serve_options *options, struct bts_error *error)
{
	enum bts_err err = source_init(&serve->source, options->db, &options->events, error);

	if (err)
		return err;
	if (options->name)
		serve->source.name = options->name;
	serve->pins = pages_pins_new(options->db);
	serve->source.records = records_new();
	return serve->pins && serve->source.records ? BTS_OK : fail_set(error, BTS_MEMORY, "no memory for a server");
}

enum bts_err serve_start(const struct serve_options *options, struct serve **out, struct bts_error *error)
{
	struct serve *serve = calloc(1, sizeof(*serve));
	enum bts_err err;

	if (!serve)
		return fail_set(error, BTS_MEMORY, "no memory for a server");
	serve->listen_fd = serve->wake_fd = serve->adopt_fd = -1;
	serve->db = options->db;
	serve->events = options->events;
	serve->guard = options->guard;
	serve->log_requests = options->log_requests;
	serve->tls = options->tls;
	serve->wait_max_ms = options->wait_max_ms ? options->wait_max_ms : QUERY_WAIT_MS_MAX;
	serve->pin_limit = options->pin_limit;
	serve->slow_ms = options->slow_ms ? options->slow_ms : SERVE_SLOW_MS;
	pace_init(&serve->pace, options->rate, serve_now_ms());
	serve->node = options->node;
	serve->archive = options->archive;
	pthread_mutex_init(&serve->jobs_lock, NULL);
	pthread_mutex_init(&serve->ages_lock, NULL);
	serve->ages.since_ms = serve_now_ms();
	pthread_cond_init(&serve->jobs_ended, NULL);
	atomic_init(&serve->stopping, false);
	atomic_init(&serve->head, 0);
	serve->due_ms = UINT64_MAX;
	err = options->db ? serve_open_source(serve, options, error) : BTS_OK;
	if (err)
		goto fail;
	err = options->listen ? serve_listen(options->listen, options->tls && options->guard && !guard_is_open(options->guard),
						  &serve->listen_fd, &serve->port, error)
			      : serve_open_pipe(serve, error);
	if (err)
		goto fail;
	serve->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (serve->wake_fd < 0) {
		err = fail_os(error, errno, "eventfd");
		goto fail;
	}
	err = serve_start_daemon(serve, error);
	if (err)
		goto fail;
	err = serve_start_threads(serve, error);
	if (err)
		goto fail;
	*out = serve;
	return BTS_OK;
fail:
	serve_stop(serve);
	return err;
}

void serve_stop(struct serve *serve)
{
	if (!serve)
		return;
	if (serve->node)
		node_cancel(serve->node);
	atomic_store(&serve->stopping, true);
	if (serve->wake_fd >= 0)
		serve_wake(serve);
	if (serve->loop_started)
		pthread_join(serve->loop, NULL);
	if (serve->waiter_started) {
		bts_ship_wake(serve->db);
		pthread_join(serve->waiter, NULL);
	}
	if (serve->adopt_fd >= 0) {
		int fd;

		while (read(serve->listen_fd, &fd, sizeof(fd)) == (ssize_t)sizeof(fd))
			close(fd);
		close(serve->adopt_fd);
	}
	/* Our own socket, so that nothing new arrives while the daemon ends what is under way. */
	if (serve->listen_fd >= 0)
		close(serve->listen_fd);
	if (serve->daemon)
		MHD_stop_daemon(serve->daemon);
	if (serve->wake_fd >= 0)
		close(serve->wake_fd);
	pages_pins_free(serve->pins);
	records_free(serve->source.records);
	pthread_mutex_destroy(&serve->jobs_lock);
	pthread_mutex_destroy(&serve->ages_lock);
	pthread_cond_destroy(&serve->jobs_ended);
	free(serve);
}

unsigned serve_port(const struct serve *serve)
{
	return serve->port;
}
