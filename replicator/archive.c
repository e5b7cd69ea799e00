/*
 * The archiver's thread: what is written next.
 *
 * Frames are written for two reasons.  Increments lead from the newest archived commit to the newest durable one, and are what
 * acknowledgements wait for.  Full frames keep what a restore reads short; they may take hours, so they are written a part at a time
 * with increments between.  One is begun together with an increment that ends at the same commit, so that the others lead on from it.
 * Beside the first one there are increments too, which lead on from nothing until it is complete: nothing is acknowledged till then.
 *
 * Between them, every ARCHIVE_SPAN increments, the next one begins where they began, if they were small: any base will do, as the
 * source keeps no log.
 *
 * Nothing is kept but what is read from the archive: it is looked at when the thread starts, when the file's epoch changes, when
 * another archiver was faster, and once in ARCHIVE_LOOK_MS, as somebody may have emptied it.
 */
#include "archive_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "acks.h"

#define ARCHIVE_PATIENCE_MS 250
#define ARCHIVE_PATIENCE_MOST_MS 15000
#define ARCHIVE_WAIT_MS 500 /* one wait for news, at most */
#define ARCHIVE_LOOK_MS 60000
#define ARCHIVE_POSTPONE_MS 600000 /* after a full frame that was broken off, where it can wait */
#define ARCHIVE_SPAN 64
#define ARCHIVE_BESIDE                                                                                       \
	(UINT64_C(64)                                                                                        \
		<< 20) /* bytes; what is more is not written as one increment, where that can be avoided */
#define ARCHIVE_TRIES 8
#define ARCHIVE_MEETINGS 64 /* attempts to begin two frames at one commit */

/* ---- time ---- */

uint64_t archive_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t archive_realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t archive_clock_ms(struct archive *a)
{
	uint64_t now = archive_realtime_ms();

	if (now > a->clock_ms)
		a->clock_ms = now;
	return a->clock_ms;
}

static bool archive_stopping(struct archive *a)
{
	bool stopping;

	pthread_mutex_lock(&a->lock);
	stopping = a->stopping;
	pthread_mutex_unlock(&a->lock);
	return stopping;
}

static void archive_sleep(struct archive *a, uint64_t ms)
{
	uint64_t until = archive_now_ms() + ms;
	struct timespec at = {.tv_sec = (time_t)(until / 1000), .tv_nsec = (long)(until % 1000) * 1000000};

	pthread_mutex_lock(&a->lock);
	while (!a->stopping && pthread_cond_timedwait(&a->wake, &a->lock, &at) != ETIMEDOUT)
		continue;
	pthread_mutex_unlock(&a->lock);
}

/* ---- what others are told ---- */

/* The newest commit that can be restored; txid 0: none. */
static struct bts_position archive_reached(const struct archive *a)
{
	return a->chain.known ? a->target : (struct bts_position){.txid = 0};
}

static void archive_tell(struct archive *a, enum archive_state state)
{
	pthread_mutex_lock(&a->lock);
	if (!a->failed)
		a->status.state = state;
	a->status.position = archive_reached(a);
	pthread_mutex_unlock(&a->lock);
}

/* Whether there is a commit that is not archived.  since_ms: what is there came after that; 0: that is as known before, or now. */
static void archive_tell_behind(struct archive *a, bool behind, uint64_t since_ms)
{
	pthread_mutex_lock(&a->lock);
	if (!behind || since_ms)
		a->behind_ms = behind ? since_ms : 0;
	else if (!a->behind_ms)
		a->behind_ms = archive_now_ms();
	pthread_mutex_unlock(&a->lock);
}

static void archive_record(struct archive *a, const struct bts_position *position)
{
	struct bts_ack ack = {.node = BTS_ACK_ARCHIVE,
		.txid = position->txid,
		.epoch = position->epoch,
		.epoch_random = position->epoch_random,
		.seen_ms = archive_realtime_ms()};
	struct bts_error error = {0};

	if (bts_ack_record(a->db, &ack, &error))
		repl_emit(&a->options.events, REPL_WARN, "ack-not-kept", "archive: %s", error.text);
}

