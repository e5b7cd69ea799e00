/* Positions, waiting, acknowledgements: the small calls of ship.h. */
#include "db.h"
#include "error.h"
#include "redirect.h"
#include "recover.h"

#include <string.h>

enum bts_err bts_ship_position(struct bts *db, struct bts_position *position, struct bts_error *error)
{
	struct commit_record record;
	struct shared_durable durable;

	(void)error;
	shared_durable(db->shared, &record, &durable);
	meta_position(&record, position);
	return BTS_OK;
}

/* A pinned look at the newest history. */
struct ship_look {
	struct shared_reader reader;
	struct redirect *redirect;
	struct commit_record record;
	struct tree_ctx ctx;
	struct bts_error why;
};

static enum bts_err ship_look_begin(struct bts *db, struct ship_look *look, struct bts_error *error)
{
	enum bts_err err = redirect_enter(db, REDIRECT_DURABLE, &look->reader, &look->record, &look->redirect, error);

	if (err)
		return err;
	look->why = (struct bts_error){BTS_OK, 0, ""};
	look->ctx = (struct tree_ctx){.pager = &db->pager,
		.limit = look->record.high_water,
		.newest = look->record.txid,
		.error = &look->why};
	redirect_use(&look->ctx, look->redirect);
	return BTS_OK;
}

static enum bts_err ship_look_end(struct bts *db, struct ship_look *look, enum bts_err err, struct bts_error *error)
{
	redirect_drop(db, look->redirect);
	shared_reader_leave(db->shared, &look->reader);
	return err ? error_set(error, err, look->why.os, "%s", look->why.text) : BTS_OK;
}

enum bts_err bts_ship_standing(struct bts *db, const struct bts_position *claimed,
	enum bts_standing *standing, struct bts_error *error)
{
	struct ship_look look;
	enum bts_err err = ship_look_begin(db, &look, error);

	if (err)
		return err;
	err = history_standing(&look.ctx, &look.record, claimed, standing);
	return ship_look_end(db, &look, err, error);
}

enum bts_err bts_ship_reached(struct bts *db, uint32_t epoch, uint64_t epoch_random, bts_txid txid,
	enum bts_standing *standing, struct bts_error *error)
{
	struct ship_look look;
	enum bts_err err = ship_look_begin(db, &look, error);

	if (err)
		return err;
	err = history_reached(&look.ctx, &look.record, epoch, epoch_random, txid, standing);
	return ship_look_end(db, &look, err, error);
}

enum bts_err bts_ship_segments(
	struct bts *db, struct bts_segment *segments, size_t cap, size_t *count, struct bts_error *error)
{
	struct ship_look look;
	enum bts_err err = ship_look_begin(db, &look, error);

	if (err)
		return err;
	err = history_segments(&look.ctx, &look.record, segments, cap, count);
	return ship_look_end(db, &look, err, error);
}

enum bts_err bts_ship_fork(struct bts *db, const struct bts_position *claimed, const struct bts_segment *segments,
	size_t count, struct bts_position *fork, struct bts_error *error)
{
	struct ship_look look;
	enum bts_err err = ship_look_begin(db, &look, error);

	if (err)
		return err;
	err = history_fork(&look.ctx, &look.record, claimed, segments, count, fork);
	if (err == BTS_NOT_FOUND)
		error_set(&look.why, err, 0, "no commit is known that both histories have");
	return ship_look_end(db, &look, err, error);
}

enum bts_err bts_ship_wait(struct bts *db, bts_txid after, unsigned timeout_ms, bts_txid *head)
{
	return shared_wait_head(db->shared, after, timeout_ms, head);
}

void bts_ship_wake(struct bts *db)
{
	shared_wake(db->shared);
}

enum bts_err bts_ship_create(const char *path, const struct bts_options *options,
	const struct bts_position *source, uint32_t page_size, struct bts_error *error)
{
	struct recover_create create = {.page_size = page_size, .role = META_FOLLOWER, .source = source};
	struct bts_env *env = options && options->env ? options->env : bts_env_posix();

	if (options && options->size != sizeof(*options))
		return error_set(error, BTS_INVALID, 0,
			"struct bts_options of %zu bytes: use bts_options_init", options->size);
	if (page_size < BTS_PAGE_SIZE_MIN || page_size > BTS_PAGE_SIZE_MAX || (page_size & (page_size - 1)))
		return error_set(error, BTS_INVALID, 0, "page size %u (a power of two from %d to %d)",
			page_size, BTS_PAGE_SIZE_MIN, BTS_PAGE_SIZE_MAX);
	return recover_create(env, path, &create, error);
}

void bts_apply_stat(struct bts *db, struct bts_apply_stat *stat)
{
	stat->frames = atomic_load(&db->apply_frames);
	stat->pages = atomic_load(&db->apply_pages);
	stat->redirected_pages = atomic_load(&db->apply_redirected);
	stat->pending_pages = atomic_load(&db->pending_pages);
	stat->pending_bytes = atomic_load(&db->pending_bytes);
	stat->expired_readers = atomic_load(&db->pending_expired);
}

enum bts_err bts_ack_record(struct bts *db, const struct bts_ack *ack, struct bts_error *error)
{
	return shared_ack_record(db->shared, ack, error);
}

size_t bts_ack_list(struct bts *db, struct bts_ack *acks, size_t cap)
{
	return shared_ack_list(db->shared, acks, cap);
}

enum bts_err bts_ack_wait(struct bts *db, uint32_t *seen, unsigned timeout_ms)
{
	return shared_ack_wait(db->shared, seen, timeout_ms);
}

enum bts_err bts_upstream_record(struct bts *db, const struct bts_upstream *upstream, struct bts_error *error)
{
	return shared_upstream_record(db->shared, upstream, error);
}

void bts_upstream(struct bts *db, struct bts_upstream *upstream)
{
	shared_upstream(db->shared, upstream);
}
