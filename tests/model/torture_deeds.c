/* What a worker of the torture does. */
#include "torture_worker.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define TRIES 300 /* conflicts before a transaction is given up */

/* What one transaction, or one group, changes. */
struct set {
	uint64_t stamp;
	unsigned count;
	struct torture_change changes[TORTURE_CHANGES];
};

static struct torture_change *set_add(struct set *set, enum torture_kind kind, unsigned index, int64_t value)
{
	struct torture_change *change = &set->changes[set->count++];

	*change = (struct torture_change){kind, index, value};
	return change;
}

/* Some own keys get new values, or go. */
static void set_own(struct worker *w, struct set *set, unsigned count)
{
	for (; count > 0; count--) {
		unsigned index = (unsigned)rng_below(&w->rng, TORTURE_KEYS);

		set_add(set, TORTURE_SET_OWN, index, rng_one_in(&w->rng, 4) ? 0 : (int64_t)++w->stamp);
	}
}

static void set_count(struct worker *w, struct set *set)
{
	set_add(set, TORTURE_ADD_COUNTER, (unsigned)rng_below(&w->rng, TORTURE_COUNTERS), 1);
}

static void set_transfer(struct worker *w, struct set *set)
{
	unsigned from = (unsigned)rng_below(&w->rng, TORTURE_ACCOUNTS);
	int64_t amount = (int64_t)rng_below(&w->rng, 100);

	set_add(set, TORTURE_ADD_ACCOUNT, from, -amount);
	set_add(set, TORTURE_ADD_ACCOUNT,
		(unsigned)(from + 1 + rng_below(&w->rng, TORTURE_ACCOUNTS - 1)) % TORTURE_ACCOUNTS, amount);
}

static void set_begin(struct worker *w, struct set *set)
{
	set->stamp = ++w->stamp;
	set->count = 0;
}

/* The journal tells whether the transaction happened when it was in flight. */
static void set_journal(struct set *set)
{
	set_add(set, TORTURE_SET_OWN, TORTURE_JOURNAL, (int64_t)set->stamp);
}

static enum bts_err apply_bucket(struct worker *w, struct bts_txn *txn, uint64_t stamp)
{
	struct bts_bucket *bucket;
	char name[32], key[32];
	enum bts_err err = bts_bucket_drop(txn, torture_bucket_name(name, w->place), NULL);

	if (stamp == 0 || (err && err != BTS_NOT_FOUND))
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	err = bts_bucket(txn, torture_bucket_name(name, w->place), BTS_CREATE, &bucket, NULL);
	for (unsigned i = 0; i < 20 && !err; i++)
		err = bts_put(
			txn, bucket, torture_own_key(key, w->place, i), torture_value(w->buffer, stamp), 0);
	return err;
}

static enum bts_err apply_number(
	struct bts_txn *txn, struct bts_bucket *bucket, const struct torture_change *change)
{
	char room[32];
	struct bts_slice key = torture_number_key(
		room, change->kind == TORTURE_ADD_COUNTER ? "counter" : "account", change->index);
	int64_t number;
	enum bts_err err = torture_get_number(txn, bucket, key, &number);

	return err ? err : torture_put_number(txn, bucket, key, number + change->value);
}

static enum bts_err apply(
	struct worker *w, struct bts_txn *txn, const struct torture_change *change, unsigned count)
{
	struct bts_bucket *bucket;
	char room[32];
	enum bts_err err = BTS_OK;

	for (; count > 0 && !err; count--, change++) {
		err = bts_bucket(txn, torture_data, 0, &bucket, NULL);
		if (err)
			break;
		if (change->kind != TORTURE_SET_OWN) {
			err = apply_number(txn, bucket, change);
		} else if (change->index == TORTURE_BUCKET) {
			err = apply_bucket(w, txn, (uint64_t)change->value);
		} else if (change->value) {
			err = bts_put(txn, bucket, torture_own_key(room, w->place, change->index),
				torture_value(w->buffer, (uint64_t)change->value), 0);
		} else {
			err = bts_del(txn, bucket, torture_own_key(room, w->place, change->index));
			if (err == BTS_NOT_FOUND)
				err = BTS_OK;
		}
	}
	if (err)
		w->error = *bts_txn_error(txn);
	return err;
}

