/* A file and what this process is to it: see node.h. */
#include "node_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "session.h"
#include "transport.h"

uint64_t node_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *node_keep_text(struct node *n, const char *text)
{
	size_t size = strlen(text) + 1;
	struct node_text *kept = malloc(sizeof(*kept) + size);

	if (!kept)
		return "";
	memcpy(kept->text, text, size);
	pthread_mutex_lock(&n->lock);
	kept->next = n->texts;
	n->texts = kept;
	pthread_mutex_unlock(&n->lock);
	return kept->text;
}

enum bts_err node_record_own(struct node *n, uint64_t fresh_ms, struct bts_error *error)
{
	struct bts_upstream up = {.fresh_ms = fresh_ms};

	snprintf(up.node, sizeof(up.node), "%s", n->options.name);
	return bts_upstream_record(atomic_load(&n->db), &up, error);
}

unsigned node_flags(const struct node *n)
{
	return n->options.deadline ? BTS_OPEN_DEADLINE : 0;
}

enum bts_err node_start_follow(struct node *n, const char *source, struct bts_error *error)
{
	struct follow_options options = {
		.path = n->options.path,
		.upstream = source,
		.node = n->options.name,
		.url = n->options.url,
		.max_rate = n->options.max_rate,
		.zstd = n->options.zstd,
		.events = n->options.events,
		.rejoin = n->options.rejoin,
		.db = n->applier,
		.fresh_ms = atomic_load(&n->fresh_ms),
	};
	struct bts_options open;
	struct follow *follow;
	enum bts_err err;

	bts_options_init(&open);
	open.flags = node_flags(n);
	options.open = &open;
	err = follow_start(&options, &follow, error);
	if (err)
		return err;
	pthread_rwlock_wrlock(&n->switching);
	n->follow = follow;
	pthread_rwlock_unlock(&n->switching);
	return BTS_OK;
}

static void node_tell_opened(struct node *n, const struct bts_stat *stat)
{
	if (stat->fell_back)
		repl_emit(&n->options.events, REPL_WARN, "fell-back",
			"a meta page was not valid; the last commit that is whole is served, under the number %llu",
			(unsigned long long)stat->durable_txid);
	else if (!stat->clean_open)
		repl_emit(&n->options.events, REPL_INFO, "recovered", "transaction %llu", (unsigned long long)stat->durable_txid);
}

static enum bts_err node_open_primary(struct node *n, struct bts_error *error)
{
	struct bts_options options;
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts *db = NULL;
	enum bts_err err;

	bts_options_init(&options);
	options.flags = node_flags(n) | (n->options.kind == NODE_ANY && !n->options.make ? BTS_OPEN_EXISTING : 0);
	err = bts_open(n->options.path, &options, &db, error);
	if (err)
		return err;
	atomic_store(&n->db, db);
	err = bts_stat(db, &stat, error);
	if (err)
		return err;
	if (stat.follower)
		return fail_set(error, BTS_READ_ONLY, "%.200s is a follower's file", n->options.path);
	atomic_store(&n->kind, BTS_ROLE_PRIMARY);
	atomic_store(&n->txid, stat.durable_txid);
	if (!n->options.deadline) /* else another one may have become primary since */
		atomic_store(&n->fresh_ms, node_clock_ms());
	node_tell_opened(n, &stat);
	return n->options.kind == NODE_PRIMARY || n->options.make ? node_record_own(n, 0, error) : BTS_OK;
}

/* A file that is not there yet: can it come?  Else every try to receive it would fail, as if the source were to blame. */
static enum bts_err node_may_make(const struct node *n, struct bts_error *error)
{
	const char *path = n->options.path, *slash = strrchr(path, '/');
	char *directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	enum bts_err err = BTS_OK;

	if (!directory)
		return fail_set(error, BTS_MEMORY, "no memory for a node");
	if (access(path, F_OK) && errno == ENOENT && access(directory, F_OK | W_OK | X_OK))
		err = fail_os(error, errno, "the directory %.200s", directory);
	else if (access(path, F_OK) && errno != ENOENT)
		err = fail_os(error, errno, "%.200s", path);
	free(directory);
	return err;
}

/* A file that is there and nobody writes. */
static enum bts_err node_open_other(struct node *n, struct bts_error *error)
{
	struct bts_role now = {.size = sizeof(now)};
	struct bts_options options;
	struct bts *db = NULL;
	enum bts_err err;

	bts_close(atomic_load(&n->db));
	atomic_store(&n->db, NULL);
	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER | node_flags(n);
	err = bts_open(n->options.path, &options, &db, error);
	if (err)
		return err;
	n->applier = db;
	err = bts_role(db, &now, error);
	if (err)
		return err;
	if (now.position.txid) /* else a first sync has broken off in it: nothing to read yet */
		atomic_store(&n->db, db);
	atomic_store(&n->kind, (int)now.role);
	atomic_store(&n->txid, now.position.txid);
	return BTS_OK;
}

