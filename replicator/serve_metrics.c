/* Prometheus text of what the replicator counts. */
#include "serve_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "acks.h"

#include "failover_run.h"

static void serve_metrics_number(
	FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type, name, value);
}

uint64_t serve_lag_ms(struct serve *serve, const struct bts_ack *ack, const struct bts_position *head)
{
	uint64_t age;

	if (ack->txid >= head->txid)
		return 0;
	pthread_mutex_lock(&serve->ages_lock);
	age = ages_after(&serve->ages, ack->txid, serve_now_ms());
	pthread_mutex_unlock(&serve->ages_lock);
	return age;
}

int64_t serve_lag_bytes(struct serve *serve, const struct bts_ack *ack, const struct bts_position *head)
{
	const struct source *source = &serve->source;
	struct bts_stat stat = {.size = sizeof(stat)};
	double bytes, live;

	if (ack->txid >= head->txid)
		return 0;
	if (!source->streamed_txids || bts_stat(serve->db, &stat, NULL))
		return -1;
	bytes = (double)source->streamed_bytes / (double)source->streamed_txids * (double)(head->txid - ack->txid);
	live = (double)(stat.pages - stat.free_pages) * stat.page_size;
	return (int64_t)(bytes < live ? bytes : live);
}

/* What this node gets itself, where it may follow. */
static void serve_metrics_node(FILE *out, struct serve *serve)
{
	struct failover_run *run = serve->node ? node_failover(serve->node) : NULL;
	char *text = serve->node ? node_metrics(serve->node) : NULL, *failover = run ? failover_run_metrics(run) : NULL;

	if (text)
		fputs(text, out);
	if (failover)
		fputs(failover, out);
	free(text);
	free(failover);
}

static void serve_metrics_archive(FILE *out, struct serve *serve)
{
	char *text = archive_metrics(serve->archive, serve->db);

	if (text)
		fputs(text, out);
	free(text);
}

static void serve_metrics_followers(FILE *out, struct serve *serve, const struct bts_position *head)
{
	struct bts_ack acks[SERVE_ACKS_MAX];
	size_t count = acks_followers(serve->db, acks, SERVE_ACKS_MAX), i;
	uint64_t now = serve_realtime_ms();

	/* Node names hold nothing that a label would need escaped: query_node_valid. */
	fprintf(out, "# HELP bts_follower_txid newest commit a follower acknowledged\n# TYPE "
		     "bts_follower_txid gauge\n");
	for (i = 0; i < count; i++)
		fprintf(out, "bts_follower_txid{follower=\"%s\"} %" PRIu64 "\n", acks[i].node, acks[i].txid);
	fprintf(out, "# HELP bts_follower_lag_transactions commits a follower lacks\n"
		     "# TYPE bts_follower_lag_transactions gauge\n");
	for (i = 0; i < count; i++)
		fprintf(out, "bts_follower_lag_transactions{follower=\"%s\"} %" PRIu64 "\n", acks[i].node,
			head->txid > acks[i].txid ? head->txid - acks[i].txid : 0);
	fprintf(out, "# HELP bts_follower_lag_seconds age of the first commit a follower lacks\n"
		     "# TYPE bts_follower_lag_seconds gauge\n");
	for (i = 0; i < count; i++)
		fprintf(out, "bts_follower_lag_seconds{follower=\"%s\"} %.3f\n", acks[i].node,
			(double)serve_lag_ms(serve, &acks[i], head) / 1e3);
	fprintf(out, "# HELP bts_follower_lag_bytes bytes a follower lacks, estimated from what commits have taken so far\n"
		     "# TYPE bts_follower_lag_bytes gauge\n");
	for (i = 0; i < count; i++)
		if (serve_lag_bytes(serve, &acks[i], head) >= 0)
			fprintf(out, "bts_follower_lag_bytes{follower=\"%s\"} %" PRId64 "\n", acks[i].node,
				serve_lag_bytes(serve, &acks[i], head));
	fprintf(out, "# HELP bts_follower_seen_seconds time since a follower asked\n"
		     "# TYPE bts_follower_seen_seconds gauge\n");
	for (i = 0; i < count; i++)
		fprintf(out, "bts_follower_seen_seconds{follower=\"%s\"} %.3f\n", acks[i].node,
			now > acks[i].seen_ms ? (double)(now - acks[i].seen_ms) / 1e3 : 0.0);
	fprintf(out, "# HELP bts_follower_alarms_total acknowledgements that went backwards\n"
		     "# TYPE bts_follower_alarms_total counter\n");
	for (i = 0; i < count; i++)
		fprintf(out, "bts_follower_alarms_total{follower=\"%s\"} %" PRIu32 "\n", acks[i].node,
			acks[i].alarms);
}