static void intend(const struct set *set)
{
	struct torture_message message;

	memcpy(message.u.changes, set->changes, set->count * sizeof(set->changes[0]));
	worker_send(&message, TORTURE_INTENT, set->stamp, set->count * sizeof(set->changes[0]));
}

/* Committed: what this process reads from now on shows it. */
static void done(struct worker *w, const struct set *set, enum torture_type type)
{
	worker_report(type, set->stamp);
	for (unsigned i = 0; i < set->count; i++)
		if (set->changes[i].kind == TORTURE_SET_OWN)
			w->own[set->changes[i].index] = (uint64_t)set->changes[i].value;
}

static enum bts_err begin(struct worker *w, unsigned flags, struct bts_txn **txn)
{
	enum bts_err err = bts_begin(w->db, flags & ~w->missing, txn, &w->error);
	unsigned offered = flags & (BTS_EXCLUSIVE | BTS_SERIALIZABLE | BTS_ASYNC);

	if (err == BTS_INVALID && offered & ~w->missing) {
		w->missing |= offered;
		worker_tally(w, TORTURE_DEED_UNAVAILABLE);
		err = bts_begin(w->db, flags & ~w->missing, txn, &w->error);
	}
	return err;
}

static void transact(struct worker *w, unsigned flags, const struct set *set)
{
	struct bts_txn *txn;
	enum bts_err err;

	worker_must(w, begin(w, flags | BTS_WRITE, &txn), "begin");
	for (unsigned i = 0; i < TRIES; i++) {
		worker_must(w, apply(w, txn, set->changes, set->count), "changing");
		intend(set);
		err = bts_commit(txn, &w->error);
		if (!err) {
			done(w, set, flags & ~w->missing & BTS_ASYNC ? TORTURE_ASYNC : TORTURE_ACK);
			return;
		}
		if (err != BTS_CONFLICT || flags & ~w->missing & BTS_EXCLUSIVE)
			worker_must(w, err, "commit");
		worker_tally(w, TORTURE_DEED_CONFLICT);
		worker_must(w, bts_refresh(txn, &w->error), "refresh");
	}
	bts_abort(txn);
	worker_tally(w, TORTURE_DEED_ABANDON);
	worker_report(TORTURE_ABANDON, set->stamp);
}

static unsigned some_flags(struct worker *w)
{
	static const unsigned flags[] = {BTS_CONFLICT_DATABASE, BTS_SERIALIZABLE, BTS_EXCLUSIVE};
	uint64_t which = rng_below(&w->rng, 16);

	return which < sizeof(flags) / sizeof(flags[0]) ? flags[which] : 0;
}

struct update {
	struct worker *w;
	const struct set *set;
	unsigned runs;
};

static enum bts_err update_run(struct bts_txn *txn, void *arg)
{
	struct update *update = arg;
	enum bts_err err = apply(update->w, txn, update->set->changes, update->set->count);

	update->runs++;
	if (!err)
		intend(update->set);
	return err;
}

/* By bts_update, or by hand. */
static void update(struct worker *w, const struct set *set)
{
	struct update update = {w, set, 0};

	if (rng_one_in(&w->rng, 3)) {
		transact(w, some_flags(w), set);
		return;
	}
	worker_must(w, bts_update(w->db, update_run, &update, &w->error), "update");
	atomic_fetch_add(&w->control->tally[TORTURE_DEED_CONFLICT], update.runs - 1);
	done(w, set, TORTURE_ACK);
}

static void deed_put(struct worker *w)
{
	struct set set;

	set_begin(w, &set);
	set_own(w, &set, 1);
	transact(w, some_flags(w), &set);
}

