/*
 * A listening socket and the thread that takes connections from it.
 *
 * When all connections that may be open are, those that only wait (idle ones, and first of all those that have never finished a
 * head) are ended by their loops, the longest waiting first, so that who opens many and says little does not lock others out; a
 * few more than the limit are let in meanwhile.
 */
#include "listener.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "peers.h"
#include "role.h"
#include "serve.h"
#include "server.h"

#define LISTENER_FRESH_MAX                                                                                   \
	128 /* connections that have not said yet what they want; more go to the loops at once */
#define LISTENER_FRESH_MS 1000 /* and how long they may keep that to themselves */
#define LISTENER_FRESH_BYTES 64
#define LISTENER_ROOM_MS 5
#define LISTENER_ROOM_ROUNDS 20

/* A connection that has been taken. */
struct listener_taken {
	int fd;
	struct peer *peer; /* that it counts for */
};

struct listener {
	struct server *server;
	pthread_t thread;
	int fd, stop_fd;
	unsigned first_loop, loops, next;
	enum listener_kind kind;
	int tls;
	/* waiting for their first bytes, which tell whether they are for the replication */
	struct pollfd fresh[2 + LISTENER_FRESH_MAX]; /* [0] the listening socket, [1] the stop */
	struct peer *fresh_peer[2 + LISTENER_FRESH_MAX];
	uint64_t fresh_ms[2 + LISTENER_FRESH_MAX];
	nfds_t fresh_count;
};

enum listener_refusal { LISTENER_CONNECTIONS, LISTENER_UNAVAILABLE };

/* Closes it, with a word where that can be understood without a handshake. */
static void listener_refuse(struct listener *l, int fd, enum listener_refusal which)
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
	if (which == LISTENER_CONNECTIONS)
		atomic_fetch_add(&l->server->refused, 1);
	else /* its request was read by nobody: closing now would reset the connection before the reply is seen */
		(void)!recv(fd, body, sizeof(body), MSG_DONTWAIT);
	if (!l->tls)
		(void)!send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

static void listener_ask_for_room(struct listener *l)
{
	unsigned i;

	for (i = 0; i < l->loops; i++) {
		struct server_loop *loop = &l->server->loops[l->first_loop + i];

		if (!atomic_exchange(&loop->crowded, 1))
			server_wake(loop->wake_fd);
	}
}

/*
 * A connection counts from its accept on, whether it has spoken or not; the admin's loop counts its own.  Full, the loops are asked
 * for room, and waited for as long as they make any; 1: there is none even beyond the limit.
 */
static int listener_full(struct listener *l)
{
	struct server *s = l->server;
	atomic_uint *count =
		l->kind == LISTENER_ADMIN ? &s->loops[l->first_loop].connections : &s->connections;
	unsigned limit = l->kind == LISTENER_ADMIN ? SERVER_ADMIN_CONNECTIONS : s->connection_limit, round;
	uint64_t evicted;

	for (round = 0; *count >= limit; round++) {
		evicted = s->evicted;
		listener_ask_for_room(l);
		if (*count < limit + SERVER_SPARE_CONNECTIONS)
			return 0;
		poll(&l->fresh[1], 1, LISTENER_ROOM_MS);
		if (round >= 1 && (evicted == s->evicted || round == LISTENER_ROOM_ROUNDS))
			return *count >= limit + SERVER_SPARE_CONNECTIONS;
	}
	return 0;
}

static void listener_gone(struct listener *l, struct peer *peer)
{
	if (l->kind != LISTENER_ADMIN)
		atomic_fetch_sub(&l->server->connections, 1);
	peers_leave(l->server->peers, peer);
}

static void listener_hand_over(struct listener *l, const struct listener_taken *taken)
{
	struct server_loop *loop = &l->server->loops[l->first_loop + l->next++ % l->loops];

	atomic_fetch_add(&loop->connections, 1);
	if (!server_give(loop, taken->fd, taken->peer))
		return;
	atomic_fetch_sub(&loop->connections, 1);
	listener_refuse(l, taken->fd, LISTENER_CONNECTIONS);
	listener_gone(l, taken->peer);
}

/* Begun with the first connection for it, as a follower has no file before. */
static struct serve *listener_frames(struct server *s)
{
	struct serve_options options = {.db = role_db(s->role),
		.name = role_name(s->role),
		.rate = s->config->serve_rate,
		.guard = s->guard,
		.tls = s->config->secure.tls_cert != NULL,
		.events = role_events(s->role)};
	struct bts_error error = {0};
	struct serve *frames;

	pthread_mutex_lock(&s->frames_lock);
	frames = atomic_load(&s->frames);
	if (!frames && options.db) {
		if (serve_start(&options, &frames, &error))
			log_event("error", "replication-failed", LOG_FIELDS(LOG_TEXT("detail", error.text)));
		else
			atomic_store(&s->frames, frames);
	}
	pthread_mutex_unlock(&s->frames_lock);
	return frames;
}

/*
 * The replication has a thread and an HTTP daemon of its own (replicator/serve.h), so that frames hold up no client
 * and clients no frame.  Which connection is for it is told by its first request; libmicrohttpd cannot give one away
 * later, so this thread looks at the first bytes without taking them.
 */
