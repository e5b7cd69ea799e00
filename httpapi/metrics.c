/* Counts of requests, and the Prometheus text. */
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "backups.h"
#include "buf.h"
#include "durable.h"
#include "role.h"
#include "route.h"
#include "serve.h"
#include "server.h"
#include "snapshots.h"
#include "ttl_sweep.h"
#include "status.h"
#include "watch.h"
#include "writer.h"

#define METRICS_TEXT(number) METRICS_TEXT_OF(number)
#define METRICS_TEXT_OF(number) #number
#ifdef __clang__
#define METRICS_COMPILER "clang-" METRICS_TEXT(__clang_major__)
#else
#define METRICS_COMPILER "gcc-" METRICS_TEXT(__GNUC__)
#endif

static const unsigned metrics_statuses[METRICS_STATUSES - 1] = {200, 201, 202, 204, 206, 304, 307, 400, 401, 403, 404, 405, 409, 410, 412,
	413, 416, 421, 422, 429, 500, 503, 507};
static const char *const metrics_classes[METRICS_CLASSES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
static const uint64_t metrics_bounds_us[METRICS_BUCKETS] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000, 10000000};

/* A counter that one thread writes and others may read meanwhile. */
static void metrics_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

void metrics_begin(struct metrics_shard *shard)
{
	metrics_add(&shard->begun, 1);
}

void metrics_end(struct metrics_shard *shard, const struct metrics_request *q)
{
	struct metrics_route *m = &shard->route[q->route];
	struct metrics_times *times = &m->times[q->status / 100 < METRICS_CLASSES ? q->status / 100 : 0];
	unsigned i;

	for (i = 0; i < METRICS_STATUSES - 1 && metrics_statuses[i] != q->status; i++)
		;
	metrics_add(&m->status[i], 1);
	for (i = 0; i < METRICS_BUCKETS && q->us > metrics_bounds_us[i]; i++)
		;
	metrics_add(&times->buckets[i], 1);
	metrics_add(&times->sum_us, q->us);
	metrics_add(&shard->bytes_in, q->bytes_in);
	metrics_add(&shard->bytes_out, q->bytes_out);
	metrics_add(&shard->ended, 1);
}

static uint64_t metrics_get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* All loops' counts of a route, or of its requests of a class, as one. */
static void metrics_sum_statuses(uint64_t sum[METRICS_STATUSES], const struct server *s, unsigned route)
{
	unsigned i, k;

	memset(sum, 0, METRICS_STATUSES * sizeof(*sum));
	for (i = 0; i < s->loop_count; i++)
		for (k = 0; k < METRICS_STATUSES; k++)
			sum[k] += metrics_get(&s->loops[i].metrics->route[route].status[k]);
}

static uint64_t metrics_sum_times(struct metrics_times *sum, const struct server *s, unsigned route, unsigned class)
{
	uint64_t count = 0;
	unsigned i, k;

	memset(sum, 0, sizeof(*sum));
	for (i = 0; i < s->loop_count; i++) {
		const struct metrics_times *times = &s->loops[i].metrics->route[route].times[class];

		for (k = 0; k <= METRICS_BUCKETS; k++)
			sum->buckets[k] += metrics_get(&times->buckets[k]);
		sum->sum_us += metrics_get(&times->sum_us);
	}
	for (k = 0; k <= METRICS_BUCKETS; k++)
		count += sum->buckets[k];
	return count;
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
	uint64_t sum[METRICS_STATUSES];
	unsigned i, k;

	metrics_head(b, "btsd_requests_total", "counter", "Requests ended, by route and status.");
	for (i = 0; i < METRICS_ROUTES; i++) {
		metrics_sum_statuses(sum, s, i);
		for (k = 0; k < METRICS_STATUSES; k++) {
			if (!sum[k])
				continue;
			buf_str(b, "btsd_requests_total{");
			metrics_label(b, i);
			if (k < METRICS_STATUSES - 1)
				buf_printf(b, ",status=\"%u\"", metrics_statuses[k]);
			else
				buf_str(b, ",status=\"other\"");
			buf_printf(b, "} %" PRIu64 "\n", sum[k]);
		}
	}
}

/* One histogram: of a route and a class of status. */
static void metrics_times(struct buf *b, const struct metrics_times *times, unsigned route, const char *class)
{
	uint64_t count = 0;
	unsigned k;

	for (k = 0; k <= METRICS_BUCKETS; k++) {
		count += times->buckets[k];
		buf_str(b, "btsd_request_seconds_bucket{");
		metrics_label(b, route);
		if (k < METRICS_BUCKETS)
			buf_printf(b, ",class=\"%s\",le=\"%g\"} %" PRIu64 "\n", class, (double)metrics_bounds_us[k] / 1e6, count);
		else
			buf_printf(b, ",class=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", class, count);
	}
	buf_str(b, "btsd_request_seconds_sum{");
	metrics_label(b, route);
	buf_printf(b, ",class=\"%s\"} %.6f\nbtsd_request_seconds_count{", class, (double)times->sum_us / 1e6);
	metrics_label(b, route);
	buf_printf(b, ",class=\"%s\"} %" PRIu64 "\n", class, count);
}

