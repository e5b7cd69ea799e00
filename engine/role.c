/*
 * Roles: who may write a file, and what was promised for it (R3, R8, R9).  Crash points: DESIGN.md, section "Roles".
 *
 * The role stands in the slot and, for the processes that are there, in shared memory.  It changes with both locks held, build
 * and flush, so that no batch is half built and none waits for a flush: what holds the build lock and finds the file
 * a primary's keeps it until the lock is left.
 *
 *	primary --demote, promise of a later epoch--> fenced --opened to follow--> follower --promote--> primary
 *
 * While one process follows, handles of a former primary in others may still read.  They write nothing: neither batches nor, when a
 * builder or flusher among them died, what he may have left, which was settled before the file was taken.  After a promotion
 * they may write again, but for transactions that were begun before the file was fenced (shared_fences).
 */
#include "role.h"

#include "deadline.h"
#include "error.h"
#include "flush.h"
#include "homes.h"
#include "pending.h"
#include "recover.h"

#include <inttypes.h>
#include <string.h>

#include "base/fault.h"

enum bts_err role_check(struct bts *db, unsigned flags, bool alone, struct bts_error *error)
{
	bool follow = (flags & BTS_OPEN_FOLLOWER) != 0;

	if (follow && db->slot.role == META_PRIMARY && !(flags & BTS_OPEN_FENCE))
		return error_set(error, BTS_INVALID, 0, "%s is a primary's file, not a follower's", db->path);
	if (follow && db->slot.role == META_PRIMARY && !alone)
		return error_set(error, BTS_BUSY, 0, "%s is a primary's file, and in use", db->path);
	if (!follow && db->slot.role == META_FOLLOWER)
		return error_set(error, BTS_READ_ONLY, 0, "%s is a follower's file: it takes frames, not writes, until it is promoted",
			db->path);
	if (!follow && db->slot.role == META_FENCED)
		return error_set(error, BTS_FENCED, 0,
			"%s is fenced: another one is primary or about to be; it can follow that one, or be promoted", db->path);
	return BTS_OK;
}

enum bts_err role_join(struct bts *db, bool alone, struct bts_error *error)
{
	enum bts_err err = shared_writer_enter(db->shared, error);

	if (err == BTS_OK && !alone && shared_role(db->shared) == META_FOLLOWER)
		err = db_inherit(db, error);
	if (err == BTS_OK && !alone && db->slot.role == META_PRIMARY) { /* by one who died before he could tell */
		shared_set_role(db->shared, META_PRIMARY);
		err = error_set(error, BTS_INVALID, 0, "%s is a primary's file: it was promoted", db->path);
	}
	return err;
}

/* Values that transactions of the former primary are writing to their places: nobody could stop them there. */
static enum bts_err role_end_leases(struct bts *db, struct bts_error *error)
{
	uint64_t count;
	bts_pgno pgno;

	if (shared_leases(db->shared) == 0)
		return BTS_OK;
	shared_leases_bury(db->shared);
	for (uint32_t i = 0; i < SHARED_LEASES; i++) {
		enum shared_lease_state state = shared_lease_get(db->shared, i, &pgno, &count);

		if (state == SHARED_LEASE_HELD)
			return error_set(error, BTS_BUSY, 0, "%s: a transaction of the former primary is still writing a large value",
				db->path);
		if (state != SHARED_LEASE_NONE)
			shared_lease_clear(db->shared, i);
	}
	return BTS_OK;
}

/* Build, then flush, whatever the role is. */
static enum bts_err role_lock(struct bts *db, struct bts_error *error)
{
	enum bts_err err = db_build_lock(db, error);

	if (err)
		return err;
	if (!db->follower && shared_role(db->shared) == META_PRIMARY)
		err = flush_settle_all(db, error);
	if (err == BTS_OK)
		err = flush_lock(db, error);
	if (err)
		db_build_leave(db);
	return err;
}

static void role_unlock(struct bts *db)
{
	flush_leave(db);
	db_build_leave(db);
}

static enum bts_err role_fault(struct bts *db, const char *point, struct bts_error *error)
{
	int os = db->env->ops->fault(db->env, point);