/* The target is archived; it must be of the history that the file has at this moment. */
static void archive_acknowledge(struct archive *a)
{
	enum bts_standing standing;
	struct bts_error error;

	if (a->chain.known && !archive_standing(a, &a->target, &standing, &error) &&
		standing == BTS_STANDING_KNOWN)
		archive_record(a, &a->target);
}

/* ---- after a frame ---- */

/* The next increment begins where the full frame under way ends. */
static void archive_join(struct archive *a)
{
	if (!a->full.part || a->joined || !position_equal(&a->target, &a->full.entry.to))
		return;
	a->joined = true;
	a->coming = (struct archive_chain){.known = false};
	a->span = a->target;
	a->increments = 0;
	a->span_bytes = 0;
}

/* A full one.  Where another archiver's frames have led past it, nothing leads on from it, and there is another to go on from. */
static void archive_entered_full(struct archive *a, const struct manifest_entry *entry)
{
	if (a->joined) {
		a->chain = a->coming;
		a->chain.known = true;
		a->chain.full_bytes = entry->bytes;
		a->chain.full_ms = entry->time_ms;
	}
	a->joined = false;
}

static void archive_chain_add(struct archive_chain *chain, const struct manifest_entry *entry)
{
	chain->bytes += entry->bytes;
	chain->frames++;
}

/* It takes the place of the last increments. */
static void archive_chain_replace(const struct archive *a, struct archive_chain *chain)
{
	chain->bytes -= a->span_bytes;
	chain->frames -= a->increments;
}

static void archive_entered_next(struct archive *a, const struct manifest_entry *entry)
{
	if (position_equal(&entry->from, &a->target)) {
		a->increments++;
		a->span_bytes += entry->bytes;
	} else {
		archive_chain_replace(a, &a->chain);
		if (a->joined)
			archive_chain_replace(a, &a->coming);
		a->span = entry->to;
		a->increments = 0;
		a->span_bytes = 0;
	}
	archive_chain_add(&a->chain, entry);
	if (a->joined)
		archive_chain_add(&a->coming, entry);
	a->target = entry->to;
	archive_join(a);
}

static void archive_entered(struct archive *a, struct archive_frame *frame)
{
	const struct manifest_entry *entry = &frame->entry;

	if (frame == &a->full)
		archive_entered_full(a, entry);
	else
		archive_entered_next(a, entry);
	pthread_mutex_lock(&a->lock);
	a->status.position = archive_reached(a);
	a->status.frames++;
	a->status.fulls += !entry->from.txid;
	pthread_mutex_unlock(&a->lock);
	if (!entry->from.txid)
		repl_emit(&a->options.events, REPL_INFO, "archived-full",
			"commit %" PRIu64 ": %" PRIu64 " bytes", (uint64_t)entry->to.txid, entry->bytes);
}

static bool archive_same_epoch(const struct bts_position *a, const struct bts_position *b)
{
	return a->epoch == b->epoch && a->epoch_random == b->epoch_random;
}

static bool archive_base_pruned(const struct archive *a, const struct archive_frame *frame)
{
	const struct manifest_entry before = {.to = frame->entry.from};

	return before.to.txid && catalog_pruned(&a->pruned, &before);
}

/* All its parts are stored. */
static enum bts_err archive_enter(struct archive *a, struct archive_frame *frame, struct bts_error *error)
{
	enum bts_err err = BTS_EXISTS;

	for (unsigned i = 0; err == BTS_EXISTS && i < ARCHIVE_TRIES; i++) {
		err = archive_append(a, frame, error);
		if (err != BTS_EXISTS)
			break;
		err = archive_find(a, error);
		if (err)
			return err;
		if (!archive_same_epoch(&frame->entry.to, &a->last->epoch)) {
			a->found = false;
			return fail_set(error, BTS_DIVERGED, "the file's history has changed");
		}
		if (archive_base_pruned(a, frame)) {
			a->found = false; /* which drops all that is under way */
			return fail_set(error, BTS_EXPIRED, "what a frame begins at was pruned meanwhile");
		}
		if (frame == &a->increment && (a->ahead || a->target.txid >= frame->entry.to.txid)) {
			archive_frame_end(a, frame, true); /* another archiver did all that */
			return BTS_OK;
		}
		err = BTS_EXISTS;
	}
	if (err)
		return err;
	archive_entered(a, frame);
	archive_frame_end(a, frame, false);
	return BTS_OK;
}

