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

#include "listener.h"
#include "log.h"
#include "peers.h"
#include "request.h"
#include "role.h"
#include "serve.h"
#include "writer.h"

#define SERVER_HEAD_MS 20000	/* from its begin to the end of its first head, and of later heads from their first line on */
#define SERVER_VICTIMS 8
#define SERVER_IDLE_MS 75000	/* a connection without a request */
#define SERVER_CREDIT_MS 120000 /* how far ahead of SERVER_RATE a connection may be */
#define SERVER_SWEEP_MS 250
#define SERVER_DRAIN_SWEEP_MS 20
#define SERVER_POLL_MS 250
#define SERVER_TURNS 2 /* of the library before anything else is looked at */
#define SERVER_SWEEP_POLL 256
#define SERVER_LINGER_MS 150 /* when draining: for a request that is already on its way */
#define SERVER_CONNECTIONS_MAX 10000
#define SERVER_CHAINS 32 /* loops whose requests are handed over at once */

static void server_log_errno(const char *event, const char *what, int os)
{
	log_event("error", event, LOG_FIELDS(LOG_TEXT("what", what), LOG_TEXT("detail", strerror(os))));
}

void server_wake(int fd)
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
	c->deadline_ms = loop->now_ms + SERVER_HEAD_MS;
	c->since_ms = loop->now_ms;
	c->peer = loop->adding;
	loop->adding = NULL;
	loop->added = 1;
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
	peers_leave(c->loop->server->peers, c->peer);
	free(c);
}

void server_conn_busy(struct server_conn *c)
{
	c->busy = 1;
	c->loop->busy++;
	c->receiving = 1;
	c->deadline_ms = c->loop->now_ms + SERVER_HEAD_MS;
}

void server_conn_headed(struct server_conn *c)
{
	c->headed = 1;
	c->deadline_ms = c->loop->now_ms + SERVER_PATIENCE_MS;
}

void server_conn_idle(struct server_conn *c)
{
	c->busy = 0;
	c->loop->busy -= !c->suspended;
	c->receiving = c->headed = 0;
	c->served = 1;
	c->since_ms = c->loop->now_ms;
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
	c->loop->busy--;
}

void server_conn_resume(struct server_conn *c)
{
	c->suspended = 0;
	c->left = 0;
	c->deadline_ms = c->loop->now_ms + c->left_ms;
	c->loop->suspended--;
	c->loop->busy++;
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
	request_park_none(loop); /* a flush takes long: the library must not end them for being idle */
	loop->swept_ms = loop->now_ms;
}

/* Does a rather go than b?  Those that have never asked for anything whole go first, then the longest idle. */
static int server_rather(const struct server_conn *a, const struct server_conn *b)
{
	return a->served != b->served ? !a->served : a->since_ms < b->since_ms;
}

/* All connections that may be are open: end some that only wait, or have not got to the end of a head. */
static void server_make_room(struct server_loop *loop)
{
	struct server_conn *c, *victim[SERVER_VICTIMS];
	unsigned n = 0, i;

	for (c = loop->conns; c; c = c->next) {
		if (c->suspended || c->headed || c->deadline_ms == UINT64_MAX)
			continue;
		if (n == SERVER_VICTIMS && !server_rather(c, victim[n - 1]))
			continue;
		for (i = n < SERVER_VICTIMS ? n++ : n - 1; i && server_rather(c, victim[i - 1]); i--)
			victim[i] = victim[i - 1];
		victim[i] = c;
	}
	for (i = 0; i < n; i++)
		server_conn_cut(victim[i]);
	atomic_fetch_add(&loop->server->evicted, n);
}

/* ---- the loop ---- */