static enum bts_err node_start(struct node *n, struct bts_error *error)
{
	const char *source = n->options.source;
	enum bts_err err;

	if (n->options.kind == NODE_FOLLOWER) {
		err = node_may_make(n, error);
		return err ? err : node_start_follow(n, source, error);
	}
	err = node_open_primary(n, error);
	if (n->options.kind == NODE_PRIMARY || !err)
		return err;
	if (err == BTS_READ_ONLY || err == BTS_FENCED) {
		err = node_open_other(n, error);
	} else if (err == BTS_NOT_FOUND && (source || n->options.awaits)) {
		atomic_store(&n->kind, BTS_ROLE_FOLLOWER);
		err = node_may_make(n, error);
	}
	if (!err && !source && !n->options.awaits && !atomic_load(&n->db))
		err = fail_set(error, BTS_NOT_FOUND, "%.200s: its first transfer has not ended, and there is no source for the rest",
			n->options.path);
	if (err || !source)
		return err;
	err = node_start_follow(n, source, error);
	if (!err)
		atomic_store(&n->kind, BTS_ROLE_FOLLOWER);
	return err;
}

enum bts_err node_open(const struct node_options *options, struct node **out, struct bts_error *error)
{
	struct node *n = calloc(1, sizeof(*n));
	enum bts_err err;

	if (!n)
		return fail_set(error, BTS_MEMORY, "no memory for a node");
	pthread_mutex_init(&n->lock, NULL);
	pthread_mutex_init(&n->changing, NULL);
	pthread_rwlock_init(&n->switching, NULL);
	pthread_mutex_init(&n->scrubbing, NULL);
	atomic_init(&n->changed_ms, node_clock_ms());
	n->options = *options;
	n->options.path = node_keep_text(n, options->path);
	n->options.name = node_keep_text(n, options->name);
	n->options.url = options->url ? node_keep_text(n, options->url) : NULL;
	n->options.source = options->source ? node_keep_text(n, options->source) : NULL;
	atomic_init(&n->source, n->options.source ? n->options.source : "");
	atomic_init(&n->primary_url, options->primary_url ? node_keep_text(n, options->primary_url) : "");
	atomic_init(&n->kind, options->kind == NODE_FOLLOWER ? BTS_ROLE_FOLLOWER : BTS_ROLE_PRIMARY);
	err = node_start(n, error);
	if (err) {
		node_close(n);
		return err;
	}
	if (atomic_load(&n->kind) == BTS_ROLE_PRIMARY)
		atomic_store(&n->source, "");
	*out = n;
	return BTS_OK;
}

void node_cancel(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	atomic_store(&n->cancelled, true);
	if (n->asking)
		transport_interrupt(n->asking);
	pthread_mutex_unlock(&n->lock);
}

void node_close(struct node *n)
{
	if (!n)
		return;
	repair_stop(n->repair);
	follow_stop(n->follow);
	if (n->applier != atomic_load(&n->db))
		bts_close(n->applier);
	bts_close(atomic_load(&n->db));
	while (n->texts) {
		struct node_text *next = n->texts->next;

		free(n->texts);
		n->texts = next;
	}
	pthread_mutex_destroy(&n->lock);
	pthread_mutex_destroy(&n->changing);
	pthread_rwlock_destroy(&n->switching);
	pthread_mutex_destroy(&n->scrubbing);
	free(n);
}

void node_set_failover(struct node *n, struct failover_run *run)
{
	atomic_store(&n->failover, run);
}

struct failover_run *node_failover(const struct node *n)
{
	return atomic_load(&n->failover);
}

bool node_follows(const struct node *n)
{
	return atomic_load(&n->kind) != BTS_ROLE_PRIMARY;
}

const char *node_word(const struct node *n)
{
	int kind = atomic_load(&n->kind);

	return kind == BTS_ROLE_PRIMARY ? "primary" : kind == BTS_ROLE_FENCED ? "fenced" : "follower";
}

const char *node_source_url(const struct node *n)
{
	return atomic_load(&n->source);
}

const char *node_primary_url(const struct node *n)
{
	return atomic_load(&n->primary_url);
}

/* False, and *status as it was, when nothing is followed. */
static bool node_follow_status(struct node *n, struct follow_status *status, struct bts **db)
{
	bool follows;

	pthread_rwlock_rdlock(&n->switching);
	follows = n->follow != NULL;
	if (follows)
		follow_status(n->follow, status);
	if (follows && db)
		*db = follow_db(n->follow);
	pthread_rwlock_unlock(&n->switching);
	return follows;
}

static struct bts *node_db_followed(struct node *n)
{
	struct follow_status status = {0};
	struct bts *db = NULL;

	/* The file exists from the first frame's header on, but holds nothing before its end. */
	if (!node_follow_status(n, &status, &db))
		return atomic_load(&n->db);
	if (status.txid)
		atomic_store(&n->synced, true);
	return atomic_load(&n->synced) ? db : NULL;
}