static void deed_many(struct worker *w)
{
	struct set set;

	set_begin(w, &set);
	set_own(w, &set, 2 + (unsigned)rng_below(&w->rng, 30));
	set_journal(&set);
	transact(w, some_flags(w), &set);
}

static void deed_count(struct worker *w)
{
	struct set set;

	set_begin(w, &set);
	set_count(w, &set);
	set_journal(&set);
	update(w, &set);
}

static void deed_transfer(struct worker *w)
{
	struct set set;

	set_begin(w, &set);
	set_transfer(w, &set);
	set_journal(&set);
	update(w, &set);
}

static void deed_bucket(struct worker *w)
{
	struct set set;

	set_begin(w, &set);
	set_add(&set, TORTURE_SET_OWN, TORTURE_BUCKET,
		w->own[TORTURE_BUCKET] && rng_one_in(&w->rng, 2) ? 0 : (int64_t)set.stamp);
	set_journal(&set);
	transact(w, some_flags(w), &set);
}

/* A bucket that everybody fills, empties and drops: nothing is known of it but that its values are whole. */
static void deed_common(struct worker *w)
{
	unsigned count = 1 + (unsigned)rng_below(&w->rng, 5);
	bool drop = rng_one_in(&w->rng, 6);
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	char room[32];
	enum bts_err err;

	worker_must(w, begin(w, BTS_WRITE | some_flags(w), &txn), "begin");
	err = drop ? bts_bucket_drop(txn, torture_common, &w->error)
		   : bts_bucket(txn, torture_common, BTS_CREATE, &bucket, &w->error);
	for (unsigned i = 0; i < count && !drop && !err; i++) {
		struct bts_slice key = torture_own_key(room, 9, (unsigned)rng_below(&w->rng, 200));

		err = rng_one_in(&w->rng, 3)
			      ? bts_del(txn, bucket, key)
			      : bts_put(txn, bucket, key, torture_value(w->buffer, ++w->stamp), 0);
		err = err == BTS_NOT_FOUND ? BTS_OK : err;
	}
	if (err && err != BTS_NOT_FOUND)
		worker_must(w, err, "common");
	if (err) {
		bts_abort(txn);
		return;
	}
	err = bts_commit(txn, &w->error);
	if (err == BTS_CONFLICT) {
		worker_tally(w, TORTURE_DEED_CONFLICT);
		bts_abort(txn);
	} else {
		worker_must(w, err, "commit");
	}
}

/* Two on duty; one may leave when the other stays: serializable or it goes wrong. */
static void deed_duty(struct worker *w)
{
	int64_t duty[2];
	unsigned who = (unsigned)rng_below(&w->rng, 2);
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	char room[32];
	enum bts_err err;

	worker_must(w, begin(w, BTS_WRITE | BTS_SERIALIZABLE, &txn), "begin");
	if (w->missing & BTS_SERIALIZABLE) {
		bts_abort(txn);
		return;
	}
	err = bts_bucket(txn, torture_data, 0, &bucket, &w->error);
	for (unsigned i = 0; i < 2 && !err; i++)
		err = torture_get_number(txn, bucket, torture_number_key(room, "duty", i), &duty[i]);
	if (!err)
		err = torture_put_number(
			txn, bucket, torture_number_key(room, "duty", who), duty[0] + duty[1] < 2);
	worker_must(w, err, "duty");
	err = bts_commit(txn, &w->error);
	if (err != BTS_CONFLICT) {
		worker_must(w, err, "commit");
		return;
	}
	worker_tally(w, TORTURE_DEED_CONFLICT);
	bts_abort(txn);
}