	return os ? error_os(error, os, "failed on purpose at %s", point) : BTS_OK;
}

static enum bts_err role_state(struct bts *db, struct recover_state **out, struct bts_error *error)
{
	struct recover_state *state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	struct shared_durable durable;

	if (state == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to change the role of %s", db->path);
	memset(state, 0, sizeof(*state));
	state->slot = db->slot;
	state->index = db->slot_index;
	if (!db->follower) { /* whose slot is as it was when the handle was opened */
		shared_durable(db->shared, &state->slot.record, &durable);
		state->slot.sequence = durable.sequence;
		state->index = durable.index;
		state->slot.pending_count = 0;
		state->slot.pending_salt = 0;
		state->slot.pending_log = false;
		state->slot.promised = shared_promised(db->shared, &state->slot.promised_random);
	}
	*out = state;
	return BTS_OK;
}

/* What failed with a call to the system may or may not be on the disk: I7. */
static enum bts_err role_failed(struct bts *db, const struct bts_error *why, struct bts_error *error)
{
	if (why->os != 0)
		return db_poison(db, error, why->os, "changing the role");
	return error_set(error, why->code, 0, "%s", why->text);
}

static void role_publish(struct bts *db, const struct recover_state *state)
{
	if (db->follower) {
		db->slot = state->slot;
		db->slot_index = state->index;
	}
	shared_set_slot(db->shared, state->index, state->slot.sequence);
	shared_publish(db->shared, &state->slot.record);
	shared_set_promised(db->shared, state->slot.promised, state->slot.promised_random);
}

/* The other slot with this envelope, durable, and then for all to see. */
static enum bts_err role_write(struct bts *db, struct recover_state *state, const char *point, struct bts_error *error)
{
	struct bts_error why = { 0 };
	enum bts_err err = role_fault(db, point, &why);

	if (err == BTS_OK)
		err = recover_envelope(db->env, db->file, state, META_TWO_FLUSH, &why);
	if (err)
		return role_failed(db, &why, error);
	role_publish(db, state);
	return BTS_OK;
}

/* A primary's file that nobody else has open: fenced as it stands, without the opening commit that a writer would make. */
static enum bts_err role_fence_alone(struct bts *db, struct bts_error *error)
{
	struct recover_state *state = NULL;
	enum bts_err err = role_state(db, &state, error);

	if (err)
		return err;
	state->slot.role = META_FENCED;
	err = role_write(db, state, "role.fence_alone", error);
	db->env->ops->memory(db->env, state, 0);
	return err;
}

enum bts_err role_take(struct bts *db, struct bts_error *error)
{
	enum bts_err err = role_lock(db, error);

	if (err)
		return err;
	if (shared_role(db->shared) == META_FOLLOWER || (shared_role(db->shared) == META_PRIMARY && db->slot.role != META_PRIMARY))
		err = error_set(error, BTS_BUSY, 0, "%s: another process has taken it meanwhile", db->path);
	if (err == BTS_OK)
		err = role_end_leases(db, error);
	if (err == BTS_OK)
		err = db->slot.role == META_PRIMARY ? role_fence_alone(db, error) : db_inherit(db, error);
	if (err == BTS_OK)
		shared_set_role(db->shared, META_FOLLOWER);
	role_unlock(db);
	return err;
}

/* May this epoch be promised (R8)?  *done: it is already. */
static enum bts_err role_may_promise(struct bts *db, const struct meta_slot *slot, uint32_t epoch, uint64_t random, bool *done,
	struct bts_error *error)
{
	bool ours = epoch == slot->record.epoch && random == slot->record.epoch_random;

