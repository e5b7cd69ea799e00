/* What is counted and logged of a request: where its time goes, and its end. */
#include <time.h>

#include "request.h"
#include "server.h"

uint64_t request_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t request_timed_us(const struct request *r)
{
	return atomic_load_explicit(&r->loop->server->access.slow_us, memory_order_relaxed) ? request_now_us()
											    : 0;
}

/* How long it was suspended, and what for; of a write, how much of that the writer had other things to do. */
void request_account(struct request *r)
{
	uint64_t now = r->suspended_us ? request_now_us() : 0, from = r->suspended_us;

	if (r->part == REQUEST_QUEUE && from && r->op.taken_us > from) {
		r->part_us[REQUEST_QUEUE] += r->op.taken_us - from;
		from = r->op.taken_us;
		r->part = REQUEST_COMMIT;
	}
	if (now > from)
		r->part_us[r->part] += now - from;
	r->part = REQUEST_JOB;
}

/* The counts and the logs, of a request that has ended. */
void request_tell(const struct request *r)
{
	struct server_loop *loop = r->loop;
	uint64_t us = request_now_us() - r->started_us;

	metrics_end(loop->metrics,
		&(struct metrics_request){r->route ? (unsigned)(r->route - route_table) : METRICS_ROUTES - 1,
			r->status, us, r->bytes_in, r->bytes_out});
	access_request(&loop->server->access, (unsigned)(loop - loop->server->loops), r, us);
}