static void listener_to_frames(struct listener *l, const struct listener_taken *taken)
{
	struct serve *frames = listener_frames(l->server);

	listener_gone(l, taken->peer);
	if (frames)
		serve_adopt(frames, taken->fd);
	else
		listener_refuse(l, taken->fd, LISTENER_UNAVAILABLE);
}

/* 1 when it has found its place; 0: it has not spoken yet.  What speaks TLS says nothing that could be looked at. */
static int listener_place(struct listener *l, const struct listener_taken *taken, int late)
{
	int looked_at = l->kind == LISTENER_API && !l->tls;
	char bytes[LISTENER_FRESH_BYTES];
	ssize_t got = looked_at ? recv(taken->fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT) : 0;

	if (got < 0 && errno == EAGAIN && !late)
		return 0;
	if (l->kind == LISTENER_FRAMES || (got > 0 && serve_claims(bytes, (size_t)got)))
		listener_to_frames(l, taken);
	else
		listener_hand_over(l, taken);
	return 1;
}

static void listener_accept_one(struct listener *l)
{
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	struct listener_taken taken = {-1, NULL};

	taken.fd = accept4(l->fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (taken.fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			poll(&l->fresh[1], 1, 100); /* trying again at once would only burn the core */
		return;
	}
	if (listener_full(l) || peers_enter(l->server->peers, (struct sockaddr *)&from, &taken.peer)) {
		listener_refuse(l, taken.fd, LISTENER_CONNECTIONS);
		return;
	}
	if (l->kind != LISTENER_ADMIN)
		atomic_fetch_add(&l->server->connections, 1);
	if (listener_place(l, &taken, l->fresh_count == 2 + LISTENER_FRESH_MAX))
		return;
	l->fresh_ms[l->fresh_count] = role_clock_ms();
	l->fresh_peer[l->fresh_count] = taken.peer;
	l->fresh[l->fresh_count++] = (struct pollfd){taken.fd, POLLIN | POLLRDHUP, 0};
}

/* Those who have spoken, and those who have kept quiet for too long. */
static void listener_place_fresh(struct listener *l)
{
	uint64_t now = role_clock_ms();
	nfds_t i = 2;

	while (i < l->fresh_count) {
		const struct listener_taken taken = {l->fresh[i].fd, l->fresh_peer[i]};
		int late = now - l->fresh_ms[i] >= LISTENER_FRESH_MS;

		if ((late || l->fresh[i].revents) &&
			listener_place(l, &taken, late || (l->fresh[i].revents & ~POLLIN))) {
			l->fresh[i] = l->fresh[--l->fresh_count];
			l->fresh_ms[i] = l->fresh_ms[l->fresh_count];
			l->fresh_peer[i] = l->fresh_peer[l->fresh_count];
		} else {
			i++;
		}
	}
}

static void *listener_main(void *arg)
{
	struct listener *l = arg;

	pthread_setname_np(pthread_self(), "accept");
	l->fresh[0] = (struct pollfd){l->fd, POLLIN, 0};
	l->fresh[1] = (struct pollfd){l->stop_fd, POLLIN, 0};
	l->fresh_count = 2;
	while (poll(l->fresh, l->fresh_count, l->fresh_count > 2 ? 100 : -1) < 0 || !l->fresh[1].revents) {
		listener_place_fresh(l);
		if (l->fresh[0].revents)
			listener_accept_one(l);
	}
	while (l->fresh_count > 2) {
		const struct listener_taken taken = {
			l->fresh[l->fresh_count - 1].fd, l->fresh_peer[l->fresh_count - 1]};

		l->fresh_count--;
		listener_hand_over(l, &taken);
	}
	close(l->fd);
	return NULL;
}

int listener_open(const struct settings_address *address, char text[64])
{
	struct sockaddr_storage addr = address->addr;
	socklen_t size = sizeof(addr);
	int one = 1;
	int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	config_address_text(&addr, text);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
		bind(fd, (struct sockaddr *)&addr, address->size) || listen(fd, 1024) ||
		getsockname(fd, (struct sockaddr *)&addr, &size)) {
		log_event("error", "listen-failed",
			LOG_FIELDS(LOG_TEXT("what", text), LOG_TEXT("detail", strerror(errno))));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	config_address_text(&addr, text);
	return fd;
}

struct listener *listener_start(
	struct server *s, enum listener_kind kind, int fd, unsigned first, unsigned loops)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->server = s;
	l->fd = fd;
	l->kind = kind;
	l->first_loop = first;
	l->loops = loops;
	l->tls = s->config->secure.tls_cert && !(kind == LISTENER_ADMIN && s->config->admin_plain);
	l->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (l->stop_fd < 0 || pthread_create(&l->thread, NULL, listener_main, l)) {
		free(l);
		return NULL;
	}
	return l;
}

void listener_stop(struct listener *l)
{
	if (!l)
		return;
	server_wake(l->stop_fd);
	pthread_join(l->thread, NULL);
	close(l->stop_fd);
	free(l);
}
