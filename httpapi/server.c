/*
 * Sockets, threads and loops.
 *
 * The library's own event loop stalls when exactly as many sockets are ready as it asks for at once, and its
 * pool of threads does not balance; so each loop here polls the library's epoll descriptor and an eventfd,
 * and runs the library when either is ready or its timeout, which may be 0, has passed.
 *
 * Stopping: the listening sockets are closed, replies say "Connection: close", connections without a request
 * are cut after a moment, those with one when the grace is over, and a loop ends when it has no connection
 * left.
 */
#include "server.h"

#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "request.h"
#include "role.h"
#include "serve.h"
#include "writer.h"

#define SERVER_IDLE_MS 75000	/* a connection without a request */
#define SERVER_CREDIT_MS 120000 /* how far ahead of SERVER_RATE a connection may be */
#define SERVER_SWEEP_MS 250
#define SERVER_DRAIN_SWEEP_MS 20
#define SERVER_POLL_MS 250
#define SERVER_SWEEP_POLL 256
#define SERVER_LINGER_MS 150 /* when draining: for a request that is already on its way */
#define SERVER_CONNECTIONS_MAX 10000
#define SERVER_ADMIN_CONNECTIONS 64
#define SERVER_FRESH_MAX 128 /* connections that have not said yet what they want; more go to the loops at once */
#define SERVER_FRESH_MS 1000 /* and how long they may keep that to themselves */
#define SERVER_FRESH_BYTES 64

/* A listening socket and the thread that takes connections from it. */
struct server_accept {
	struct server *server;
	pthread_t thread;
	int fd, stop_fd;
	unsigned first_loop, loops, next;
	int admin;
	/* waiting for their first bytes, which tell whether they are for the replication */
	struct pollfd fresh[2 + SERVER_FRESH_MAX]; /* [0] the listening socket, [1] the stop */
	uint64_t fresh_ms[2 + SERVER_FRESH_MAX];
	nfds_t fresh_count;
};

static void server_log_errno(const char *event, const char *what, int os)
{
	log_event("error", event, LOG_FIELDS(LOG_TEXT("what", what), LOG_TEXT("detail", strerror(os))));
}

static void server_wake(int fd)
{
	uint64_t one = 1;

	/* It can only fail when the counter is full, and then the sleeper is awake. */
	(void)!write(fd, &one, sizeof(one));
}

/* ---- connections: the loop's thread only ---- */

struct server_conn *server_conn_new(struct server_loop *loop, int fd)
{
	struct server_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->loop = loop;
	c->fd = fd;
	c->deadline_ms = loop->now_ms + SERVER_IDLE_MS;
	c->next = loop->conns;
	c->link = &loop->conns;
	if (c->next)
		c->next->link = &c->next;
	loop->conns = c;
	return c;
}

void server_conn_free(struct server_conn *c)
{
	if (!c)
		return;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	atomic_fetch_sub(&c->loop->connections, 1);
	if (!c->loop->admin)
		atomic_fetch_sub(&c->loop->server->connections, 1);
	free(c);
}

void server_conn_busy(struct server_conn *c)
{
	c->busy = 1;
	c->receiving = 1;
	c->deadline_ms = c->loop->now_ms + SERVER_PATIENCE_MS;
}

void server_conn_idle(struct server_conn *c)
{
	c->busy = 0;
	c->receiving = 0;
	c->deadline_ms = c->loop->now_ms + SERVER_IDLE_MS;
}

void server_conn_progress(struct server_conn *c, uint64_t bytes)
{
	uint64_t most = c->loop->now_ms + SERVER_CREDIT_MS;

	c->left = 0;
	c->deadline_ms += bytes / (SERVER_RATE / 1000);
	if (c->deadline_ms > most)
		c->deadline_ms = most;
}

void server_conn_owes(struct server_conn *c, uint64_t bytes)
{
	c->deadline_ms = c->loop->now_ms + SERVER_PATIENCE_MS + bytes / (SERVER_RATE / 1000);
}

void server_conn_suspend(struct server_conn *c)
{
	c->suspended = 1;
	c->left_ms = c->deadline_ms > c->loop->now_ms ? c->deadline_ms - c->loop->now_ms : 0;
	c->loop->suspended++;
}

