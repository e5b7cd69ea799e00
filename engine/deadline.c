/* Writers that are held to a deadline: see deadline.h. */
#include "deadline.h"

#include "base/fault.h"
#include "error.h"

#include <inttypes.h>

#define DEADLINE_MAX (UINT64_MAX >> 2)

static uint64_t deadline_now(const struct bts *db)
{
	return db->env->ops->clock_ms(db->env);
}

static enum bts_err deadline_passed(struct bts *db, struct bts_error *error)
{
	uint64_t ms, now;

	if (!shared_deadline(db->shared, &ms))
		return BTS_OK;
	now = deadline_now(db);
	if (now < ms)
		return BTS_OK;
	if (ms == 0)
		return error_set(error, BTS_FENCED, 0,
			"%s takes no writes: they need a deadline ahead, and none is set", db->path);
	return error_set(error, BTS_FENCED, 0,
		"%s takes no writes: the deadline for them passed %" PRIu64 " ms ago", db->path, now - ms);
}

enum bts_err deadline_check(struct bts *db, struct bts_error *error)
{
	return SABOTAGE(FAULT_R8_WRITE_LATE) ? BTS_OK : deadline_passed(db, error);
}

enum bts_err deadline_told(struct bts *db, uint32_t term, struct bts_error *error)
{
	struct bts_error why = {0};

	if (SABOTAGE(FAULT_R8_TELL_LATE))
		return BTS_OK;
	/* The word before the term: shared_deadline_set. */
	if (deadline_passed(db, &why))
		return error_set(error, BTS_UNKNOWN, 0,
			"durable here, but it must not be taken for done: %.200s", why.text);
	if (shared_deadline_term(db->shared) != term && !SABOTAGE(FAULT_R8_ONE_TERM))
		return error_set(error, BTS_UNKNOWN, 0,
			"durable here, but it must not be taken for done: the deadline of %s passed, and "
			"another one was set",
			db->path);
	return BTS_OK;
}

enum bts_err deadline_unknown(struct bts *db, bts_txid txid, struct bts_error *error)
{
	return error_set(error, BTS_UNKNOWN, 0,
		"%s: the deadline for writes passed when transaction %" PRIu64
		" was written but not durable: it may become so later",
		db->path, txid);
}

enum bts_err deadline_shown(struct bts *db, uint32_t term, bts_txid txid, struct bts_error *error)
{
	return deadline_told(db, term, NULL) ? deadline_unknown(db, txid, error) : BTS_OK;
}

static enum bts_err deadline_usable(struct bts *db, struct bts_error *error)
{
	if (shared_foreign(db->shared))
		return db_usable(db, error);
	if (!db->writer)
		return error_set(error, BTS_READ_ONLY, 0, "%s is open for reading only", db->path);
	return BTS_OK;
}

enum bts_err bts_deadline_set(struct bts *db, uint64_t boottime_ms, struct bts_error *error)
{
	uint64_t ms;
	enum bts_err err = deadline_usable(db, error);

	if (err)
		return err;
	if (!shared_deadline(db->shared, &ms))
		return error_set(error, BTS_INVALID, 0,
			"%s has no deadline: nobody opened it with BTS_OPEN_DEADLINE", db->path);
	if (boottime_ms > DEADLINE_MAX)
		return error_set(error, BTS_INVALID, 0, "a deadline of %" PRIu64 " ms", boottime_ms);
	shared_deadline_set(db->shared, boottime_ms, deadline_now(db));
	return BTS_OK;
}

enum bts_err bts_deadline(struct bts *db, uint64_t *boottime_ms, uint64_t *left_ms)
{
	uint64_t ms, now;

	if (shared_foreign(db->shared))
		return BTS_INVALID;
	if (!shared_deadline(db->shared, &ms))
		return BTS_NOT_FOUND;
	now = deadline_now(db);
	if (boottime_ms != NULL)
		*boottime_ms = ms;
	if (left_ms != NULL)
		*left_ms = now < ms ? ms - now : 0;
	return now < ms ? BTS_OK : BTS_FENCED;
}