int server_give(struct server_loop *loop, int fd, struct peer *peer)
{
	struct server_socket *sockets;
	size_t cap;
	int asleep;

	pthread_mutex_lock(&loop->lock);
	if (loop->socket_count == loop->socket_cap) {
		cap = loop->socket_cap ? 2 * loop->socket_cap : 16;
		sockets = realloc(loop->sockets, cap * sizeof(*sockets));
		if (!sockets) {
			pthread_mutex_unlock(&loop->lock);
			return -1;
		}
		loop->sockets = sockets;
		loop->socket_cap = cap;
	}
	loop->sockets[loop->socket_count++] = (struct server_socket){fd, peer};
	asleep = loop->asleep;
	loop->asleep = 0;
	pthread_mutex_unlock(&loop->lock);
	if (asleep)
		server_wake(loop->wake_fd);
	return 0;
}

static void server_add_socket(struct server_loop *loop, int fd, struct peer *peer)
{
	struct sockaddr_storage addr;
	socklen_t size = sizeof(addr);

	if (getpeername(fd, (struct sockaddr *)&addr, &size)) {
		close(fd);
		goto gone;
	}
	loop->adding = peer;
	loop->added = 0;
	(void)MHD_add_connection(loop->daemon, fd, (struct sockaddr *)&addr, size);
	if (loop->added)
		return;
	loop->adding = NULL;
gone: /* the library has closed it, and never told of it; or there was no memory to count it */
	peers_leave(loop->server->peers, peer);
	atomic_fetch_sub(&loop->connections, 1);
	if (!loop->admin)
		atomic_fetch_sub(&loop->server->connections, 1);
}

/* Take up what other threads have queued. */
static void server_take(struct server_loop *loop)
{
	struct request *r, *next;
	size_t i, count;
	struct server_socket *sockets;

	pthread_mutex_lock(&loop->lock);
	r = loop->resumed;
	loop->resumed = NULL;
	loop->resumed_last = &loop->resumed;
	sockets = loop->sockets;
	count = loop->socket_count;
	loop->sockets = NULL;
	loop->socket_count = loop->socket_cap = 0;
	loop->asleep = 0;
	pthread_mutex_unlock(&loop->lock);
	for (; r; r = next) {
		next = r->next;
		request_go_on(r);
	}
	for (i = 0; i < count; i++)
		server_add_socket(loop, sockets[i].fd, sockets[i].peer);
	free(sockets);
}

/*
 * How long the library may be left alone.  It takes parked connections for ones with something to do, and cannot be asked about the
 * others: those have nothing when it has not called for any of them in its last turn, and none of their requests is under way.
 */
static int server_idle_ms(struct server_loop *loop)
{
	int most = loop->server->draining ? SERVER_DRAIN_SWEEP_MS : SERVER_POLL_MS;
	MHD_UNSIGNED_LONG_LONG timeout;

	if (loop->parked && !loop->called) {
		if (!loop->busy)
			return most;
		request_park_none(loop);
	}
	if (MHD_get_timeout(loop->daemon, &timeout) == MHD_YES && timeout < (unsigned)most)
		return (int)timeout;
	return most;
}

/* Before it sleeps: whether there is nothing to take up.  From then on who adds something wakes it. */
static int server_may_sleep(struct server_loop *loop)
{
	int may;

	pthread_mutex_lock(&loop->lock);
	may = loop->asleep = !loop->resumed && !loop->socket_count;
	pthread_mutex_unlock(&loop->lock);
	return may;
}

/* With something to do it does not ask: the library's turn looks at its own descriptors. */
static void server_poll(struct server_loop *loop, int epoll_fd)
{
	struct pollfd fds[2] = {{epoll_fd, POLLIN, 0}, {loop->wake_fd, POLLIN, 0}};
	int ms = server_idle_ms(loop);
	uint64_t count;

	if (ms && server_may_sleep(loop) && poll(fds, 2, ms) > 0 && fds[1].revents)
		(void)!read(loop->wake_fd, &count, sizeof(count));
	loop->now_ms = role_clock_ms();
	atomic_store(&loop->beat_ms, loop->now_ms);
}

/* Who was resumed gets its reply made in one turn of the library and sent in the next. */
static void server_run(struct server_loop *loop)
{
	for (int turn = 0; turn < SERVER_TURNS && (!turn || !server_idle_ms(loop)); turn++) {
		loop->called = 0;
		MHD_run(loop->daemon);
	}
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
		server_run(loop);
		if (atomic_exchange(&loop->crowded, 0)) /* after it has read what heads there are */
			server_make_room(loop);
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
	reply_again_fini(&loop->again);
	request_spares_free(loop);
	return NULL;
}