void server_conn_resume(struct server_conn *c)
{
	c->suspended = 0;
	c->left = 0;
	c->deadline_ms = c->loop->now_ms + c->left_ms;
	c->loop->suspended--;
}

void server_conn_cut(struct server_conn *c)
{
	shutdown(c->fd, SHUT_RDWR);
	c->deadline_ms = UINT64_MAX; /* once is enough */
}

/*
 * The library misses the end of a peer whose last bytes came together with it: end such connections, unless a
 * reply is still owed to one that has only closed its own direction.
 */
static void server_sweep_left(struct server_loop *loop)
{
	struct server_conn *c, *at[SERVER_SWEEP_POLL];
	struct pollfd fds[SERVER_SWEEP_POLL];
	nfds_t n = 0, i;

	for (c = loop->conns; c; c = c->next) {
		if (!c->suspended && c->deadline_ms != UINT64_MAX && (!c->busy || c->receiving)) {
			at[n] = c;
			fds[n++] = (struct pollfd){c->fd, POLLRDHUP, 0};
		}
		if (n < SERVER_SWEEP_POLL && c->next)
			continue;
		if (n && poll(fds, n, 0) > 0) {
			for (i = 0; i < n; i++) {
				if (fds[i].revents && at[i]->left)
					server_conn_cut(at[i]);
				at[i]->left = fds[i].revents != 0;
			}
		}
		n = 0;
	}
}

static void server_sweep(struct server_loop *loop, int draining)
{
	uint64_t since = draining ? loop->now_ms - loop->draining_since_ms : 0;
	struct server_conn *c;

	for (c = loop->conns; c; c = c->next) {
		if (c->suspended || c->deadline_ms == UINT64_MAX)
			continue;
		if (c->deadline_ms <= loop->now_ms || (draining && !c->busy && since >= SERVER_LINGER_MS) ||
			(draining && since >= loop->server->grace_ms))
			server_conn_cut(c);
	}
	server_sweep_left(loop);
	loop->swept_ms = loop->now_ms;
}

/* ---- the loop ---- */

static void server_add_socket(struct server_loop *loop, int fd)
{
	struct sockaddr_storage addr;
	socklen_t size = sizeof(addr);

	if (getpeername(fd, (struct sockaddr *)&addr, &size)) {
		close(fd);
		goto gone;
	}
	if (MHD_add_connection(loop->daemon, fd, (struct sockaddr *)&addr, size) == MHD_YES)
		return;
gone: /* the library has closed it */
	atomic_fetch_sub(&loop->connections, 1);
	if (!loop->admin)
		atomic_fetch_sub(&loop->server->connections, 1);
}

/* Take up what other threads have queued. */
static void server_take(struct server_loop *loop)
{
	struct request *r, *next;
	size_t i, count;
	int *sockets;

	pthread_mutex_lock(&loop->lock);
	r = loop->resumed;
	loop->resumed = NULL;
	loop->resumed_last = &loop->resumed;
	sockets = loop->sockets;
	count = loop->socket_count;
	loop->sockets = NULL;
	loop->socket_count = loop->socket_cap = 0;
	pthread_mutex_unlock(&loop->lock);
	for (; r; r = next) {
		next = r->next;
		request_go_on(r);
	}
	for (i = 0; i < count; i++)
		server_add_socket(loop, sockets[i]);
	free(sockets);
}

static int server_poll_ms(struct server_loop *loop)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	int most = loop->server->draining ? SERVER_DRAIN_SWEEP_MS : SERVER_POLL_MS;

	if (MHD_get_timeout(loop->daemon, &timeout) == MHD_YES && timeout < (unsigned)most)
		return (int)timeout;
	return most;
}

static void server_poll(struct server_loop *loop, int epoll_fd)
{
	struct pollfd fds[2] = {{epoll_fd, POLLIN, 0}, {loop->wake_fd, POLLIN, 0}};
	uint64_t count;

	if (poll(fds, 2, server_poll_ms(loop)) > 0 && fds[1].revents)
		(void)!read(loop->wake_fd, &count, sizeof(count));
	loop->now_ms = role_clock_ms();
	atomic_store(&loop->beat_ms, loop->now_ms);
}