	*done = ours || (epoch == slot->promised && random == slot->promised_random);
	if (epoch < slot->promised || (epoch == slot->promised && !*done))
		return error_set(error, BTS_FENCED, 0, "%s: epoch %" PRIu32 "-%016" PRIx64 " was promised already", db->path,
			slot->promised, slot->promised_random);
	/* Each epoch costs a jump of transaction numbers (R3): one that leaves none could never be begun. */
	if (epoch > slot->record.epoch &&
		epoch - slot->record.epoch >= (LAYOUT_TXID_LIMIT - slot->record.txid) / META_EPOCH_JUMP)
		return error_set(error, BTS_INVALID, 0, "%s: epoch %" PRIu32 " is too far above the present one, %" PRIu32, db->path,
			epoch, slot->record.epoch);
	if (epoch < slot->record.epoch || (epoch == slot->record.epoch && !ours))
		return error_set(error, BTS_FENCED, 0, "%s is in epoch %" PRIu32 "-%016" PRIx64 " already", db->path,
			slot->record.epoch, slot->record.epoch_random);
	return BTS_OK;
}

/* Both locks held.  epoch 0: no promise. */
static enum bts_err role_fence_locked(struct bts *db, uint32_t epoch, uint64_t random, struct bts_error *error)
{
	bool fenced = shared_role(db->shared) == META_FENCED, done = epoch == 0;
	struct recover_state *state = NULL;
	enum bts_err err;

	if (shared_role(db->shared) == META_FOLLOWER)
		return error_set(error, BTS_FENCED, 0, "%s follows another one by now, in a process of its own", db->path);
	if (fenced && epoch == 0)
		return BTS_OK;
	err = role_state(db, &state, error);
	if (err == BTS_OK && epoch != 0)
		err = role_may_promise(db, &state->slot, epoch, random, &done, error);
	if (err || (done && epoch != 0))
		goto end;
	state->slot.role = META_FENCED;
	if (epoch != 0) {
		state->slot.promised = epoch;
		state->slot.promised_random = random;
	}
	err = role_write(db, state, "role.fence", error);
	if (err == BTS_OK)
		shared_set_role(db->shared, META_FENCED);
end:
	db->env->ops->memory(db->env, state, 0);
	return err;
}

static enum bts_err role_fence(struct bts *db, uint32_t epoch, uint64_t random, struct bts_error *error)
{
	enum bts_err err = role_lock(db, error);

	if (err)
		return err;
	err = role_fence_locked(db, epoch, random, error);
	role_unlock(db);
	return err;
}

static void role_fill(struct bts *db, struct bts_role *out)
{
	struct commit_record record;
	struct shared_durable durable;

	memset(out, 0, sizeof(*out));
	out->size = sizeof(*out);
	shared_durable(db->shared, &record, &durable);
	out->role = (enum bts_role_kind)shared_role(db->shared);
	meta_position(&record, &out->position);
	meta_root_digest(&record, out->digest);
	out->promised = shared_promised(db->shared, &out->promised_random);
	if (out->promised <= record.epoch)
		out->promised = 0, out->promised_random = 0;
}

static enum bts_err role_check_size(const struct bts_role *out, struct bts_error *error)
{
	if (out != NULL && out->size != sizeof(*out))
		return error_set(error, BTS_INVALID, 0, "struct bts_role of %zu bytes: set size first", out->size);
	return BTS_OK;
}

enum bts_err bts_role(struct bts *db, struct bts_role *out, struct bts_error *error)
{
	enum bts_err err = role_check_size(out, error);

	if (err)
		return err;
	if (shared_foreign(db->shared))
		return db_usable(db, error);
	role_fill(db, out);
	return BTS_OK;
}

enum bts_err bts_demote(struct bts *db, struct bts_role *after, struct bts_error *error)
{
	enum bts_err err = db_usable(db, error);

	if (err == BTS_OK)
		err = role_check_size(after, error);
	if (err == BTS_OK && db->follower)
		err = error_set(error, BTS_INVALID, 0, "%s is a follower's file", db->path);
	if (err == BTS_OK)
		err = role_fence(db, 0, 0, error);
	if (err == BTS_OK && after != NULL)
		role_fill(db, after);
	return err;
}

/* No frame is installed meanwhile: the mutex is an apply's too. */
static enum bts_err role_promise_follower(struct bts *db, uint32_t epoch, uint64_t random, struct bts_error *error)
{
	struct recover_state *state = NULL;
	bool done = false;
	enum bts_err err;