/* ---- the two kinds of work ---- */

static struct bts_position archive_base(struct archive *a)
{
	if (a->increments < ARCHIVE_SPAN)
		return a->target;
	if (a->span_bytes <= ARCHIVE_BESIDE)
		return a->span;
	a->span = a->target;
	a->increments = 0;
	a->span_bytes = 0;
	return a->target;
}

/* What could not be made of a base other than the target is not tried again. */
static void archive_give_up(struct archive *a, struct archive_frame *frame)
{
	if (frame == &a->full) {
		a->joined = false;
		a->full_after_ms = archive_now_ms() + ARCHIVE_POSTPONE_MS;
	}
	a->span = a->target;
	a->increments = 0;
	a->span_bytes = 0;
	archive_frame_end(a, frame, true);
}

static enum bts_err archive_increment(struct archive *a, struct bts_error *error)
{
	struct archive_frame *frame = &a->increment;
	struct bts_position base, head;
	enum bts_err err = BTS_OK;

	if (!frame->part) {
		base = archive_base(a);
		a->began_ms = archive_now_ms();
		err = archive_frame_open(a, frame, &base, error);
	}
	while (!err && !archive_frame_complete(frame) && !archive_stopping(a))
		err = archive_frame_step(a, frame, error);
	if (!err && archive_frame_complete(frame))
		err = archive_enter(a, frame, error);
	if (err) {
		if (frame->broken)
			archive_give_up(a, frame);
		return err;
	}
	if (a->chain.known)
		archive_tell_behind(
			a, !bts_ship_position(a->db, &head, NULL) && head.txid > a->target.txid, a->began_ms);
	archive_acknowledge(a);
	return BTS_OK;
}

static bool archive_full_due(struct archive *a)
{
	const struct archive_chain *chain = &a->chain;

	if (!chain->known)
		return true;
	if (archive_now_ms() < a->full_after_ms)
		return false;
	if (chain->bytes > (chain->full_bytes > ARCHIVE_FULL_LEAST ? chain->full_bytes : ARCHIVE_FULL_LEAST))
		return true;
	return chain->frames && a->options.full_ms &&
	       archive_clock_ms(a) - chain->full_ms >= a->options.full_ms;
}

/*
 * The full frame, and an increment to the same commit: both take the newest one, so as a rule they meet at once, and else with another
 * attempt.  The increment goes first, as that takes the least time.
 */
static enum bts_err archive_full_open(struct archive *a, struct bts_error *error)
{
	struct archive_frame *full = &a->full, *increment = &a->increment;
	struct bts_position from = {.txid = 0}, own;
	enum bts_err err = BTS_OK;

	memcpy(from.database, a->last->epoch.database, sizeof(from.database));
	a->joined = false;
	for (unsigned i = 0; i < ARCHIVE_MEETINGS; i++) {
		err = bts_ship_position(a->db, &own, error);
		a->began_ms = archive_now_ms();
		if (!err && a->target.txid && own.txid > a->target.txid)
			err = archive_frame_open(a, increment, &a->target, error);
		if (!err)
			err = archive_frame_open(a, full, &from, error);
		if (!err && !a->target.txid)
			a->target = full->entry.to;
		if (!err)
			archive_join(a);
		if (!err && (a->joined || (increment->part && position_equal(&increment->entry.to, &full->entry.to))))
			return BTS_OK;
		archive_frame_end(a, increment, false);
		archive_frame_end(a, full, false);
		if (err)
			return err;
	}
	return BTS_OK; /* the next turn tries again */
}

