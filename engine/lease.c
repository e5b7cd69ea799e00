/* Large values written before their commit: see lease.h. */
#include "lease.h"

#include "base/crc32c.h"
#include "base/ensure.h"
#include "error.h"
#include "flush.h"

#include <string.h>

#define LEASE_PATIENCE_MS 100u /* for whoever builds a batch; an exclusive transaction may take for ever */

/* The ring's end moves by publishing the same tip again. */
static void lease_tell(struct bts *db, enum shared_change_kind kind, struct space_run run)
{
	shared_ring_put(db->shared, db->tip_ring, &(struct shared_change){kind, run.pgno, run.count, 0, 0});
	db->ring = ++db->tip_ring;
	shared_publish_tip(db->shared, &db->tip, db->tip_ring);
}

/* A commit that does nothing but raise the mark.  Nobody waits for it: the next flush brings it along. */
static enum bts_err lease_raise(struct bts *db, uint64_t pages)
{
	struct commit_built built;
	struct bts_group group;
	struct bts_error why = {0};
	enum bts_err err = group_open(&group, db, &why);

	if (err)
		return err;
	group.state.raise = pages;
	group.last++;
	group.count = 1;
	err = group_build(&group, &built, &why);
	group_close(&group);
	return err;
}

/* The lowest run that is long enough, and ends below the mark. */
static enum bts_err lease_find(struct bts *db, uint64_t pages, struct space_run *run)
{
	struct space_request request = {.pages = pages, .must_join = true, .below = db->space.high_water};
	size_t count;

	db_reclaim(db);
	return space_alloc(&db->space, &request, run, 1, &count);
}

/* Build held. */
static bool lease_place(struct lease *lease, bool may_raise)
{
	struct bts *db = lease->db;
	enum bts_err err;

	if (shared_leases(db->shared) >= SHARED_LEASES)
		return false;
	err = lease_find(db, lease->run.count, &lease->run);
	if (err == BTS_FULL && may_raise) {
		err = lease_raise(db, lease->run.count);
		if (err == BTS_OK)
			err = lease_find(db, lease->run.count, &lease->run);
	}
	if (err)
		return false;
	/* The table first: who dies between the two has pages that everybody else still takes for ready. */
	if (!shared_lease_take(db->shared, lease->run.pgno, lease->run.count, &lease->index)) {
		err = space_give(&db->space, lease->run);
		ENSURE(err == BTS_OK);
		return false;
	}
	lease_tell(db, SHARED_LEASE, lease->run);
	return true;
}

/*
 * A transaction of a group can not commit in between, and one that conflicts with any commit would lose to the one that
 * raises the mark.
 */
static bool lease_acquire(struct lease *lease, struct bts_txn *txn)
{
	struct bts *db = lease->db;
	unsigned patience = LEASE_PATIENCE_MS;
	bool held = txn->group != NULL || txn->exclusive;
	bool may_raise = txn->group == NULL && !(txn->flags & BTS_CONFLICT_DATABASE);
	bool placed;

	if (db->lock_timeout_ms > 0 && db->lock_timeout_ms < patience)
		patience = db->lock_timeout_ms;
	if (!held && db_build_enter_within(db, patience, NULL))
		return false;
	placed = lease_place(lease, may_raise);
	if (!held)
		db_build_leave(db);
	return placed;
}

static void lease_free(struct lease *lease)
{
	struct bts_env *env = lease->db->env;

	env->ops->memory(env, lease->buffer, 0);
	env->ops->memory(env, lease->sums, 0);
	env->ops->memory(env, lease, 0);
}

static struct lease *lease_new(struct bts *db, uint64_t size)
{
	struct bts_env *env = db->env;
	struct lease *lease = env->ops->memory(env, NULL, sizeof(*lease));

	if (lease == NULL)
		return NULL;
	*lease = (struct lease){.db = db, .size = size};
	lease->run.count = layout_extent_pages(size, db->pager.page_size);
	lease->buffer = env->ops->memory(env, NULL, LAYOUT_CHUNK);
	lease->sums = env->ops->memory(env, NULL, (size_t)(4 * layout_extent_chunks(size)));
	if (lease->buffer != NULL && lease->sums != NULL)
		return lease;
	lease_free(lease);
	return NULL;
}

/* Where the payload begins. */
static bts_pgno lease_payload(const struct lease *lease)
{
	return lease->run.pgno + layout_extent_header_pages(lease->size, lease->db->pager.page_size);
}

struct lease *lease_take(struct bts_txn *txn, uint64_t size)
{
	struct lease **list = txn->group != NULL ? &txn->group->leases : &txn->leases;
	struct lease *lease = lease_new(txn->db, size);
	bts_pgno payload;

	if (lease == NULL)
		return NULL;
	if (!lease_acquire(lease, txn)) {
		lease_free(lease);
		return NULL;
	}
	lease->next = *list;
	lease->link = list;
	if (lease->next != NULL)
		lease->next->link = &lease->next;
	*list = lease;
	payload = lease_payload(lease);
	lease->data = pager_raw(&txn->db->pager, payload, lease->run.pgno + lease->run.count - payload);
	if (lease->data != NULL)
		return lease;
	lease_drop(lease);
	return NULL;
}