struct server_chain {
	struct server_loop *loop;
	struct request *first, **last;
};

/* Only a loop that sleeps is woken: that costs microseconds. */
static void server_hand_over(const struct server_chain *chain)
{
	struct server_loop *loop = chain->loop;
	int asleep;

	*chain->last = NULL;
	pthread_mutex_lock(&loop->lock);
	*loop->resumed_last = chain->first;
	loop->resumed_last = chain->last;
	asleep = loop->asleep;
	loop->asleep = 0;
	pthread_mutex_unlock(&loop->lock);
	if (asleep)
		server_wake(loop->wake_fd);
}

void server_resume(struct request *const *requests, size_t count)
{
	struct server_chain chains[SERVER_CHAINS];
	size_t i, k, n = 0;

	for (i = 0; i < count; i++) {
		struct request *r = requests[i];

		for (k = 0; k < n && chains[k].loop != r->loop; k++)
			;
		if (k == SERVER_CHAINS) {
			while (n > 0)
				server_hand_over(&chains[--n]);
			k = 0;
		}
		if (k == n) {
			chains[k] = (struct server_chain){r->loop, NULL, NULL};
			chains[k].last = &chains[k].first;
			n++;
		}
		*chains[k].last = r;
		chains[k].last = &r->next;
	}
	while (n > 0)
		server_hand_over(&chains[--n]);
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
	loop->tls = s->config->secure.tls_cert && !(admin && s->config->admin_plain);
	(void)!getrandom(&loop->id_salt, sizeof(loop->id_salt), 0);
	loop->resumed_last = &loop->resumed;
	loop->now_ms = role_clock_ms();
	atomic_store(&loop->beat_ms, loop->now_ms);
	pthread_mutex_init(&loop->lock, NULL);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->metrics = calloc(1, sizeof(*loop->metrics));
	if (loop->wake_fd < 0 || !loop->metrics)
		return -1;
	loop->daemon = request_daemon(loop, s->connection_limit + SERVER_ADMIN_CONNECTIONS + SERVER_SPARE_CONNECTIONS);
	if (!loop->daemon)
		return -1;
	loop->started = !pthread_create(&loop->thread, NULL, server_loop_main, loop);
	return loop->started ? 0 : -1;
}

int server_start(struct server *s, const int fds[LISTENER_KINDS])
{
	unsigned threads = (unsigned)s->config->threads;
	unsigned i;

	s->connection_limit = server_connection_limit();
	s->loop_count = threads + (fds[LISTENER_ADMIN] >= 0);
	s->peers = peers_new((unsigned)s->config->per_address);
	pthread_mutex_init(&s->frames_lock, NULL);
	s->loops = calloc(s->loop_count, sizeof(*s->loops));
	if (!s->loops || !s->peers)
		goto fail;
	for (i = 0; i < s->loop_count; i++)
		if (server_start_loop(s, i, i >= s->config->threads))
			goto fail;
	for (i = 0; i < LISTENER_KINDS; i++) {
		if (fds[i] < 0)
			continue;
		s->listeners[i] = listener_start(
			s, i, fds[i], i == LISTENER_ADMIN ? threads : 0, i == LISTENER_ADMIN ? 1 : threads);
		if (!s->listeners[i])
			goto fail;
	}
	return 0;

fail:
	server_log_errno("start-failed", "threads", errno);
	return -1;
}

void server_stop(struct server *s, unsigned grace_ms)
{
	const struct timespec moment = {0, 1000000};
	struct serve *frames;
	unsigned i;

	s->grace_ms = grace_ms;
	for (i = 0; i < LISTENER_KINDS; i++)
		listener_stop(s->listeners[i]);
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
	peers_free(s->peers);
	pthread_mutex_destroy(&s->frames_lock);
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