/* One part of the full frame, if one is due. */
static enum bts_err archive_beside(struct archive *a, struct bts_error *error)
{
	struct archive_frame *frame = &a->full;
	enum bts_err err = BTS_OK;

	if (!frame->part) {
		if (a->increment.part || !archive_full_due(a))
			return BTS_OK;
		err = archive_full_open(a, error);
		if (err || !frame->part)
			return err;
	}
	err = archive_frame_step(a, frame, error);
	if (!err && archive_frame_complete(frame)) {
		err = archive_enter(a, frame, error);
		if (!err)
			archive_acknowledge(a);
	}
	if (err && frame->broken)
		archive_give_up(a, frame);
	return err;
}

/* ---- the thread ---- */

static void archive_drop(struct archive *a)
{
	archive_frame_end(a, &a->increment, true);
	archive_frame_end(a, &a->full, true);
	a->joined = false;
}

/* Until it is known where the archive stands: then found. */
static enum bts_err archive_settle(struct archive *a, const struct bts_position *own, struct bts_error *error)
{
	enum bts_err err = BTS_OK;

	if (a->found && !archive_same_epoch(own, &a->last->epoch))
		a->found = false;
	if (a->found && archive_now_ms() - a->looked_ms >= a->options.look_ms) {
		err = archive_verify(a, error);
		if (!err && a->found)
			archive_acknowledge(a); /* the longest unseen entry may be taken for another */
	}
	if (err || a->found)
		return err;
	archive_drop(a);
	err = archive_find(a, error);
	if (err)
		return err;
	repl_emit(&a->options.events, REPL_INFO, "archive-found",
		"%s: epoch %" PRIu32 " commit %" PRIu64 ", next manifest %" PRIu64,
		store_name(a->options.store), a->target.epoch, (uint64_t)a->target.txid,
		a->last->count ? a->last->sequence + 1 : 0);
	archive_acknowledge(a);
	return BTS_OK;
}

static enum bts_err archive_begin(struct archive *a, struct bts_error *error)
{
	struct bts *db = a->options.db(a->options.arg);
	struct bts_position none = {.txid = 0};
	struct bts_ack ack;
	enum bts_err err;

	if (!db) {
		archive_sleep(a, 100);
		return BTS_OK;
	}
	err = source_init(&a->source, db, NULL, error);
	if (err)
		return err;
	pthread_mutex_lock(&a->lock);
	a->db = db;
	pthread_mutex_unlock(&a->lock);
	/* So that who asks for durability=archived may wait for the first frame. */
	if (!acks_archive(db, &ack))
		archive_record(a, &none);
	return BTS_OK;
}

/* Nothing has to be written now. */
static void archive_await(struct archive *a, bts_txid after, bool news)
{
	uint64_t now = archive_now_ms(), next = a->began_ms + a->options.interval_ms;
	bts_txid head;

	if (news && next > now)
		archive_sleep(a, next - now < ARCHIVE_WAIT_MS ? next - now : ARCHIVE_WAIT_MS);
	else if (!news && bts_ship_wait(a->db, after, ARCHIVE_WAIT_MS, &head) == BTS_TIMEOUT)
		return;
}

static enum bts_err archive_turn(struct archive *a, struct bts_error *error)
{
	struct bts_position own;
	enum bts_err err;
	bool news;

	if (!a->db)
		return archive_begin(a, error);
	err = bts_ship_position(a->db, &own, error);
	if (!err && !own.txid) {
		archive_await(a, 0, false);
		return BTS_OK;
	}
	if (!err && !a->found)
		archive_tell_behind(a, true, 0); /* as far as is known */
	if (!err)
		err = archive_settle(a, &own, error);
	if (err)
		return err;
	if (a->ahead) {
		archive_tell(a, ARCHIVE_BEHIND);
		archive_await(a, a->ahead - 1, false);
		a->found = false;
		return BTS_OK;
	}
	archive_tell(a, a->chain.known ? ARCHIVE_GOING : ARCHIVE_FULL);
	news = own.txid > a->target.txid;
	archive_tell_behind(a, news || !a->chain.known, 0);
	if (a->increment.part ||
		(a->target.txid && news && archive_now_ms() >= a->began_ms + a->options.interval_ms))
		err = archive_increment(a, error);
	if (!err)
		err = archive_beside(a, error);
	if (!err && !a->increment.part && !a->full.part)
		archive_await(a, a->target.txid,
			!bts_ship_position(a->db, &own, NULL) && own.txid > a->target.txid);
	return err;
}