static void *server_loop_main(void *arg)
{
	struct server_loop *loop = arg;
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(loop->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int draining = 0;

	pthread_setname_np(pthread_self(), loop->admin ? "admin" : "loop");
	while (!draining || loop->conns || loop->suspended) {
		server_poll(loop, info->epoll_fd);
		server_take(loop);
		MHD_run(loop->daemon);
		if (loop->wrote) {
			loop->wrote = 0;
			writer_kick(loop->server->writer);
		}
		if (!draining && loop->server->draining) {
			draining = 1;
			loop->draining_since_ms = loop->now_ms;
		}
		if (loop->now_ms - loop->swept_ms >= (draining ? SERVER_DRAIN_SWEEP_MS : SERVER_SWEEP_MS))
			server_sweep(loop, draining);
	}
	MHD_stop_daemon(loop->daemon);
	request_spares_free(loop);
	return NULL;
}

void server_resume(struct request *const *requests, size_t count)
{
	struct server_loop *wake[64];
	size_t i, k, loops = 0;

	for (i = 0; i < count; i++) {
		struct request *r = requests[i];
		struct server_loop *loop = r->loop;

		pthread_mutex_lock(&loop->lock);
		r->next = NULL;
		*loop->resumed_last = r;
		loop->resumed_last = &r->next;
		pthread_mutex_unlock(&loop->lock);
		for (k = 0; k < loops && wake[k] != loop; k++)
			;
		if (k == loops && loops < sizeof(wake) / sizeof(wake[0]))
			wake[loops++] = loop;
		else if (k == loops)
			server_wake(loop->wake_fd);
	}
	for (k = 0; k < loops; k++)
		server_wake(wake[k]->wake_fd);
}

/* ---- accepting ---- */

enum server_refusal { SERVER_REFUSE_CONNECTIONS, SERVER_REFUSE_UNAVAILABLE };

static void server_refuse(struct server *s, int fd, enum server_refusal which)
{
	static const struct {
		const char *code, *detail;
	} words[] = {{"too-many-connections", "too many connections are open"},
		{"unavailable", "this follower has not received the database yet"}};
	char text[768], body[384];
	int n;

	n = snprintf(body, sizeof(body),
		"{\"type\":\"urn:btree_store:problem:%s\",\"title\":\"Service Unavailable\","
		"\"status\":503,\"code\":\"%s\",\"detail\":\"%s\"}\n",
		words[which].code, words[which].code, words[which].detail);
	n = snprintf(text, sizeof(text),
		"HTTP/1.1 503 Service Unavailable\r\nContent-Type: "
		"application/problem+json\r\nContent-Length: %d\r\n"
		"Connection: close\r\nRetry-After: 1\r\nBTS-Error: %s\r\n\r\n%s",
		n, words[which].code, body);
	if (which == SERVER_REFUSE_CONNECTIONS)
		atomic_fetch_add(&s->refused, 1);
	else /* its request was read by nobody: closing now would reset the connection before the reply is seen */
		(void)!recv(fd, body, sizeof(body), MSG_DONTWAIT);
	(void)!send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

/* A connection counts from its accept on, whether it has spoken or not; the admin's loop counts its own. */
static int server_full(struct server_accept *a)
{
	if (a->admin)
		return a->server->loops[a->first_loop].connections >= SERVER_ADMIN_CONNECTIONS;
	return a->server->connections >= a->server->connection_limit;
}

static void server_gone(struct server_accept *a)
{
	if (!a->admin)
		atomic_fetch_sub(&a->server->connections, 1);
}

static void server_hand_over(struct server_accept *a, int fd)
{
	struct server_loop *loop = &a->server->loops[a->first_loop + a->next++ % a->loops];

	pthread_mutex_lock(&loop->lock);
	if (loop->socket_count == loop->socket_cap) {
		size_t cap = loop->socket_cap ? 2 * loop->socket_cap : 16;
		int *sockets = realloc(loop->sockets, cap * sizeof(*sockets));

		if (!sockets) {
			pthread_mutex_unlock(&loop->lock);
			server_refuse(a->server, fd, SERVER_REFUSE_CONNECTIONS);
			server_gone(a);
			return;
		}
		loop->sockets = sockets;
		loop->socket_cap = cap;
	}
	loop->sockets[loop->socket_count++] = fd;
	pthread_mutex_unlock(&loop->lock);
	atomic_fetch_add(&loop->connections, 1);
	server_wake(loop->wake_fd);
}

/*
 * The replication has a thread and an HTTP daemon of its own (replicator/serve.h), so that frames hold up no client
 * and clients no frame.  Which connection is for it is told by its first request; libmicrohttpd cannot give one away
 * later, so the accept thread looks at the first bytes without taking them.
 */
static void server_to_frames(struct server_accept *a, int fd)
{
	struct serve *frames = atomic_load(&a->server->frames);
	struct bts_error error = {0};
	struct bts *db;

	if (!frames && (db = role_db(a->server->role))) {
		struct serve_options options = {
			.db = db, .name = role_name(a->server->role),
			.rate = a->server->config->serve_rate, .guard = a->server->guard, .events = role_events(a->server->role)};

		if (serve_start(&options, &frames, &error))
			log_event("error", "replication-failed", LOG_FIELDS(LOG_TEXT("detail", error.text)));
		else
			atomic_store(&a->server->frames, frames);
	}
	server_gone(a);
	if (frames)
		serve_adopt(frames, fd);
	else
		server_refuse(a->server, fd, SERVER_REFUSE_UNAVAILABLE);
}

/* 1 when it has found its place; 0: it has not spoken yet. */
static int server_place(struct server_accept *a, int fd, int late)
{
	char bytes[SERVER_FRESH_BYTES];
	ssize_t got = a->admin ? 0 : recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN && !late)
		return 0;
	if (got > 0 && serve_claims(bytes, (size_t)got))
		server_to_frames(a, fd);
	else
		server_hand_over(a, fd);
	return 1;
}

static void server_accept_one(struct server_accept *a)
{
	int fd = accept4(a->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			poll(&a->fresh[1], 1, 100); /* trying again at once would only burn the core */
		return;
	}
	if (server_full(a)) {
		server_refuse(a->server, fd, SERVER_REFUSE_CONNECTIONS);
		return;
	}
	if (!a->admin)
		atomic_fetch_add(&a->server->connections, 1);
	if (server_place(a, fd, a->fresh_count == 2 + SERVER_FRESH_MAX))
		return;
	a->fresh_ms[a->fresh_count] = role_clock_ms();
	a->fresh[a->fresh_count++] = (struct pollfd){fd, POLLIN | POLLRDHUP, 0};
}

/* Those who have spoken, and those who have kept quiet for too long. */
static void server_place_fresh(struct server_accept *a)
{
	uint64_t now = role_clock_ms();
	nfds_t i = 2;

	while (i < a->fresh_count) {
		int late = now - a->fresh_ms[i] >= SERVER_FRESH_MS;

		if ((late || a->fresh[i].revents) &&
			server_place(a, a->fresh[i].fd, late || (a->fresh[i].revents & ~POLLIN))) {
			a->fresh[i] = a->fresh[--a->fresh_count];
			a->fresh_ms[i] = a->fresh_ms[a->fresh_count];
		} else {
			i++;
		}
	}
}

static void *server_accept_main(void *arg)
{
	struct server_accept *a = arg;

	pthread_setname_np(pthread_self(), "accept");
	a->fresh[0] = (struct pollfd){a->fd, POLLIN, 0};
	a->fresh[1] = (struct pollfd){a->stop_fd, POLLIN, 0};
	a->fresh_count = 2;
	while (poll(a->fresh, a->fresh_count, a->fresh_count > 2 ? 100 : -1) < 0 || !a->fresh[1].revents) {
		server_place_fresh(a);
		if (a->fresh[0].revents)
			server_accept_one(a);
	}
	while (a->fresh_count > 2)
		server_hand_over(a, a->fresh[--a->fresh_count].fd);
	close(a->fd);
	return NULL;
}

int server_listen(const struct settings_address *address, char text[64])
{
	struct sockaddr_storage addr = address->addr;
	socklen_t size = sizeof(addr);
	int one = 1;
	int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	config_address_text(&addr, text);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
		bind(fd, (struct sockaddr *)&addr, address->size) || listen(fd, 1024) ||
		getsockname(fd, (struct sockaddr *)&addr, &size)) {
		server_log_errno("listen-failed", text, errno);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	config_address_text(&addr, text);
	return fd;
}

/* ---- start and stop ---- */

static unsigned server_connection_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return 512;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur > SERVER_CONNECTIONS_MAX + 256)
		return SERVER_CONNECTIONS_MAX;
	return limit.rlim_cur > 512 ? (unsigned)limit.rlim_cur - 256 : 256;
}

