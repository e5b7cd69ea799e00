/*
 * Parking: waiting for the writer, whose flush takes less than a millisecond, without suspending.
 *
 * Suspending takes the socket out of the library's epoll set; going on puts it back, later, after a read that finds nothing.  A
 * parked request is only given no reply: the library calls again at each of its turns, and is not run for this alone (server.c).  Its
 * connection may end meanwhile.
 */
#include <microhttpd.h>

#include "request.h"
#include "server.h"

int request_park(struct request *r, void (*resume)(struct request *))
{
	struct server_loop *loop = r->loop;

	if (loop->parked == SERVER_PARKED || loop->tls || r->conn->receiving)
		return -1;
	loop->parking[loop->parked++] = r;
	r->parked = loop->parked;
	r->resume = resume;
	r->suspended_us = request_timed_us(r);
	server_conn_suspend(r->conn);
	return 0;
}

void request_unpark(struct request *r)
{
	struct server_loop *loop = r->loop;
	struct request *last = loop->parking[--loop->parked];

	loop->parking[r->parked - 1] = last;
	last->parked = r->parked;
	r->parked = 0;
}

void request_park_none(struct server_loop *loop)
{
	while (loop->parked) {
		struct request *r = loop->parking[loop->parked - 1];

		request_unpark(r);
		MHD_suspend_connection(r->mhd);
	}
}
