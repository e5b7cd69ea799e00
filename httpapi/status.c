/* What GET /v1/status and the status page tell. */
#include "status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "acks.h"
#include "buf.h"
#include "durable.h"
#include "jsonout.h"
#include "server.h"
#include "text.h"

enum bts_err status_gather(const struct server *server, struct status *s, struct bts_error *error)
{
	struct role *role = server->role;
	struct bts *db = role_db(role);

	memset(s, 0, sizeof(*s));
	s->role = role;
	s->server = server;
	s->stat.size = sizeof(s->stat);
	node_upstream(role_node(role), &s->upstream);
	if (!db)
		return BTS_OK;
	s->have = 1;
	s->ack_count = acks_followers(db, s->acks, STATUS_FOLLOWERS_MAX);
	node_apply_stat(role_node(role), &s->apply);
	return bts_stat(db, &s->stat, error);
}

int64_t status_lag_bytes(const struct status *s, const struct bts_ack *ack)
{
	const struct bts_stat *st = &s->stat;
	double live = (double)(st->pages - st->free_pages), pages;

	if (ack->txid >= st->durable_txid)
		return 0;
	if (!st->commits)
		return -1;
	/* The numbers skipped at a new epoch are no commits, but the live pages are the most there can be. */
	pages = (double)st->pages_written / (double)st->commits * (double)(st->durable_txid - ack->txid);
	return (int64_t)((pages < live ? pages : live) * st->page_size);
}

static void status_text(struct buf *b, const char *name, const char *text)
{
	buf_printf(b, ",\"%s\":", name);
	jsonout_string(b, text);
}

static void status_u64(struct buf *b, const char *name, uint64_t value)
{
	buf_printf(b, ",\"%s\":%" PRIu64, name, value);
}

static void status_hex(struct buf *b, const char *name, const uint8_t bytes[16])
{
	char text[33];

	text_hex(text, bytes, 16);
	buf_printf(b, ",\"%s\":\"%s\"", name, text);
}

void status_time(uint64_t ms, char text[40])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;
	size_t n;

	gmtime_r(&seconds, &tm);
	n = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, 40 - n, ".%03uZ", (unsigned)(ms % 1000));
}

static void status_followers(struct buf *b, const struct status *s)
{
	int64_t bytes;
	char seen[40];
	size_t i;

	buf_str(b, ",\"followers\":[");
	for (i = 0; i < s->ack_count; i++) {
		const struct bts_ack *ack = &s->acks[i];

		buf_printf(b, "%s{\"name\":", i ? "," : "");
		jsonout_string(b, ack->node);
		status_text(b, "url", ack->url);
		status_u64(b, "txid", ack->txid);
		status_u64(b, "lag_txids",
			s->stat.durable_txid > ack->txid ? s->stat.durable_txid - ack->txid : 0);
		status_u64(b, "lag_ms", role_commit_age_ms(s->role, ack->txid));
		bytes = status_lag_bytes(s, ack);
		if (bytes < 0)
			buf_str(b, ",\"lag_bytes\":null");
		else
			status_u64(b, "lag_bytes", (uint64_t)bytes);
		status_time(ack->seen_ms, seen);
		status_text(b, "last_seen", seen);
		status_u64(b, "alarms", ack->alarms);
		status_u64(b, "twins", ack->twins);
		buf_str(b, "}");
	}
	buf_str(b, "]");
}

static void status_file(struct buf *b, const struct status *s)
{
	const struct bts_stat *st = &s->stat;

	status_hex(b, "database_id", st->database);
	status_u64(b, "epoch", st->epoch);
	status_u64(b, "txid", st->txid);
	status_u64(b, "durable_txid", st->durable_txid);
	status_hex(b, "root_digest", st->root_digest);
	status_hex(b, "chain", st->chain);
	status_u64(b, "file_bytes", st->file_bytes);
	status_u64(b, "page_size", st->page_size);
	status_u64(b, "pages", st->pages);
	status_u64(b, "free_pages", st->free_pages);
	status_u64(b, "pinned_pages", st->pinned_pages);
	status_u64(b, "buckets", st->buckets);
	status_u64(b, "readers", st->readers);
	status_u64(b, "oldest_reader", st->oldest_reader);
	buf_printf(b, ",\"clean_open\":%s,\"fell_back\":%s", st->clean_open ? "true" : "false",
		st->fell_back ? "true" : "false");
	status_u64(b, "commits", st->commits);
	status_u64(b, "flushes", st->flushes);
	status_u64(b, "conflicts", st->conflicts);
	status_u64(b, "redirected_pages", s->apply.redirected_pages);
	status_u64(b, "expired_snapshots", role_expired(s->role));
}