	pthread_mutex_lock(&db->build);
	err = db_usable(db, error);
	if (err == BTS_OK)
		err = role_state(db, &state, error);
	if (err == BTS_OK)
		err = role_may_promise(db, &state->slot, epoch, random, &done, error);
	if (err || done)
		goto end;
	state->slot.promised = epoch;
	state->slot.promised_random = random;
	err = role_write(db, state, "role.promise", error);
end:
	pthread_mutex_unlock(&db->build);
	db->env->ops->memory(db->env, state, 0);
	return err;
}

enum bts_err bts_promise(struct bts *db, uint32_t epoch, uint64_t epoch_random, struct bts_error *error)
{
	enum bts_err err = db_usable(db, error);

	if (err)
		return err;
	if (epoch == 0)
		return error_set(error, BTS_INVALID, 0, "epochs begin at 1");
	return db->follower ? role_promise_follower(db, epoch, epoch_random, error) : role_fence(db, epoch, epoch_random, error);
}

enum bts_err role_admits(struct bts *db, const struct bts_position *target, struct bts_error *error)
{
	const struct meta_slot *slot = &db->slot;

	if (slot->promised <= slot->record.epoch || target->epoch > slot->promised || SABOTAGE(FAULT_R8_FORGET) ||
		(target->epoch == slot->promised && target->epoch_random == slot->promised_random))
		return BTS_OK;
	return error_set(error, BTS_FENCED, 0,
		"epoch %" PRIu32 "-%016" PRIx64 " was promised: %s takes no frame of epoch %" PRIu32 "-%016" PRIx64, slot->promised,
		slot->promised_random, db->path, target->epoch, target->epoch_random);
}

static bool role_same_position(const struct bts_position *a, const struct bts_position *b)
{
	return !memcmp(a->database, b->database, 16) && a->epoch == b->epoch && a->epoch_random == b->epoch_random &&
		a->txid == b->txid && !memcmp(a->chain, b->chain, 16);
}

static enum bts_err role_check_expected(struct bts *db, const struct bts_promotion *promotion, struct bts_error *error)
{
	struct bts_role now;

	role_fill(db, &now);
	if (promotion->expect != NULL && !role_same_position(promotion->expect, &now.position))
		return error_set(error, BTS_DIVERGED, 0,
			"%s stands at transaction %" PRIu64 " of epoch %" PRIu32 ", not at %" PRIu64 " of epoch %" PRIu32 " as expected",
			db->path, now.position.txid, now.position.epoch, promotion->expect->txid, promotion->expect->epoch);
	if (promotion->expect_digest != NULL && memcmp(promotion->expect_digest, now.digest, 16))
		return error_set(error, BTS_DIVERGED, 0, "%s has another root digest than expected", db->path);
	return BTS_OK;
}

static enum bts_err role_may_promote(struct bts *db, const struct bts_promotion *promotion, struct bts_error *error)
{
	const struct meta_slot *slot = &db->slot;
	bool promised = promotion->epoch == slot->promised && promotion->epoch_random == slot->promised_random;
	enum bts_err err;

	if (!db->follower)
		return shared_role(db->shared) == META_PRIMARY ?
			error_set(error, BTS_EXISTS, 0, "%s is a primary's file already", db->path) :
			error_set(error, BTS_INVALID, 0, "%s: open it with BTS_OPEN_FOLLOWER to promote it", db->path);
	if (db->applying)
		return error_set(error, BTS_BUSY, 0, "%s: a frame is being applied", db->path);
	err = deadline_check(db, error);
	if (err)
		return err;
	if (slot->pending_count != 0)
		return error_set(error, BTS_BUSY, 0, "%s.pending has pages that readers keep from going home", db->path);
	if (slot->record.txid == 0)
		return error_set(error, BTS_INVALID, 0, "%s has no commit yet: there is nothing to promote", db->path);
	if (promotion->epoch != 0 && (promotion->epoch <= slot->record.epoch || promotion->epoch < slot->promised ||
		(promotion->epoch == slot->promised && !promised)))
		return error_set(error, BTS_FENCED, 0,
			"%s can not begin epoch %" PRIu32 ": it is in epoch %" PRIu32 " and has promised epoch %" PRIu32, db->path,
			promotion->epoch, slot->record.epoch, slot->promised);
	return role_check_expected(db, promotion, error);
}

static enum bts_err role_epoch(struct bts *db, const struct bts_promotion *promotion, struct recover_epoch *epoch,
	struct bts_error *error)
{
	const struct meta_slot *slot = &db->slot;
	struct bts_file_identity id;
	int os = db->env->ops->file_identity(db->file, &id);

