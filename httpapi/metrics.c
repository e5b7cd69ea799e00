/* Counts of requests, and the Prometheus text. */
#include "metrics.h"

#include <inttypes.h>
#include <string.h>

#include "buf.h"
#include "durable.h"
#include "role.h"
#include "route.h"
#include "serve.h"
#include "server.h"
#include "status.h"
#include "writer.h"

static const unsigned metrics_statuses[METRICS_STATUSES - 1] = {
	200, 201, 202, 204, 304, 307, 400, 404, 405, 409, 412, 413, 500, 503, 507};
static const uint64_t metrics_bounds_us[METRICS_BUCKETS] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000, 10000000};

/* A counter that one thread writes and others may read meanwhile. */
static void metrics_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

void metrics_count(struct metrics_shard *shard, unsigned route, unsigned status, uint64_t us)
{
	struct metrics_route *m = &shard->route[route];
	unsigned i;

	for (i = 0; i < METRICS_STATUSES - 1 && metrics_statuses[i] != status; i++)
		;
	metrics_add(&m->status[i], 1);
	for (i = 0; i < METRICS_BUCKETS && us > metrics_bounds_us[i]; i++)
		;
	metrics_add(&m->buckets[i], 1);
	metrics_add(&m->sum_us, us);
}

static void metrics_sum(struct metrics_route *sum, const struct server *s, unsigned route)
{
	unsigned i, k;

	memset(sum, 0, sizeof(*sum));
	for (i = 0; i < s->loop_count; i++) {
		const struct metrics_route *m = &s->loops[i].metrics->route[route];

		for (k = 0; k < METRICS_STATUSES; k++)
			sum->status[k] += __atomic_load_n(&m->status[k], __ATOMIC_RELAXED);
		for (k = 0; k <= METRICS_BUCKETS; k++)
			sum->buckets[k] += __atomic_load_n(&m->buckets[k], __ATOMIC_RELAXED);
		sum->sum_us += __atomic_load_n(&m->sum_us, __ATOMIC_RELAXED);
	}
}

