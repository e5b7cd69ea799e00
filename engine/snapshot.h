/*
 * Named snapshots: states of the database that are kept until they are deleted.
 *
 * The tree of them (LAYOUT_TREE_SNAPSHOTS, rooted in the commit record) maps a name to the catalog of the
 * batch that created it.  A snapshot holds the catalog, the buckets' trees and their large values; history,
 * free log and this tree are the head's alone ("aside").
 *
 * Everything rests on one fact.  A page is reachable from the catalogs of an unbroken run of states: from its
 * birth up to the commit that releases it (no page becomes reachable again, B2).  So:
 *  - a page that the head releases is still needed iff birth <= the newest named snapshot's number;
 *  - of two states p < s, the pages of s with birth <= p are exactly what they share, and whoever has walked
 *    p may turn back in s at every edge with birth <= p;
 *  - of a deleted snapshot d, with o the next older one kept and n the next newer one kept (or the head
 *    before the batch), what nothing reaches any more is what d reaches with birth > o and n does not reach.
 *    n shares with d what lies below the edges of n with birth <= d that hang on pages with birth > d: its
 *    frontier.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "meta.h"

#define SNAPSHOT_RECORD_MAX 82u

struct state; /* txn.h */

struct snapshot {
	bts_txid txid; /* published number of its batch; 0: of the batch being built, never on disk */
	uint64_t time_ms;
	bts_pgno high_water; /* its pages lie below */
	uint64_t buckets;
	struct tree catalog;
};

/* Record bytes (FORMAT.md); always of one size. */
size_t snapshot_encode(const struct snapshot *, uint8_t bytes[SNAPSHOT_RECORD_MAX]);
/*
 * Hostile bytes, of a file whose newest state is record.  NULL when sound, else what is wrong.  built: it may
 * be one of the batch being built.
 */
const char *snapshot_decode(
	const struct node_cell *cell, const struct commit_record *record, bool built, struct snapshot *);

/* Ascending numbers, each once (one batch may give several names to its state); those being built left out. */
struct snapshot_list {
	struct bts_env *env;
	struct snapshot *items;
	size_t count, cap;
};
/* tree: the snapshots tree of record, or as a state on top of it has it.  Ends with _fini in every case. */
enum bts_err snapshot_list_load(
	struct tree_ctx *, const struct commit_record *record, struct tree *tree, struct snapshot_list *);
void snapshot_list_fini(struct snapshot_list *);
/* Of the greatest number; 0: the list is empty. */
bts_txid snapshot_newest(const struct snapshot_list *);
/* NULL: none has this number. */
const struct snapshot *snapshot_find(const struct snapshot_list *, bts_txid txid);

/*
 * Visit, each once, the pages and extents that snapshots of `before` reach which are not in `after`, and that
 * neither the snapshots in `after` nor head, the catalog of record's state, do.  O(what differs between
 * neighbours).
 */
struct snapshot_orphans {
	const struct commit_record *record;
	const struct tree *head;
	const struct snapshot_list *before, *after;
	enum bts_err (*visit)(void *arg, const struct page_ptr *ptr, uint64_t pages);
	void *arg;
};
enum bts_err snapshot_orphans(struct tree_ctx *, const struct snapshot_orphans *);

/* In a state.  The record is completed by snapshot_settle, at the seal. */
enum bts_err snapshot_create(struct state *, struct bts_slice name); /* BTS_EXISTS */
enum bts_err snapshot_delete(struct state *, struct bts_slice name); /* BTS_NOT_FOUND */
/*
 * Write `built` into the records of the state's batch.  First with built->txid 0, to have private pages of
 * the tree that are nobody else's; then, when the catalog is final, with what it is: only bytes in those
 * pages change.
 */
enum bts_err snapshot_settle(struct state *, const struct snapshot *built);

#endif
