/*
 * A handle has a few places.  What stands in one is there until the handle is closed, so that threads may look at it while it is
 * another's; whose it is says its reader's slot (shared_parked.c), which is claimed and registered by the same exchange.  A
 * thread begins at the place that it used last, and so keeps to one of its own, and to the cache lines of that; who finds
 * it taken goes on to the next.  Places are filled as they are needed: as many as there are readers at a time.
 *
 * Nothing here is shared by threads that do not share a place, but lines that only commits write.
 */
#include "park.h"

#include "base/ensure.h"
#include "redirect.h"

#define PARK_TRIES 8u	 /* places looked at, then the transaction is an ordinary one */
#define PARK_BUCKETS 64u /* who has opened more does not keep their memory */

/* Where this thread's last one is, whatever the handle. */
static _Thread_local unsigned park_home __attribute__((tls_model("initial-exec")));

struct bts_txn *park_claim(struct bts *db, unsigned *place)
{
	unsigned at = park_home;

	*place = 0;
	if (shared_foreign(db->shared))
		return NULL;
	for (unsigned i = 0; i < PARK_TRIES; i++, at = (at + 1) % DB_PARKED_MAX) {
		struct bts_txn *txn = atomic_load_explicit(&db->parked[at], memory_order_acquire);
		enum shared_claim claim;

		if (txn == NULL) {
			*place = at + 1;
			return NULL;
		}
		claim = shared_reader_claim(db->shared, &txn->reader);
		if (claim == SHARED_CLAIM_NONE)
			continue;
		txn->registered = claim == SHARED_CLAIM_FRESH;
		txn->error.code = BTS_OK;
		txn->error.os = 0;
		txn->error.text[0] = '\0';
		return txn;
	}
	park_home = at;
	return NULL;
}

enum bts_err park_again(struct bts_txn *txn)
{
	struct redirect *table;
	enum bts_err err = redirect_again(txn->db, &txn->reader, &txn->own.record, &table, &txn->error);

	if (err)
		return err;
	state_again(&txn->own);
	state_redirect(&txn->own, table);
	txn->registered = true;
	return BTS_OK;
}

void park_keep(struct bts_txn *txn, unsigned place)
{
	struct bts *db = txn->db;
	struct bts_txn *none = NULL;

	ENSURE(place >= 1 && place <= DB_PARKED_MAX && !txn->writing && txn->registered);
	txn->kept = place;
	if (atomic_compare_exchange_strong(&db->parked[place - 1], &none, txn))
		atomic_fetch_sub(&db->transactions, 1);
	else
		txn->kept = 0;
}

void park_put(struct bts_txn *txn)
{
	ENSURE(txn->kept != 0 && txn->cursors == NULL);
	park_home = txn->kept - 1;
	if (txn->own.bucket_made > PARK_BUCKETS) {
		state_fini(&txn->own);
		shared_reader_spoil(&txn->reader);
	}
	if (txn->own.redirect != NULL) { /* a log that was replaced is not to be kept for who may never come */
		state_redirect(&txn->own, NULL);
		shared_reader_spoil(&txn->reader);
	}
	txn->registered = false;
	shared_reader_park(txn->db->shared, &txn->reader);
}

bool park_idle(struct bts *db)
{
	for (unsigned i = 0; i < DB_PARKED_MAX; i++) {
		const struct bts_txn *txn = atomic_load(&db->parked[i]);

		if (txn != NULL && !shared_reader_parked(&txn->reader))
			return false;
	}
	return true;
}

void park_free(struct bts *db)
{
	for (unsigned i = 0; i < DB_PARKED_MAX; i++) {
		struct bts_txn *txn = atomic_load(&db->parked[i]);

		if (txn == NULL)
			continue;
		state_fini(&txn->own);
		db->env->ops->memory(db->env, txn, 0);
	}
}