static void metrics_latency(struct buf *b, const struct server *s)
{
	struct metrics_times times;
	unsigned i, k;

	metrics_head(b, "btsd_request_seconds", "histogram",
		"Time from request line to the reply's end, by route and class of status.");
	for (i = 0; i < METRICS_ROUTES; i++)
		for (k = 0; k < METRICS_CLASSES; k++)
			if (metrics_sum_times(&times, s, i, k))
				metrics_times(b, &times, i, metrics_classes[k]);
}

static void metrics_traffic(struct buf *b, const struct server *s)
{
	uint64_t begun = 0, ended = 0, in = 0, out = 0;
	unsigned i;

	for (i = 0; i < s->loop_count; i++) { /* ended first: one that begins meanwhile must not count as ended alone */
		const struct metrics_shard *shard = s->loops[i].metrics;

		ended += __atomic_load_n(&shard->ended, __ATOMIC_ACQUIRE);
		begun += metrics_get(&shard->begun);
		in += metrics_get(&shard->bytes_in);
		out += metrics_get(&shard->bytes_out);
	}
	metrics_one(b, "btsd_requests_in_flight", "gauge", "Requests begun and not ended.", begun > ended ? begun - ended : 0);
	metrics_one(b, "btsd_request_body_bytes_total", "counter", "Bytes of request bodies taken.", in);
	metrics_one(b, "btsd_reply_body_bytes_total", "counter", "Bytes of reply bodies, of requests that have ended.", out);
	metrics_one(b, "btsd_log_lines_dropped_total", "counter",
		"Lines of the access and slow-request logs that could not be written in time.", access_dropped(&s->access));
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

static void metrics_watch(struct buf *b, struct watch *watch)
{
	struct watch_stat w;

	watch_stat(watch, &w);
	metrics_one(b, "btsd_watchers", "gauge", "Followers of the change feed.", w.watchers);
	metrics_one(b, "btsd_watchers_idle", "gauge", "Of these, who wait for a change.", w.idle);
	metrics_one(b, "btsd_watch_channels", "gauge", "Different filters they have.", w.channels);
	metrics_one(b, "btsd_watch_states", "gauge", "States kept for bookmarks.", w.kept);
	metrics_one(b, "btsd_watch_ticks_total", "counter", "Looks at what was committed.", w.ticks);
	metrics_one(b, "btsd_watch_segments_total", "counter", "Differences made for all of a filter.", w.segments);
	metrics_one(b, "btsd_watch_events_total", "counter", "Changes told, to each watcher.", w.events);
	metrics_one(b, "btsd_watchers_lagged_total", "counter", "Times that a watcher was too slow for those.", w.lagged);
	metrics_one(b, "btsd_watchers_refused_total", "counter", "Watchers refused at the limit.", w.refused);
	metrics_one(b, "btsd_watch_expired_total", "counter", "Bookmarks that came too late.", w.expired);
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
	metrics_one(b, "bts_replication_sent_resumed_total", "counter", "Frames that went on where one had broken off.", c.resumed);
	metrics_one(b, "bts_replication_paused_total", "counter", "How often a stream waited for --serve-rate.", c.paused);
	metrics_one(b, "bts_replication_refused_total", "counter", "Followers refused (409).", c.refused);
	metrics_one(b, "bts_replication_loops_total", "counter",
		"Of them, because commits come here through them.", c.loops);
	metrics_one(
		b, "bts_replication_alarms_total", "counter", "Acknowledgements that went backwards.", c.alarms);
	metrics_one(b, "bts_replication_twins_total", "counter",
		"Sessions that came back under a name taken by another.", c.twins);
	metrics_one(b, "bts_replication_waiting", "gauge", "Long polls that wait for commits.", c.waiting);
}

static void metrics_upstream(struct buf *b, struct role *role)
{
	struct failover_run *run = node_failover(role_node(role));
	char *text = role_follows(role) ? node_metrics(role_node(role)) : NULL, *failover = run ? failover_run_metrics(run) : NULL;

	if (text)
		buf_str(b, text);
	if (failover)
		buf_str(b, failover);
	free(text);
	free(failover);
}

static void metrics_archive(struct buf *b, const struct server *s)
{
	char *text = archive_metrics(s->archive, role_db(s->role));

	if (text)
		buf_str(b, text);
	free(text);
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

static void metrics_ttl(struct buf *b, struct ttl_sweep *sweep)
{
	struct ttl_sweep_stat t;

	ttl_sweep_stat(sweep, &t);
	metrics_one(b, "btsd_ttl_expired_total", "counter", "Expired keys removed.", t.expired);
	metrics_one(b, "btsd_ttl_stale_total", "counter", "Expiry dates removed of keys that were gone or written anew.",
		t.stale);
	metrics_one(b, "btsd_ttl_pending", "gauge", "Expiry dates in the file, those of keys written anew included.",
		t.pending);
}

/* Under the names that dashboards of every kind know. */
static void metrics_process(struct buf *b, const struct server *s)
{
	struct rusage usage;
	struct timespec now;
	long pages = 0;
	FILE *statm;

	clock_gettime(CLOCK_REALTIME, &now);
	metrics_head(b, "process_start_time_seconds", "gauge", "When this process began, since 1970.");
	buf_printf(b, "process_start_time_seconds %.3f\n",
		(double)now.tv_sec + (double)now.tv_nsec / 1e9 - (double)role_uptime_ms(s->role) / 1e3);
	if (!getrusage(RUSAGE_SELF, &usage)) {
		metrics_head(b, "process_cpu_seconds_total", "counter", "Processor time used.");
		buf_printf(b, "process_cpu_seconds_total %.6f\n",
			(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
				(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	}
	statm = fopen("/proc/self/statm", "re");
	if (statm && fscanf(statm, "%*d %ld", &pages) == 1)
		metrics_one(b, "process_resident_memory_bytes", "gauge", "Resident memory, the mapped file's included.",
			(uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE));
	if (statm)
		fclose(statm);
}

static void metrics_snapshots(struct buf *b, struct snapshots *snapshots, struct backups *backups)
{
	struct snapshots_stat n;
	size_t images, users;

	backups_stat(backups, &images, &users);
	metrics_one(b, "btsd_backup_images", "gauge", "Images of the file that are kept for downloads.", images);
	metrics_one(b, "btsd_backup_downloads", "gauge", "Downloads of them now.", users);

	snapshots_stat(snapshots, &n);
	metrics_one(b, "btsd_leased_snapshots", "gauge", "Leased snapshots.", n.live);
	metrics_one(b, "btsd_leased_snapshots_taken_total", "counter", "Leases taken.", n.taken);
	metrics_one(b, "btsd_leased_snapshots_timed_out_total", "counter", "Leases whose time ran out.", n.timed_out);
	metrics_one(b, "btsd_leased_snapshots_expired_total", "counter",
		"Leases ended before their time, for what they kept of the file.", n.expired);
}

void metrics_write(struct buf *b, struct server *s)
{
	struct status status;

	metrics_head(b, "btsd_build_info", "gauge", "Version, role and compiler.");
	buf_printf(b, "btsd_build_info{version=\"%s\",role=\"%s\",compiler=\"%s\"} 1\n", bts_version(), role_word(s->role),
		METRICS_COMPILER);
	metrics_process(b, s);
	metrics_one(b, "btsd_connections", "gauge", "Open connections.", s->connections);
	metrics_one(b, "btsd_connections_refused_total", "counter", "Connections refused at the limit.",
		s->refused);
	metrics_one(b, "btsd_connections_evicted_total", "counter", "Idle or slow connections ended to make room for others.",
		s->evicted);
	metrics_one(b, "btsd_body_bytes", "gauge", "Request bodies held in memory.", s->body_bytes);
	metrics_one(b, "btsd_uploads", "gauge", "Large values being written.", s->uploads);
	metrics_one(b, "btsd_poisoned", "gauge", "1 when nothing more can be committed.",
		(uint64_t)role_poisoned(s->role));
	metrics_one(b, "btsd_damage_total", "counter", "Requests and jobs that met a damaged page.", role_damage(s->role));
	metrics_requests(b, s);
	metrics_latency(b, s);
	metrics_traffic(b, s);
	if (s->writer)
		metrics_writer(b, s->writer);
	metrics_ttl(b, s->sweep);
	metrics_durable(b, s->durable);
	metrics_archive(b, s);
	if (s->watch)
		metrics_watch(b, s->watch);
	metrics_snapshots(b, s->snapshots, s->backups);
	metrics_upstream(b, s->role);
	if (status_gather(s, &status, NULL) || !status.have)
		return;
	metrics_file(b, &status.stat);
	metrics_followers(b, &status);
	metrics_frames(b, s);
	metrics_one(b, "bts_expired_snapshots_total", "counter", "Requests that met a snapshot which had been ended.",
		role_expired(s->role));
}