	if (os)
		return error_os(error, os, "cannot stat %s", db->path);
	*epoch = (struct recover_epoch){ promotion->epoch, promotion->epoch_random, id.inode, id.birth_ns };
	if (epoch->number == 0)
		epoch->number = (slot->promised > slot->record.epoch ? slot->promised : slot->record.epoch) + 1;
	if (epoch->number == 0)
		return error_set(error, BTS_FENCED, 0, "%s: there is no epoch after %" PRIu32, db->path, UINT32_MAX);
	if (epoch->random == 0)
		os = db->env->ops->random(db->env, &epoch->random, sizeof(epoch->random));
	return os ? error_os(error, os, "no random numbers for a new epoch") : BTS_OK;
}

/* A primary from here on, for all processes: their allocators, this one's too, know nothing of what was applied meanwhile. */
static void role_begin_primary(struct bts *db, const struct recover_state *state)
{
	const struct commit_record *record = &state->slot.record;
	uint64_t ring;

	shared_tip(db->shared, NULL, &ring);
	shared_assign(db->shared, record->txid);
	shared_publish_tip(db->shared, record, ring + SHARED_RING_ENTRIES);
	role_publish(db, state);
	pending_discard(db); /* nobody else would: what opens a primary's file looks for no log */
	db->replica = false;
	db->follower = false;
	shared_clear_unclean(db->shared);
	shared_writer_leave(db->shared);
	shared_set_role(db->shared, META_PRIMARY);
}

/* Both locks held. */
static enum bts_err role_promote_locked(struct bts *db, const struct bts_promotion *promotion, struct bts_error *error)
{
	struct recover_state *state = NULL;
	struct recover_epoch epoch;
	struct bts_error why = { 0 };
	bool unclean, fell_back;
	enum bts_err err = db->follower && !db->applying ? homes_merge(db, HOMES_ALL, error) : BTS_OK;

	if (err == BTS_OK)
		err = role_may_promote(db, promotion, error);

	if (err == BTS_OK)
		err = role_epoch(db, promotion, &epoch, error);
	if (err == BTS_OK)
		err = role_state(db, &state, error);
	if (err)
		return err;
	/* Numbers that the former primary gave away count too. */
	shared_unclean(db->shared, &unclean, &fell_back, &state->highest);
	if (state->highest < shared_assigned(db->shared))
		state->highest = shared_assigned(db->shared);
	state->slot.role = META_PRIMARY;
	err = role_fault(db, "role.promote", &why);
	if (err == BTS_OK)
		err = recover_new_epoch(db->env, db->file, state, &epoch, &why);
	if (err)
		err = role_failed(db, &why, error);
	else
		role_begin_primary(db, state);
	db->env->ops->memory(db->env, state, 0);
	return err;
}

enum bts_err bts_promote(struct bts *db, const struct bts_promotion *given, struct bts_role *after, struct bts_error *error)
{
	struct bts_promotion promotion = { .size = sizeof(promotion) };
	enum bts_err err;

	if (given != NULL && given->size != sizeof(promotion))
		return error_set(error, BTS_INVALID, 0, "struct bts_promotion of %zu bytes: set size first", given->size);
	if (given != NULL)
		promotion = *given;
	err = role_check_size(after, error);
	if (err == BTS_OK)
		err = role_lock(db, error);
	if (err)
		return err;
	err = role_promote_locked(db, &promotion, error);
	role_unlock(db);
	if (err == BTS_OK && after != NULL)
		role_fill(db, after);
	return err;
}