static uint64_t serve_count(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void serve_counts(const struct serve *serve, struct serve_counts *counts)
{
	const struct source *source = &serve->source;

	counts->frames = serve_count(&source->frames);
	counts->broken = serve_count(&source->broken);
	counts->pages = serve_count(&source->pages);
	counts->bytes = serve_count(&source->bytes);
	counts->refused = serve_count(&source->refused);
	counts->alarms = serve_count(&source->alarms);
	counts->loops = serve_count(&source->loops);
	counts->twins = serve_count(&source->twins);
	counts->resumed = serve_count(&source->resumed);
	counts->paused = serve_count(&serve->paused);
	counts->waiting = serve_count(&serve->suspended_count);
}

char *serve_metrics(struct serve *serve, const struct bts_position *head)
{
	const struct source *source = &serve->source;
	char *text = NULL;
	size_t size;
	FILE *out;

	out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	fprintf(out,
		"# HELP bts_build_info the version that runs\n# TYPE bts_build_info gauge\n"
		"bts_build_info{version=\"%s\",role=\"%s\"} 1\n",
		bts_version(), serve_role(serve));
	serve_metrics_number(out, "bts_txid", "gauge", "newest durable commit", head->txid);
	serve_metrics_number(out, "bts_epoch", "gauge", "number of the epoch", head->epoch);
	serve_metrics_number(
		out, "bts_replication_sent_frames_total", "counter", "frames sent whole", source->frames);
	serve_metrics_number(
		out, "bts_replication_sent_broken_total", "counter", "frames broken off", source->broken);
	serve_metrics_number(
		out, "bts_replication_sent_pages_total", "counter", "pages put into frames", source->pages);
	serve_metrics_number(
		out, "bts_replication_sent_bytes_total", "counter", "bytes of frames sent", source->bytes);
	serve_metrics_number(out, "bts_replication_sent_resumed_total", "counter",
		"frames that went on where one had broken off", source->resumed);
	serve_metrics_number(out, "bts_replication_paused_total", "counter",
		"how often a stream waited for --serve-rate", serve->paused);
	serve_metrics_number(
		out, "bts_replication_refused_total", "counter", "followers refused", source->refused);
	serve_metrics_number(out, "bts_replication_ahead_total", "counter",
		"followers refused because they are ahead: was this file set back?", source->ahead);
	serve_metrics_number(out, "bts_replication_diverged_total", "counter",
		"followers refused because their history is another one", source->diverged);
	serve_metrics_number(out, "bts_replication_alarms_total", "counter",
		"acknowledgements that went backwards", source->alarms);
	serve_metrics_number(out, "bts_replication_loops_total", "counter",
		"followers refused because commits come through them", source->loops);
	serve_metrics_number(out, "bts_replication_twins_total", "counter",
		"sessions that came back under a name taken by another", source->twins);
	serve_metrics_number(
		out, "bts_replication_waiting", "gauge", "long polls waiting", serve->suspended_count);
	serve_metrics_number(out, "bts_http_requests_total", "counter", "requests taken", serve->requests);
	serve_metrics_number(out, "bts_http_errors_total", "counter", "problems answered", serve->errors);
	serve_metrics_followers(out, serve, head);
	serve_metrics_node(out, serve);
	serve_metrics_archive(out, serve);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