static void deed_group(struct worker *w)
{
	struct bts_group *group;
	struct bts_txn *txn;
	struct set set;
	unsigned next = 0;

	set_begin(w, &set);
	set_own(w, &set, 1 + (unsigned)rng_below(&w->rng, 12));
	set_count(w, &set);
	set_transfer(w, &set);
	set_journal(&set);
	worker_must(w, bts_group_begin(w->db, &group, &w->error), "group");
	while (next < set.count) {
		unsigned count = 1 + (unsigned)rng_below(&w->rng, 4);

		if (count > set.count - next || set.changes[next].kind == TORTURE_ADD_ACCOUNT)
			count = set.count - next; /* both halves of a transfer */
		else
			for (unsigned i = 0; i < count; i++)
				if (set.changes[next + i].kind == TORTURE_ADD_ACCOUNT)
					count = i;
		worker_must(w, bts_group_txn(group, &txn, &w->error), "a group's transaction");
		worker_must(w, apply(w, txn, set.changes + next, count), "changing in a group");
		worker_must(w, bts_commit(txn, &w->error), "commit in a group");
		next += count;
	}
	intend(&set);
	worker_must(w, bts_group_commit(group, &w->error), "group commit");
	done(w, &set, TORTURE_ACK);
}

static void deed_async(struct worker *w)
{
	unsigned count = 1 + (unsigned)rng_below(&w->rng, 6);
	struct set set;

	for (; count > 0; count--) {
		set_begin(w, &set);
		set_own(w, &set, 1 + (unsigned)rng_below(&w->rng, 3));
		if (rng_one_in(&w->rng, 3))
			set_transfer(w, &set);
		set_journal(&set);
		transact(w, BTS_ASYNC, &set);
	}
	if (w->missing & BTS_ASYNC)
		return;
	worker_must(w, bts_sync(w->db, &w->error), "sync");
	worker_report(TORTURE_ACK, set.stamp);
}

static void deed_abort(struct worker *w)
{
	struct bts_txn *txn;
	struct set set;

	set_begin(w, &set);
	set_own(w, &set, 10);
	set_transfer(w, &set);
	worker_must(w, begin(w, BTS_WRITE, &txn), "begin");
	worker_must(w, apply(w, txn, set.changes, set.count), "changing");
	bts_abort(txn);
}

/* Everything the snapshot shows; each value must be whole. */
static uint64_t digest(struct worker *w, struct bts_txn *txn, struct bts_slice name)
{
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	uint64_t sum = 1, stamp;
	enum bts_err err = bts_bucket(txn, name, 0, &bucket, &w->error);

	if (err == BTS_NOT_FOUND)
		return 0;
	worker_must(w, err, "bucket");
	worker_must(w, bts_cursor_open(txn, bucket, &cursor, &w->error), "cursor");
	for (err = bts_cursor_first(cursor, &key, &value); !err;
		err = bts_cursor_next(cursor, &key, &value)) {
		stamp = torture_stamp(value);
		if (stamp == UINT64_MAX && memcmp(key.data, "own", 3) == 0)
			worker_wrong(w, "snapshot %" PRIu64 ": value of '%.*s' is not whole", bts_txn_id(txn),
				(int)key.size, (const char *)key.data);
		if (stamp == UINT64_MAX)
			memcpy(&stamp, value.data, 8);
		sum = (sum ^ stamp) * UINT64_C(0x100000001b3);
	}
	bts_cursor_close(cursor);
	if (err != BTS_NOT_FOUND)
		worker_read(w, txn, err, "scan");
	return sum;
}

/* Hold a snapshot, in this handle or in one that stays when this one is closed; or look whether it is as it was. */
void deed_pin(struct worker *w)
{
	if (!w->pinned) {
		if (!w->watch && rng_one_in(&w->rng, 2))
			worker_must(w, worker_try_open(w, BTS_OPEN_READ_ONLY, &w->watch), "open to watch");
		w->pinned_in = w->watch && rng_one_in(&w->rng, 2) ? w->watch : w->db;
		worker_must(w, bts_begin(w->pinned_in, BTS_READ, &w->pinned, &w->error), "begin to read");
		w->pinned_digest = digest(w, w->pinned, torture_data);
		return;
	}
	if (digest(w, w->pinned, torture_data) != w->pinned_digest)
		worker_wrong(w, "snapshot %" PRIu64 " changed", bts_txn_id(w->pinned));
	if (!rng_one_in(&w->rng, 4))
		return;
	bts_abort(w->pinned);
	w->pinned = NULL;
	if (w->watch && rng_one_in(&w->rng, 2)) {
		bts_close(w->watch);
		w->watch = NULL;
	}
}