static int server_start_loop(struct server *s, unsigned i, int admin)
{
	struct server_loop *loop = &s->loops[i];

	loop->server = s;
	loop->admin = admin;
	(void)!getrandom(&loop->id_salt, sizeof(loop->id_salt), 0);
	loop->resumed_last = &loop->resumed;
	loop->now_ms = role_clock_ms();
	atomic_store(&loop->beat_ms, loop->now_ms);
	pthread_mutex_init(&loop->lock, NULL);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->metrics = calloc(1, sizeof(*loop->metrics));
	if (loop->wake_fd < 0 || !loop->metrics)
		return -1;
	loop->daemon = request_daemon(loop, s->connection_limit + SERVER_ADMIN_CONNECTIONS);
	if (!loop->daemon)
		return -1;
	loop->started = !pthread_create(&loop->thread, NULL, server_loop_main, loop);
	return loop->started ? 0 : -1;
}

static int server_start_accept(struct server *s, int which, int fd)
{
	struct server_accept *a = calloc(1, sizeof(*a));

	if (!a)
		return -1;
	a->server = s;
	a->fd = fd;
	a->admin = which;
	a->first_loop = which ? s->loop_count - 1 : 0;
	a->loops = which ? 1 : (unsigned)s->config->threads;
	a->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (a->stop_fd < 0 || pthread_create(&a->thread, NULL, server_accept_main, a)) {
		free(a);
		return -1;
	}
	s->accepts[which] = a;
	return 0;
}

