/* Prometheus text of a follower's replication, for btsd and bts-replicator alike. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"

static void metrics_number(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type, name, value);
}

static void metrics_seconds(FILE *out, const char *name, const char *help, uint64_t ms)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %.3f\n", name, help, name, name, (double)ms / 1e3);
}

static void metrics_lag(FILE *out, const struct node_upstream *up)
{
	static const char *const modes[] = {"idle", "streaming", "first-sync", "graft"};

	metrics_seconds(out, "bts_replication_lag_seconds", "How old what is served may be.", up->lag_ms);
	metrics_number(out, "bts_replication_lag_transactions", "gauge", "Commits of the source that are missing.",
		up->head > up->txid ? up->head - up->txid : 0);
	if (up->lag_bytes >= 0)
		metrics_number(out, "bts_replication_lag_bytes", "gauge", "Bytes that they take, estimated from those that came.",
			(uint64_t)up->lag_bytes);
	metrics_seconds(out, "bts_replication_contact_seconds", "Since the source last said where it stands.", up->contact_ms);
	fputs("# HELP bts_replication_mode How it catches up.\n# TYPE bts_replication_mode gauge\n", out);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		fprintf(out, "bts_replication_mode{mode=\"%s\"} %d\n", modes[i], !strcmp(modes[i], up->mode));
	metrics_number(out, "bts_replication_stopped", "gauge", "1 when every source refuses this file.", (uint64_t)up->stopped);
}

static void metrics_transfer(FILE *out, const struct node_upstream *up)
{
	metrics_number(out, "bts_replication_transfer_done_bytes", "gauge",
		"Of the file, up to where the first transfer has come; 0 when none is under way.", up->transfer_done);
	metrics_number(out, "bts_replication_transfer_total_bytes", "gauge", "Of the file; 0 where the source did not tell.",
		up->transfer_total);
	metrics_number(out, "bts_replication_transfer_rate_bytes", "gauge", "That it brings a second.", up->transfer_rate);
	metrics_number(out, "bts_replication_resumes_total", "counter", "First transfers that went on where they had broken off.",
		up->resumes);
}

static void metrics_counts(FILE *out, const struct node_upstream *up)
{
	metrics_number(out, "bts_replication_frames_total", "counter", "Frames applied.", up->frames);
	metrics_number(out, "bts_replication_bytes_total", "counter", "Bytes of frames received.", up->bytes);
	metrics_number(out, "bts_replication_pages_total", "counter", "Pages of frames applied.", up->pages);
	metrics_number(out, "bts_replication_retries_total", "counter", "Attempts after a failure.", up->retries);
	metrics_number(out, "bts_replication_source_switches_total", "counter", "Changes of the source.", up->switches);
	metrics_number(out, "bts_replication_grafts_total", "counter",
		"Commits installed page by page where no frame could be made.", up->grafts);
	metrics_number(out, "bts_replication_digest_mismatches_total", "counter",
		"Contacts at which the source had another root digest for the same commit.", up->digest_mismatches);
}

static void metrics_apply(FILE *out, struct node *n)
{
	struct bts_apply_stat apply;

	node_apply_stat(n, &apply);
	metrics_number(out, "bts_replication_redirected_pages_total", "counter",
		"Pages that waited beside the file, as their place was in use.", apply.redirected_pages);
	metrics_number(out, "bts_replication_pending_pages", "gauge", "Pages that wait there now.", apply.pending_pages);
	metrics_number(out, "bts_replication_pending_bytes", "gauge", "Bytes of them, with what is not needed any more.",
		apply.pending_bytes);
	metrics_number(out, "bts_replication_expired_readers_total", "counter",
		"Snapshots that were ended because of them.", apply.expired_readers);
}

char *node_metrics(struct node *n)
{
	struct node_upstream up;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	node_upstream(n, &up);
	if (node_follows(n)) {
		metrics_lag(out, &up);
		metrics_transfer(out, &up);
		metrics_counts(out, &up);
		metrics_apply(out, n);
	}
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}