static void archive_failed(struct archive *a, const struct bts_error *error)
{
	uint64_t patience = (uint64_t)a->options.patience_ms << (a->failed < 10 ? a->failed : 10);

	if (archive_stopping(a))
		return;
	a->failed++;
	pthread_mutex_lock(&a->lock);
	a->status.state = ARCHIVE_FAILING;
	a->status.failures++;
	snprintf(a->status.last_error, sizeof(a->status.last_error), "%s", error->text);
	pthread_mutex_unlock(&a->lock);
	repl_emit(&a->options.events, REPL_WARN, "archive-failed", "%s", error->text);
	archive_sleep(a, patience < ARCHIVE_PATIENCE_MOST_MS ? patience : ARCHIVE_PATIENCE_MOST_MS);
}

static void *archive_main(void *arg)
{
	struct archive *a = arg;
	struct bts_error error;

	pthread_setname_np(pthread_self(), "archive");
	while (!archive_stopping(a)) {
		memset(&error, 0, sizeof(error));
		if (archive_turn(a, &error)) {
			archive_failed(a, &error);
			continue;
		}
		if (a->failed)
			repl_emit(&a->options.events, REPL_INFO, "archive-recovered", "after %u failures",
				a->failed);
		a->failed = 0;
	}
	return NULL;
}

enum bts_err archive_start(
	const struct archive_options *options, struct archive **out, struct bts_error *error)
{
	struct archive *a = calloc(1, sizeof(*a));
	pthread_condattr_t clock;
	int os;

	if (!a) {
		store_close(options->store);
		return fail_set(error, BTS_MEMORY, "no memory for an archive");
	}
	a->options = *options;
	if (!a->options.patience_ms)
		a->options.patience_ms = ARCHIVE_PATIENCE_MS;
	if (!a->options.look_ms)
		a->options.look_ms = ARCHIVE_LOOK_MS;
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &clock);
	pthread_condattr_destroy(&clock);
	a->last = calloc(1, sizeof(*a->last));
	a->look = calloc(1, sizeof(*a->look));
	a->text = malloc(2 * MANIFEST_TEXT_MAX);
	os = a->last && a->look && a->text ? pthread_create(&a->thread, NULL, archive_main, a) : ENOMEM;
	if (os) {
		archive_stop(a);
		return fail_os(error, os, "cannot start the archiver");
	}
	a->started = true;
	*out = a;
	return BTS_OK;
}

enum bts_err archive_open(const struct archive_settings *settings, const struct archive_options *given,
	struct archive **out, struct bts_error *error)
{
	/* A call that hangs keeps an increment waiting; what is not done in this time is tried again, with what came meanwhile. */
	const struct store_options patience = {.retry_ms = 20000, .idle_s = 10, .total_ms = 120000};
	struct archive_options options = *given;
	enum bts_err err = store_open(settings->url, &patience, &options.store, error);

	if (err)
		return err;
	options.interval_ms = settings->interval_ms;
	options.full_ms = settings->full_ms;
	return archive_start(&options, out, error);
}

void archive_stop(struct archive *a)
{
	struct bts *db;

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stopping = true;
	db = a->db;
	pthread_cond_broadcast(&a->wake);
	pthread_mutex_unlock(&a->lock);
	if (a->options.store)
		store_interrupt(a->options.store);
	if (db)
		bts_ship_wake(db);
	if (a->started)
		pthread_join(a->thread, NULL);
	archive_frame_end(a, &a->increment, false);
	archive_frame_end(a, &a->full, false);
	store_close(a->options.store);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->wake);
	free(a->last);
	free(a->look);
	free(a->text);
	catalog_fini(&a->pruned);
	free(a);
}