/* Whole chunks, or the end of the value, from offset `at` of it on; what is left of the last page becomes zero. */
static enum bts_err lease_put(
	struct lease *lease, uint64_t at, const uint8_t *bytes, size_t size, struct bts_error *error)
{
	static const uint8_t zeros[BTS_PAGE_SIZE_MAX];
	struct bts *db = lease->db;
	size_t rest = (db->pager.page_size - size % db->pager.page_size) % db->pager.page_size;
	struct iovec iov[2] = {{(void *)(uintptr_t)bytes, size}, {(void *)(uintptr_t)zeros, rest}};
	int os;

	for (size_t from = 0; from < size; from += LAYOUT_CHUNK) {
		size_t part = size - from < LAYOUT_CHUNK ? size - from : LAYOUT_CHUNK;

		bytes_put_u32(lease->sums + 4 * ((at + from) / LAYOUT_CHUNK), crc32c(0, bytes + from, part));
	}
	os = db->env->ops->file_pwritev(
		db->file, iov, rest > 0 ? 2 : 1, (lease_payload(lease) << db->pager.page_shift) + at);
	if (os)
		return error_os(
			error, os, "writing a large value to page %llu", (unsigned long long)lease->run.pgno);
	atomic_fetch_add(&db->pages_written, (size + rest) >> db->pager.page_shift);
	return BTS_OK;
}

enum bts_err lease_write(struct lease *lease, struct bts_slice slice, struct bts_error *error)
{
	const uint8_t *bytes = slice.data;
	size_t left = slice.size;
	enum bts_err err = BTS_OK;

	ENSURE(left <= lease->size - lease->done);
	while (left > 0 && err == BTS_OK) {
		size_t filled = lease->done % LAYOUT_CHUNK, part = left;

		if (filled == 0 && left >= LAYOUT_CHUNK) { /* straight from the caller */
			part -= left % LAYOUT_CHUNK;
			err = lease_put(lease, lease->done, bytes, part, error);
		} else {
			if (part > LAYOUT_CHUNK - filled)
				part = LAYOUT_CHUNK - filled;
			memcpy(lease->buffer + filled, bytes, part);
			if (filled + part == LAYOUT_CHUNK || lease->done + part == lease->size)
				err = lease_put(
					lease, lease->done - filled, lease->buffer, filled + part, error);
		}
		lease->done += part;
		bytes += part;
		left -= part;
	}
	return err;
}

void lease_drop(struct lease *lease)
{
	if (lease == NULL)
		return;
	*lease->link = lease->next;
	if (lease->next != NULL)
		lease->next->link = lease->link;
	if (!lease->used && !shared_foreign(lease->db->shared))
		shared_lease_leave(lease->db->shared, lease->index);
	lease_free(lease);
}

void lease_end(struct lease **list)
{
	while (*list != NULL)
		lease_drop(*list);
}

void lease_commit(struct lease *lease)
{
	shared_lease_clear(lease->db->shared, lease->index);
	lease->used = true;
}

/*
 * A dead owner may have died before anybody was told of the lease, with it, or when his commit had become the tip.  The tip's
 * free log knows: so nobody's allocator is worth keeping.  Told first, buried (lease_restore) then: who dies in between leaves
 * the next one to tell it once more.
 */
void lease_inherit(struct bts *db)
{
	if (shared_leases(db->shared) == 0 || !shared_leases_bury(db->shared))
		return;
	db->tip_ring += SHARED_RING_ENTRIES;
	shared_publish_tip(db->shared, &db->tip, db->tip_ring);
}

/* Told first, cleared then: who dies in between leaves the build lock orphaned, and what is left in doubt (db_build_lock). */
void lease_collect(struct bts *db)
{
	struct space_run run;

	if (shared_leases(db->shared) == 0)
		return;
	for (uint32_t i = 0; i < SHARED_LEASES; i++) {
		enum bts_err err;

		if (shared_lease_get(db->shared, i, &run.pgno, &run.count) != SHARED_LEASE_LEFT)
			continue;
		err = space_give(&db->space, run);
		ENSURE(err == BTS_OK);
		lease_tell(db, SHARED_GIVE, run);
		shared_lease_clear(db->shared, i);
	}
}

enum bts_err lease_restore(struct bts *db)
{
	struct space_run run;

	for (uint32_t i = 0; shared_leases(db->shared) > 0 && i < SHARED_LEASES; i++) {
		enum shared_lease_state state = shared_lease_get(db->shared, i, &run.pgno, &run.count);

		if (state == SHARED_LEASE_DEAD)
			shared_lease_clear(db->shared, i);
		else if (state != SHARED_LEASE_NONE && !space_take(&db->space, run) &&
			 !space_claim(&db->space, run))
			return BTS_CORRUPT;
	}
	return BTS_OK;
}
