/* The lines of a request at its end. */
#include "access.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "access_private.h"
#include "jsonout.h"
#include "log.h"
#include "request.h"
#include "server.h"

#define ACCESS_TARGET_MAX 2048 /* bytes of a target or a user agent that are logged */
#define ACCESS_AGENT_MAX 256

/* What both forms tell. */
struct access_line {
	const struct request *r;
	uint64_t us;
	char address[REQUEST_PEER_SIZE], stamp[48];
	const char *method, *route, *who;
	char target[4 * ACCESS_TARGET_MAX + 4], agent[4 * ACCESS_AGENT_MAX + 4];
};

/* Quotes, backslashes and what is not printable ASCII as \xHH, so that a line is one line whatever a client sends. */
static void access_clean(char *out, const char *text, size_t max)
{
	static const char hex[] = "0123456789abcdef";
	size_t i, n = 0;

	for (i = 0; text && text[i] && i < max; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= ' ' && c < 0x7f && c != '"' && c != '\\') {
			out[n++] = (char)c;
			continue;
		}
		out[n++] = '\\';
		out[n++] = 'x';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	if (text && text[i]) {
		memcpy(out + n, "...", 3);
		n += 3;
	}
	out[n] = '\0';
}

static void access_fill(struct access_line *l, const struct request *r, uint64_t us)
{
	l->r = r;
	l->us = us;
	request_peer(r, l->address);
	l->method = r->head ? "HEAD" : route_method_name(r->method);
	l->route = r->route ? r->route->template : "none";
	l->who = *r->who ? r->who : "-";
	access_clean(l->target, r->uri.target, ACCESS_TARGET_MAX);
	access_clean(l->agent, request_get_header(r, "User-Agent"), ACCESS_AGENT_MAX);
}

static void access_stamp(struct access_line *l, const char *format)
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(l->stamp, sizeof(l->stamp), format, &tm);
}

/* The combined form of other servers, and ours behind it. */
static void access_text(struct buf *b, struct access_line *l)
{
	const struct request *r = l->r;

	access_stamp(l, "%d/%b/%Y:%H:%M:%S +0000");
	buf_printf(b, "%s - %s [%s] \"%s %s HTTP/1.1\" %u %" PRIu64 " \"-\" \"%s\"", l->address, l->who,
		l->stamp, l->method, *l->target ? l->target : "-", r->status, r->bytes_out,
		*l->agent ? l->agent : "-");
	buf_printf(b, " id=%s route=%s in=%" PRIu64 " us=%" PRIu64 " txid=%" PRIu64 "\n",
		*r->id ? r->id : "-", l->route, r->bytes_in, l->us, (uint64_t)r->txid);
}

static void access_json(struct buf *b, struct access_line *l)
{
	const struct request *r = l->r;

	access_stamp(l, "%Y-%m-%dT%H:%M:%SZ");
	buf_printf(b, "{\"time\":\"%s\",\"request_id\":\"%s\",\"address\":\"%s\",\"token\":", l->stamp, r->id,
		l->address);
	jsonout_string(b, r->who);
	buf_printf(b, ",\"method\":\"%s\",\"target\":", l->method);
	jsonout_string(b, l->target);
	buf_printf(b, ",\"route\":\"%s\",\"status\":%u,\"bytes_in\":%" PRIu64 ",\"bytes_out\":%" PRIu64,
		l->route, r->status, r->bytes_in, r->bytes_out);
	buf_printf(b, ",\"duration_us\":%" PRIu64 ",\"txid\":%" PRIu64 ",\"user_agent\":", l->us,
		(uint64_t)r->txid);
	jsonout_string(b, l->agent);
	buf_str(b, "}\n");
}

/* Where its time went: parts that add up to all of it, but for what no part claims (other_us). */
static void access_slow(struct buf *b, const struct access_line *l)
{
	const struct request *r = l->r;
	const uint64_t *part = r->part_us;
	uint64_t receive = r->received_us ? r->received_us - r->started_us : 0;
	uint64_t send = r->replied_us ? r->started_us + l->us - r->replied_us : 0, known = receive + send;
	unsigned i;

	for (i = 0; i < REQUEST_PARTS; i++)
		known += part[i];
	log_line(b, "warn", "slow-request",
		LOG_FIELDS(LOG_TEXT("id", r->id), LOG_TEXT("method", l->method), LOG_TEXT("route", l->route),
			LOG_TEXT("target", l->target), LOG_U64("status", r->status), LOG_U64("us", l->us),
			LOG_U64("receive_us", receive), LOG_U64("wait_us", part[REQUEST_WAIT]),
			LOG_U64("queue_us", part[REQUEST_QUEUE]), LOG_U64("commit_us", part[REQUEST_COMMIT]),
			LOG_U64("copies_us", part[REQUEST_COPIES]), LOG_U64("job_us", part[REQUEST_JOB]),
			LOG_U64("send_us", send), LOG_U64("other_us", l->us > known ? l->us - known : 0)));
}

void access_request(struct access *a, unsigned loop, const struct request *r, uint64_t us)
{
	uint64_t slow = atomic_load_explicit(&a->slow_us, memory_order_relaxed);
	int on = atomic_load_explicit(&a->on, memory_order_relaxed);
	struct access_line l;
	struct buf *b;

	if (!a->writer || (!on && (!slow || us < slow)))
		return;
	access_fill(&l, r, us);
	b = access_scratch(a->writer, loop);
	if (on) {
		if (log_is_json())
			access_json(b, &l);
		else
			access_text(b, &l);
		access_put(a->writer, loop, ACCESS_TO_FILE, b);
	}
	if (slow && us >= slow) {
		access_slow(b, &l);
		if (b->size) /* else the level of the log leaves it out */
			access_put(a->writer, loop, ACCESS_TO_LOG, b);
	}
}