int server_start(struct server *s, int fd, int admin_fd)
{
	unsigned i;

	s->connection_limit = server_connection_limit();
	s->loop_count = (unsigned)s->config->threads + (admin_fd >= 0);
	s->loops = calloc(s->loop_count, sizeof(*s->loops));
	if (!s->loops)
		goto fail;
	for (i = 0; i < s->loop_count; i++)
		if (server_start_loop(s, i, i >= s->config->threads))
			goto fail;
	if (server_start_accept(s, 0, fd) || (admin_fd >= 0 && server_start_accept(s, 1, admin_fd)))
		goto fail;
	return 0;

fail:
	server_log_errno("start-failed", "threads", errno);
	return -1;
}

static void server_stop_accept(struct server_accept *a)
{
	if (!a)
		return;
	server_wake(a->stop_fd);
	pthread_join(a->thread, NULL);
	close(a->stop_fd);
	free(a);
}

void server_stop(struct server *s, unsigned grace_ms)
{
	const struct timespec moment = {0, 1000000};
	struct serve *frames;
	unsigned i;

	s->grace_ms = grace_ms;
	server_stop_accept(s->accepts[0]);
	server_stop_accept(s->accepts[1]);
	atomic_store(&s->draining, 1);
	frames = atomic_exchange(&s->frames, NULL);
	for (i = 0; i < s->loop_count; i++) {
		struct server_loop *loop = &s->loops[i];

		if (loop->started) {
			server_wake(loop->wake_fd);
			pthread_join(loop->thread, NULL);
		}
	}
	serve_stop(frames); /* a loop may have been counting what it does */
	while (atomic_load(&s->jobs)) /* their replies are out: they only have to return */
		nanosleep(&moment, NULL);
}

void server_free(struct server *s)
{
	unsigned i;

	for (i = 0; i < s->loop_count; i++) {
		close(s->loops[i].wake_fd);
		free(s->loops[i].metrics);
		free(s->loops[i].sockets);
		pthread_mutex_destroy(&s->loops[i].lock);
	}
	free(s->loops);
}

uint64_t server_stalled_ms(struct server *s)
{
	uint64_t now = role_clock_ms(), worst = 0, beat;
	unsigned i;

	for (i = 0; i < s->loop_count; i++) {
		beat = atomic_load(&s->loops[i].beat_ms);
		if (now > beat && now - beat > worst)
			worst = now - beat;
	}
	return worst;
}