/* A new snapshot holds what was acknowledged here, and no snapshot is older than one before. */
static void look(struct worker *w, struct bts *db)
{
	struct torture_shared shared;
	uint64_t own[TORTURE_OWN];
	const char *wrong;
	struct bts_txn *txn;

	worker_must(w, bts_begin(db, BTS_READ, &txn, &w->error), "begin to read");
	worker_read(w, txn, torture_read_shared(txn, &shared, &wrong), "reading what is shared");
	if (wrong)
		worker_wrong(w, "snapshot %" PRIu64 ": %s", bts_txn_id(txn), wrong);
	for (unsigned i = 0; i < TORTURE_COUNTERS; i++)
		if (shared.counters[i] < w->seen.counters[i])
			worker_wrong(w, "snapshot %" PRIu64 ": counter %u went back", bts_txn_id(txn), i);
	w->seen = shared;
	worker_read(w, txn, torture_read_own(txn, w->place, own, &wrong), "reading own keys");
	if (wrong)
		worker_wrong(w, "snapshot %" PRIu64 ": %s", bts_txn_id(txn), wrong);
	for (unsigned i = 0; i < TORTURE_OWN; i++)
		if (own[i] != w->own[i])
			worker_wrong(w, "snapshot %" PRIu64 ": key %u is %" PRIx64 ", acknowledged %" PRIx64,
				bts_txn_id(txn), i, own[i], w->own[i]);
	if (rng_one_in(&w->rng, 4))
		digest(w, txn, torture_common);
	bts_abort(txn);
}

static void deed_view(struct worker *w)
{
	look(w, w->db);
}

static void deed_read_only(struct worker *w)
{
	struct bts *db;

	worker_must(w, worker_try_open(w, BTS_OPEN_READ_ONLY, &db), "open to read");
	look(w, db);
	bts_close(db);
}

static void deed_reopen(struct worker *w)
{
	worker_close(w);
	worker_open(w);
}

static void deed_leave(struct worker *w)
{
	worker_close(w);
	if (w->pinned)
		bts_abort(w->pinned);
	bts_close(w->watch);
	worker_report(TORTURE_LEAVING, 0);
	_exit(0);
}

static const struct {
	void (*run)(struct worker *w);
	unsigned weight;
} deeds[TORTURE_DEEDS] = {
	[TORTURE_DEED_PUT] = {deed_put, 30},
	[TORTURE_DEED_MANY] = {deed_many, 10},
	[TORTURE_DEED_COUNT] = {deed_count, 15},
	[TORTURE_DEED_TRANSFER] = {deed_transfer, 15},
	[TORTURE_DEED_BUCKET] = {deed_bucket, 4},
	[TORTURE_DEED_COMMON] = {deed_common, 5},
	[TORTURE_DEED_DUTY] = {deed_duty, 5},
	[TORTURE_DEED_GROUP] = {deed_group, 8},
	[TORTURE_DEED_ASYNC] = {deed_async, 8},
	[TORTURE_DEED_ABORT] = {deed_abort, 2},
	[TORTURE_DEED_VIEW] = {deed_view, 12},
	[TORTURE_DEED_PIN] = {deed_pin, 5},
	[TORTURE_DEED_READ_ONLY] = {deed_read_only, 2},
	[TORTURE_DEED_REOPEN] = {deed_reopen, 2},
	[TORTURE_DEED_LEAVE] = {deed_leave, 1},
};

void deed_any(struct worker *w)
{
	unsigned sum = 0, deed = 0;
	uint64_t chosen;

	for (unsigned i = 0; i < TORTURE_DEEDS; i++)
		sum += deeds[i].weight;
	chosen = rng_below(&w->rng, sum);
	while (chosen >= deeds[deed].weight)
		chosen -= deeds[deed++].weight;
	worker_tally(w, deed);
	deeds[deed].run(w);
}