static void metrics_head(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void metrics_one(struct buf *b, const char *name, const char *type, const char *help, uint64_t value)
{
	metrics_head(b, name, type, help);
	buf_printf(b, "%s %" PRIu64 "\n", name, value);
}

static void metrics_label(struct buf *b, unsigned route)
{
	if (route < route_table_size)
		buf_printf(b, "route=\"%s\",method=\"%s\"", route_table[route].template,
			route_method_name(route_table[route].method));
	else
		buf_str(b, "route=\"none\",method=\"other\"");
}

static void metrics_requests(struct buf *b, const struct server *s)
{
	struct metrics_route sum;
	unsigned i, k;

	metrics_head(b, "btsd_requests_total", "counter", "Requests ended, by route and status.");
	for (i = 0; i < METRICS_ROUTES; i++) {
		metrics_sum(&sum, s, i);
		for (k = 0; k < METRICS_STATUSES; k++) {
			if (!sum.status[k])
				continue;
			buf_str(b, "btsd_requests_total{");
			metrics_label(b, i);
			if (k < METRICS_STATUSES - 1 && metrics_statuses[k])
				buf_printf(b, ",status=\"%u\"", metrics_statuses[k]);
			else
				buf_str(b, ",status=\"other\"");
			buf_printf(b, "} %" PRIu64 "\n", sum.status[k]);
		}
	}
}

static void metrics_latency(struct buf *b, const struct server *s)
{
	struct metrics_route sum;
	uint64_t count;
	unsigned i, k;

	metrics_head(b, "btsd_request_seconds", "histogram", "Time from request line to the reply's end.");
	for (i = 0; i < METRICS_ROUTES; i++) {
		metrics_sum(&sum, s, i);
		for (count = 0, k = 0; k <= METRICS_BUCKETS; k++)
			count += sum.buckets[k];
		if (!count)
			continue;
		for (count = 0, k = 0; k <= METRICS_BUCKETS; k++) {
			count += sum.buckets[k];
			buf_str(b, "btsd_request_seconds_bucket{");
			metrics_label(b, i);
			if (k < METRICS_BUCKETS)
				buf_printf(b, ",le=\"%g\"} %" PRIu64 "\n", (double)metrics_bounds_us[k] / 1e6,
					count);
			else
				buf_printf(b, ",le=\"+Inf\"} %" PRIu64 "\n", count);
		}
		buf_str(b, "btsd_request_seconds_sum{");
		metrics_label(b, i);
		buf_printf(b, "} %.6f\nbtsd_request_seconds_count{", (double)sum.sum_us / 1e6);
		metrics_label(b, i);
		buf_printf(b, "} %" PRIu64 "\n", count);
	}
}

/* A histogram kept in powers of two: bucket i counts values below first * 2^i. */
static void metrics_powers(struct buf *b, const char *name, const uint64_t *counts, double first, double sum)
{
	uint64_t count = 0;
	double bound = first;
	unsigned i;

	for (i = 0; i < WRITER_HISTOGRAM - 1; i++, bound *= 2) {
		count += counts[i];
		buf_printf(b, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bound, count);
	}
	count += counts[i];
	buf_printf(b, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.6f\n%s_count %" PRIu64 "\n", name, count,
		name, sum, name, count);
}

static void metrics_writer(struct buf *b, struct writer *writer)
{
	struct writer_stat w;

	writer_stat(writer, &w);
	metrics_one(b, "btsd_write_queue", "gauge", "Writes waiting for the writer.", w.queued);
	metrics_one(b, "btsd_write_queue_bytes", "gauge", "Bytes of them.", w.queued_bytes);
	metrics_one(b, "btsd_writes_refused_total", "counter", "Writes refused because the queue was full.",
		w.refused);
	metrics_one(
		b, "btsd_group_failures_total", "counter", "Group commits that failed.", w.group_failures);
	metrics_head(b, "btsd_group_seconds", "histogram", "Time of a group commit, its flush included.");
	metrics_powers(b, "btsd_group_seconds", w.flush_histogram, 64e-6, (double)w.flush_us / 1e6);
	metrics_head(b, "btsd_group_operations", "histogram", "Operations in a group commit.");
	metrics_powers(b, "btsd_group_operations", w.batch_histogram, 1, (double)w.operations);
}

static void metrics_file(struct buf *b, const struct bts_stat *st)
{
	metrics_one(b, "bts_txid", "gauge", "Newest durable transaction.", st->durable_txid);
	metrics_one(
		b, "bts_commits_total", "counter", "Transactions committed by this process.", st->commits);
	metrics_one(b, "bts_flushes_total", "counter", "Flushes for them.", st->flushes);
	metrics_one(b, "bts_pages_written_total", "counter", "Pages written.", st->pages_written);
	metrics_one(b, "bts_conflicts_total", "counter", "Commits refused for a conflict.", st->conflicts);
	metrics_one(b, "bts_file_bytes", "gauge", "Size of the file.", st->file_bytes);
	metrics_one(b, "bts_pages", "gauge", "Pages below the high-water mark.", st->pages);
	metrics_one(b, "bts_free_pages", "gauge", "Free pages.", st->free_pages);
	metrics_one(b, "bts_pinned_pages", "gauge", "Free pages that readers still hold.", st->pinned_pages);
	metrics_one(b, "bts_readers", "gauge", "Live snapshots of all processes.", st->readers);
	metrics_one(b, "bts_oldest_reader_txid", "gauge", "Snapshot of the oldest reader, 0 without one.",
		st->oldest_reader);
}

static void metrics_followers(struct buf *b, const struct status *status)
{
	size_t i;

	metrics_head(b, "bts_follower_txid", "gauge", "Transaction a follower has acknowledged.");
	for (i = 0; i < status->ack_count; i++)
		buf_printf(b, "bts_follower_txid{follower=\"%s\"} %" PRIu64 "\n", status->acks[i].node,
			(uint64_t)status->acks[i].txid);
	metrics_head(b, "bts_follower_lag_seconds", "gauge", "Age of the first commit a follower lacks.");
	for (i = 0; i < status->ack_count; i++)
		buf_printf(b, "bts_follower_lag_seconds{follower=\"%s\"} %.3f\n", status->acks[i].node,
			(double)role_commit_age_ms(status->role, status->acks[i].txid) / 1e3);
	metrics_head(b, "bts_follower_lag_bytes", "gauge", "Pages a follower lacks, estimated from the rate of writing.");
	for (i = 0; i < status->ack_count; i++)
		if (status_lag_bytes(status, &status->acks[i]) >= 0)
			buf_printf(b, "bts_follower_lag_bytes{follower=\"%s\"} %" PRId64 "\n", status->acks[i].node,
				status_lag_bytes(status, &status->acks[i]));
	metrics_head(b, "bts_follower_alarms_total", "counter", "Acknowledgements that went backwards.");
	for (i = 0; i < status->ack_count; i++)
		buf_printf(b, "bts_follower_alarms_total{follower=\"%s\"} %" PRIu32 "\n", status->acks[i].node,
			status->acks[i].alarms);
}

/* What this node gives to those who follow it; 0 while nobody ever has. */
static void metrics_frames(struct buf *b, struct server *s)
{
	struct serve *frames = atomic_load(&s->frames);
	struct serve_counts c = {0};

	if (frames)
		serve_counts(frames, &c);
	metrics_one(b, "bts_replication_sent_frames_total", "counter", "Frames sent whole.", c.frames);
	metrics_one(b, "bts_replication_sent_broken_total", "counter", "Frames broken off.", c.broken);
	metrics_one(b, "bts_replication_sent_pages_total", "counter", "Pages put into frames.", c.pages);
	metrics_one(b, "bts_replication_sent_bytes_total", "counter", "Bytes of frames sent.", c.bytes);
	metrics_one(b, "bts_replication_refused_total", "counter", "Followers refused (409).", c.refused);
	metrics_one(b, "bts_replication_loops_total", "counter",
		"Of them, because commits come here through them.", c.loops);
	metrics_one(
		b, "bts_replication_alarms_total", "counter", "Acknowledgements that went backwards.", c.alarms);
	metrics_one(b, "bts_replication_twins_total", "counter",
		"Sessions that came back under a name taken by another.", c.twins);
	metrics_one(b, "bts_replication_waiting", "gauge", "Long polls that wait for commits.", c.waiting);
}

static void metrics_upstream(struct buf *b, const struct status *status)
{
	static const char *const modes[] = {"streaming", "first-sync", "graft"};
	const struct role_upstream *up = &status->upstream;
	size_t i;

	metrics_one(b, "bts_replication_lag_milliseconds", "gauge", "How old what is served may be.", up->lag_ms);
	metrics_one(b, "bts_replication_lag_transactions", "gauge", "Commits of the source that are missing.",
		up->head > up->txid ? up->head - up->txid : 0);
	metrics_one(b, "bts_replication_contact_milliseconds", "gauge", "Since the source last said where it stands.",
		up->contact_ms);
	metrics_head(b, "bts_replication_mode", "gauge", "How it catches up.");
	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		buf_printf(b, "bts_replication_mode{mode=\"%s\"} %d\n", modes[i], !strcmp(modes[i], up->mode));
	metrics_one(b, "bts_replication_stopped", "gauge", "1 when every source refuses this file.",
		(uint64_t)up->stopped);
	metrics_one(b, "bts_replication_frames_total", "counter", "Frames applied.", up->frames);
	metrics_one(b, "bts_replication_bytes_total", "counter", "Bytes of frames received.", up->bytes);
	metrics_one(b, "bts_replication_pages_total", "counter", "Pages of frames applied.", up->pages);
	metrics_one(b, "bts_replication_redirected_pages_total", "counter",
		"Pages that waited beside the file, as their place was in use.", status->apply.redirected_pages);
	metrics_one(b, "bts_replication_retries_total", "counter", "Attempts after a failure.", up->retries);
	metrics_one(b, "bts_replication_source_switches_total", "counter", "Changes of the source.", up->switches);
	metrics_one(b, "bts_replication_grafts_total", "counter",
		"Commits installed page by page where no frame could be made.", up->grafts);
	metrics_one(b, "bts_replication_digest_mismatches_total", "counter",
		"Contacts at which the source had another root digest for the same commit.", up->digest_mismatches);
}

static void metrics_durable(struct buf *b, struct durable *durable)
{
	struct durable_stat d;

	durable_stat(durable, &d);
	metrics_one(b, "btsd_durability_waiting", "gauge", "Committed writes that wait for copies.", d.waiting);
	metrics_one(b, "btsd_durability_reached_total", "counter", "Writes whose copies were there in time.",
		d.reached);
	metrics_one(b, "btsd_durability_unreached_total", "counter", "Writes answered 202: copies missing.",
		d.unreached);
}

void metrics_write(struct buf *b, struct server *s)
{
	struct status status;

	metrics_head(b, "btsd_build_info", "gauge", "Version and role.");
	buf_printf(b, "btsd_build_info{version=\"%s\",role=\"%s\"} 1\n", bts_version(), role_word(s->role));
	metrics_one(b, "btsd_connections", "gauge", "Open connections.", s->connections);
	metrics_one(b, "btsd_connections_refused_total", "counter", "Connections refused at the limit.",
		s->refused);
	metrics_one(b, "btsd_body_bytes", "gauge", "Request bodies held in memory.", s->body_bytes);
	metrics_one(b, "btsd_poisoned", "gauge", "1 when nothing more can be committed.",
		(uint64_t)role_poisoned(s->role));
	metrics_requests(b, s);
	metrics_latency(b, s);
	if (s->writer)
		metrics_writer(b, s->writer);
	metrics_durable(b, s->durable);
	if (status_gather(s, &status, NULL) || !status.have)
		return;
	metrics_file(b, &status.stat);
	metrics_followers(b, &status);
	metrics_frames(b, s);
	metrics_one(b, "bts_expired_snapshots_total", "counter", "Requests that met a snapshot which had been ended.",
		role_expired(s->role));
	if (role_follows(s->role))
		metrics_upstream(b, &status);
}
