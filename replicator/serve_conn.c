/*
 * Connections, and how long each may take to say what it wants.  The library's own limit counts from the last byte, so a head or a body
 * that comes a byte at a time would hold its place for ever.
 */
#include "serve_private.h"

#include <stdlib.h>
#include <sys/socket.h>

#define SERVE_HEAD_MS 20000 /* from the begin of the connection to the end of its first head */
#define SERVE_BODY_MS 60000 /* from there to the end of the body */
#define SERVE_KEPT_MS 75000 /* from the end of a reply to the end of the next head */
#define SERVE_LOOK_MS 1000
#define SERVE_SPARE 64 /* places that are kept free, if some only wait */

struct serve_conn {
	struct serve_conn *next, **link;
	int fd;
	struct serve_request *request; /* that has begun and not ended */
	uint64_t deadline_ms; /* UINT64_MAX: none, a reply is under way */
};

/* A request that the library gave up without a word, as it does where its memory for the head is used up. */
static void serve_conn_lost(struct serve *serve, struct MHD_Connection *connection, struct serve_conn *conn)
{
	void *context = conn->request;

	conn->request = NULL;
	if (context)
		serve_on_completed(serve, connection, &context, MHD_REQUEST_TERMINATED_WITH_ERROR);
}

void serve_on_connection(void *arg, struct MHD_Connection *connection, void **context,
	enum MHD_ConnectionNotificationCode code)
{
	struct serve_conn *conn = *context;
	struct serve *serve = arg;
	const union MHD_ConnectionInfo *info;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (conn)
			serve_conn_lost(serve, connection, conn);
		*context = NULL;
		if (conn)
			*conn->link = conn->next;
		if (conn && conn->next)
			conn->next->link = conn->link;
		serve->conn_count -= conn != NULL;
		free(conn);
		return;
	}
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	conn = info ? calloc(1, sizeof(*conn)) : NULL; /* without memory it has only the library's limit */
	*context = conn;
	if (!conn)
		return;
	conn->fd = info->connect_fd;
	conn->deadline_ms = serve_now_ms() + SERVE_HEAD_MS;
	conn->next = serve->conns;
	conn->link = &serve->conns;
	if (conn->next)
		conn->next->link = &conn->next;
	serve->conns = conn;
	serve->conn_count++;
}

/* Of those that only wait, the one whose time is up first: strangers have less of it than who has been answered. */
void serve_conn_make_room(struct serve *serve)
{
	struct serve_conn *conn, *first = NULL;

	if (serve->conn_count < SERVE_CONNECTIONS_MAX - SERVE_SPARE)
		return;
	for (conn = serve->conns; conn; conn = conn->next)
		if (conn->deadline_ms != UINT64_MAX && (!first || conn->deadline_ms <= first->deadline_ms))
			first = conn;
	if (!first)
		return;
	shutdown(first->fd, SHUT_RDWR);
	first->deadline_ms = UINT64_MAX;
}

static struct serve_conn *serve_conn_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void serve_conn_until(struct MHD_Connection *connection, uint64_t deadline_ms)
{
	struct serve_conn *conn = serve_conn_of(connection);

	if (conn)
		conn->deadline_ms = deadline_ms;
}

void serve_conn_begun(struct serve *serve, struct MHD_Connection *connection, struct serve_request *request)
{
	struct serve_conn *conn = serve_conn_of(connection);

	if (!conn)
		return;
	serve_conn_lost(serve, connection, conn);
	conn->request = request;
}

void serve_conn_headed(struct MHD_Connection *connection)
{
	serve_conn_until(connection, serve_now_ms() + SERVE_BODY_MS);
}

void serve_conn_asked(struct MHD_Connection *connection)
{
	serve_conn_until(connection, UINT64_MAX);
}

void serve_conn_answered(struct MHD_Connection *connection)
{
	struct serve_conn *conn = serve_conn_of(connection);

	if (conn)
		conn->request = NULL;
	serve_conn_until(connection, serve_now_ms() + SERVE_KEPT_MS);
}

void serve_conn_watch(struct serve *serve)
{
	uint64_t now = serve_now_ms();

	if (now < serve->conns_ms)
		return;
	serve->conns_ms = now + SERVE_LOOK_MS;
	for (struct serve_conn *conn = serve->conns; conn; conn = conn->next)
		if (conn->deadline_ms <= now) {
			shutdown(conn->fd, SHUT_RDWR); /* the library finds its end */
			conn->deadline_ms = UINT64_MAX;
		}
}