/* The same members before the first sync. */
static void status_no_file(struct buf *b)
{
	static const char *const unknown[] = {"root_digest", "chain", "file_bytes", "page_size", "pages", "free_pages", "pinned_pages",
		"buckets", "readers", "oldest_reader", "clean_open", "fell_back", "commits", "flushes", "conflicts", "redirected_pages",
		"expired_snapshots"};
	size_t i;

	buf_str(b, ",\"database_id\":null,\"epoch\":null,\"txid\":0,\"durable_txid\":0");
	for (i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		buf_printf(b, ",\"%s\":null", unknown[i]);
}

static void status_durability(struct buf *b, const struct status *s)
{
	const struct quorum *quorum = durable_quorum(s->server->durable);
	char durability[QUORUM_TEXT_SIZE];
	size_t i;

	quorum_text(s->server->config->copies, durability);
	buf_printf(b, ",\"durability\":\"%s\",\"members\":[", durability);
	for (i = 0; i < quorum->count; i++)
		buf_printf(b, "%s\"%s\"", i ? "," : "", quorum->members[i]);
	buf_str(b, "]");
}

static void status_archive(struct buf *b, const struct status *s)
{
	char *text = archive_json(s->server->archive, role_db(s->role));

	if (text)
		buf_str(b, text);
	free(text);
}

static void status_upstream(struct buf *b, const struct status *s)
{
	char *text = node_status(role_node(s->role));

	if (text)
		buf_str(b, text);
	free(text);
}

static void status_failover(struct buf *b, const struct status *s)
{
	struct failover_run *run = node_failover(role_node(s->role));
	char *text = run ? failover_run_status(run) : NULL;

	if (text)
		buf_printf(b, ",\"failover\":%s", text);
	free(text);
}

void status_json(struct buf *b, const struct status *s)
{
	buf_str(b, "{\"role\":");
	jsonout_string(b, role_word(s->role));
	status_text(b, "name", role_name(s->role));
	status_text(b, "version", bts_version());
	status_u64(b, "uptime_ms", role_uptime_ms(s->role));
	buf_printf(b, ",\"poisoned\":%s,\"draining\":%s", role_poisoned(s->role) ? "true" : "false",
		role_draining(s->role) ? "true" : "false");
	if (role_deadline_ms(s->role) < 0)
		buf_str(b, ",\"deadline_ms\":null");
	else
		status_u64(b, "deadline_ms", (uint64_t)role_deadline_ms(s->role));
	if (s->have)
		status_file(b, s);
	else
		status_no_file(b);
	status_durability(b, s);
	status_archive(b, s);
	if (role_follows(s->role))
		status_upstream(b, s);
	status_failover(b, s);
	status_followers(b, s);
	buf_str(b, "}\n");
}

/* ---- the page ---- */

static void status_html_text(struct buf *b, const char *text)
{
	for (; *text; text++) {
		if (*text == '<')
			buf_str(b, "&lt;");
		else if (*text == '>')
			buf_str(b, "&gt;");
		else if (*text == '&')
			buf_str(b, "&amp;");
		else if (*text == '"')
			buf_str(b, "&quot;");
		else
			buf_add(b, text, 1);
	}
}

static void status_row(struct buf *b, const char *name, const char *format, uint64_t value)
{
	char text[64];

	snprintf(text, sizeof(text), format, value);
	buf_printf(b, "<tr><th>%s<td>%s\n", name, text);
}

static void status_row_text(struct buf *b, const char *name, const char *text)
{
	buf_printf(b, "<tr><th>%s<td>", name);
	status_html_text(b, text);
	buf_str(b, "\n");
}

static void status_html_followers(struct buf *b, const struct status *s)
{
	char seen[40];
	size_t i;

	buf_str(b, "</table><h2>Followers</h2><div><table><tr><th>name<th>url<th>transaction<th>lag, ms<th>lag, KiB<th>last seen\n");
	for (i = 0; i < s->ack_count; i++) {
		buf_str(b, "<tr><td>");
		status_html_text(b, s->acks[i].node);
		buf_str(b, "<td>");
		status_html_text(b, s->acks[i].url);
		buf_printf(b, "<td>%" PRIu64 "<td>%" PRIu64 "<td>", (uint64_t)s->acks[i].txid,
			role_commit_age_ms(s->role, s->acks[i].txid));
		if (status_lag_bytes(s, &s->acks[i]) >= 0)
			buf_printf(b, "%" PRId64, (status_lag_bytes(s, &s->acks[i]) + 1023) / 1024);
		status_time(s->acks[i].seen_ms, seen);
		buf_printf(b, "<td>%s\n", seen);
	}
	if (!s->ack_count)
		buf_str(b, "<tr><td colspan=6>none has asked yet\n");
}

static void status_html_file(struct buf *b, const struct status *s)
{
	char hex[33];

	text_hex(hex, s->stat.database, 16);
	status_row_text(b, "database", hex);
	status_row(b, "epoch", "%" PRIu64, s->stat.epoch);
	status_row(b, "transaction", "%" PRIu64, s->stat.durable_txid);
	text_hex(hex, s->stat.root_digest, 16);
	status_row_text(b, "root digest", hex);
	status_row(b, "buckets", "%" PRIu64, s->stat.buckets);
	status_row(b, "file, KiB", "%" PRIu64, s->stat.file_bytes >> 10);
	status_row(b, "pages", "%" PRIu64, s->stat.pages);
	status_row(b, "free pages", "%" PRIu64, s->stat.free_pages);
	status_row(b, "of them kept by readers", "%" PRIu64, s->stat.pinned_pages);
	status_row(b, "readers", "%" PRIu64, s->stat.readers);
}

void status_html(struct buf *b, const struct status *s)
{
	buf_str(b, "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>"
		   "<meta name=viewport content=\"width=device-width\"><title>btree_store</title><style>"
		   "body{font:16px system-ui,sans-serif;margin:2em auto;max-width:50em;padding:0 1em}"
		   "th{text-align:left;font-weight:normal;color:#555;padding:.2em 1.5em .2em 0}"
		   "td{font-variant-numeric:tabular-nums;padding-right:1em;overflow-wrap:anywhere}"
		   "div{overflow-x:auto}div td{white-space:nowrap}</style><h1>btree_store ");
	status_html_text(b, role_word(s->role));
	buf_str(b, "</h1><table>\n");
	status_row_text(b, "name", role_name(s->role));
	status_row_text(b, "file", role_path(s->role));
	status_row_text(b, "version", bts_version());
	status_row(b, "up, s", "%" PRIu64, role_uptime_ms(s->role) / 1000);
	if (role_poisoned(s->role) || role_draining(s->role))
		status_row_text(b, "state", role_poisoned(s->role) ? "poisoned: nothing more can be committed" : "stopping");
	if (s->have)
		status_html_file(b, s);
	if (role_follows(s->role)) {
		status_row_text(b, "follows", role_source_url(s->role));
		status_row_text(b, "state", s->upstream.state);
		status_row(b, "lag, ms", "%" PRIu64, s->upstream.lag_ms);
		if (*s->upstream.error)
			status_row_text(b, "last error", s->upstream.error);
	}
	status_html_followers(b, s);
	buf_str(b,
		"</table></div><p><a href=/v1/status>status</a> &middot; <a href=/v1/buckets>buckets</a> &middot; "
		"<a href=/metrics>metrics</a></html>\n");
}