struct bts *node_db(struct node *n)
{
	struct bts *db = atomic_load(&n->db);

	return db ? db : node_db_followed(n);
}

bts_txid node_txid(struct node *n)
{
	struct follow_status status;

	if (atomic_load(&n->kind) == BTS_ROLE_PRIMARY || !node_follow_status(n, &status, NULL))
		return atomic_load(&n->txid);
	return status.txid;
}

void node_committed(struct node *n, bts_txid txid)
{
	bts_txid newest = atomic_load(&n->txid);

	/* Commits of several threads are told of in any order. */
	while (newest < txid && !atomic_compare_exchange_weak(&n->txid, &newest, txid))
		;
}

enum bts_err node_scrub(struct node *n, const char *peers, uint64_t rate, struct bts_error *error)
{
	struct repair_options options = {.db = node_db(n), .peers = peers, .rate = rate, .events = n->options.events};
	struct repair_status *last = calloc(1, sizeof(*last));
	enum bts_err err = BTS_OK;

	pthread_mutex_lock(&n->scrubbing);
	if (n->repair && last)
		repair_status(n->repair, last);
	if (!last || !options.db)
		err = fail_set(error, BTS_NOT_FOUND, "there is nothing to scrub yet");
	else if (last->running)
		err = fail_set(error, BTS_BUSY, "a scrub is running");
	if (!err) {
		repair_stop(n->repair);
		n->repair = NULL;
		err = repair_start(&options, &n->repair, error);
	}
	pthread_mutex_unlock(&n->scrubbing);
	free(last);
	return err;
}

bool node_scrub_status(struct node *n, struct repair_status *status)
{
	bool there;

	pthread_mutex_lock(&n->scrubbing);
	there = n->repair != NULL;
	if (there)
		repair_status(n->repair, status);
	pthread_mutex_unlock(&n->scrubbing);
	return there;
}

static const char *node_mode(const struct follow_status *status)
{
	if (!strcmp(status->state, "grafting"))
		return "graft";
	if (!status->txid)
		return "first-sync";
	return status->txid < status->upstream_txid || !strcmp(status->state, "receiving") ? "streaming" : "idle";
}

static void node_upstream_lag(struct node_upstream *up, const struct follow_status *status)
{
	up->head = status->upstream_txid;
	up->lag_ms = status->lag_ms + status->source_lag_ms;
	up->lag_bytes = -1;
	if (up->head && up->head <= up->txid)
		up->lag_bytes = 0;
	else if (up->head && status->streamed_txids)
		up->lag_bytes = (int64_t)((double)status->streamed_bytes / (double)status->streamed_txids *
					  (double)(up->head - up->txid));
}

void node_upstream(struct node *n, struct node_upstream *up)
{
	struct follow_status status;

	memset(up, 0, sizeof(*up));
	up->mode = "idle";
	up->lag_bytes = -1;
	if (!node_follow_status(n, &status, NULL)) {
		if (!node_follows(n)) /* that it leads no more may be found by anybody; that it leads is for who promotes it to tell */
			node_look(n);
		if (!node_follows(n)) {
			if (bts_deadline(atomic_load(&n->db), NULL, NULL) == BTS_FENCED)
				up->lag_ms = session_lag_ms(atomic_load(&n->fresh_ms), node_clock_ms());
			return;
		}
		snprintf(up->state, sizeof(up->state), "%s", !strcmp(node_word(n), "fenced") ? "fenced" : "stopped");
		up->txid = node_txid(n);
		up->contact_ms = node_clock_ms() - atomic_load(&n->changed_ms);
		up->lag_ms = session_lag_ms(atomic_load(&n->fresh_ms), node_clock_ms());
		return;
	}
	snprintf(up->state, sizeof(up->state), "%s", status.state);
	snprintf(up->error, sizeof(up->error), "%s", status.error);
	up->txid = status.txid;
	up->mode = node_mode(&status);
	up->heard = status.heard;
	up->stopped = !strcmp(status.state, "stopped");
	up->contact_ms = status.heard ? status.contact_ms : node_clock_ms() - atomic_load(&n->changed_ms);
	node_upstream_lag(up, &status);
	snprintf(up->url, sizeof(up->url), "%s", status.upstream);
	snprintf(up->via, sizeof(up->via), "%s", status.via);
	up->switches = status.switches;
	up->resumes = status.resumes;
	up->transfer_done = status.transfer_done;
	up->transfer_total = status.transfer_total;
	up->transfer_rate = status.transfer_rate;
	up->grafts = status.grafts;
	up->graft_pages = status.graft_pages;
	up->digest_mismatches = status.digest_mismatches;
	snprintf(up->fork, sizeof(up->fork), "%s", status.fork);
	snprintf(up->orphans, sizeof(up->orphans), "%s", status.orphans);
	up->frames = status.frames;
	up->bytes = status.bytes;
	up->pages = status.pages;
	up->retries = status.retries;
}
