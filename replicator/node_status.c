/* A follower's contact as members of a JSON object, for btsd and bts-replicator alike. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jsontext.h"
#include "node.h"

static void status_text(FILE *out, const char *name, const char *text)
{
	fprintf(out, ",\"%s\":", name);
	jsontext_string(out, text);
}

static void status_number(FILE *out, const char *name, uint64_t value)
{
	fprintf(out, ",\"%s\":%" PRIu64, name, value);
}

static void status_lag(FILE *out, const struct node_upstream *up)
{
	status_number(out, "upstream_txid", up->head);
	status_number(out, "contact_ms", up->contact_ms);
	status_number(out, "lag_ms", up->lag_ms);
	status_number(out, "lag_txids", up->head > up->txid ? up->head - up->txid : 0);
	if (up->lag_bytes < 0)
		fputs(",\"lag_bytes\":null", out);
	else
		status_number(out, "lag_bytes", (uint64_t)up->lag_bytes);
	fprintf(out,
		",\"transfer\":{\"done_bytes\":%" PRIu64 ",\"total_bytes\":%" PRIu64 ",\"bytes_per_second\":%" PRIu64
		",\"resumes\":%" PRIu64 "}",
		up->transfer_done, up->transfer_total, up->transfer_rate, up->resumes);
}

static void status_write(FILE *out, struct node *n)
{
	struct bts_apply_stat apply;
	struct node_upstream up;

	node_upstream(n, &up);
	node_apply_stat(n, &apply);
	status_text(out, "upstream", up.url);
	status_text(out, "via", up.via);
	status_text(out, "primary_url", node_primary_url(n));
	status_text(out, "state", up.state);
	status_text(out, "mode", up.mode);
	status_lag(out, &up);
	status_number(out, "pending_pages", apply.pending_pages);
	status_number(out, "frames", up.frames);
	status_number(out, "frame_bytes", up.bytes);
	status_number(out, "retries", up.retries);
	status_number(out, "grafts", up.grafts);
	status_number(out, "graft_pages", up.graft_pages);
	status_number(out, "digest_mismatches", up.digest_mismatches);
	status_text(out, "fork", up.fork);
	status_text(out, "orphans", up.orphans);
	status_number(out, "source_switches", up.switches);
	status_text(out, "last_error", up.error);
}

char *node_status(struct node *n)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	if (node_follows(n))
		status_write(out, n);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}
