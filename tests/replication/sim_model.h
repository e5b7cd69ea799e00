/*
 * What the databases of the simulation must hold: a naive model, changed by the same operations, and every state it
 * ever had, by position.  A state is summed over its entries, so that the sum follows each change at once.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stdbool.h>

#include <btree_store/ship.h>

#include "rng.h"

#define MODEL_BUCKETS 4u
#define MODEL_KEYS 160u
#define MODEL_NAMES 3u /* named snapshots */
#define MODEL_LISTS 3u
#define MODEL_LIST_MAX 512u
#define MODEL_VALUE_MAX 120000u

struct sim_model {
	uint64_t entries[MODEL_BUCKETS][MODEL_KEYS]; /* 0: absent */
	bool exists[MODEL_BUCKETS];
	uint64_t content;	     /* sum of the buckets and what is in them */
	uint64_t names[MODEL_NAMES]; /* content of each named snapshot; 0: none */
	bool named[MODEL_NAMES];     /* in this transaction: content is not known before its end */
	uint32_t list_counts[MODEL_LISTS];
	uint64_t list_sums[MODEL_LISTS];
	uint32_t lists[MODEL_LISTS][MODEL_LIST_MAX];
};

/* One transaction's worth of random changes, in the database and in the model.  Fails like the call that failed. */
enum bts_err model_change(
	struct sim_model *, struct bts_txn *, struct rng *, uint32_t *next_item, struct bts_error *error);
/* The changes are all made. */
void model_seal(struct sim_model *);

/* Sums of what is really there. */
enum bts_err model_scan(struct bts_txn *, uint64_t *content, struct bts_error *error);
enum bts_err model_scan_names(struct bts *db, uint64_t names[MODEL_NAMES], struct bts_error *error);
/* Of all live pages of the newest durable commit: ids and bytes. */
enum bts_err model_scan_pages(struct bts *db, uint64_t *pages, struct bts_error *error);
/* One list as a transaction sees it; *count 0: none. */
enum bts_err model_read_list(struct bts_txn *, unsigned list, uint32_t items[MODEL_LIST_MAX], uint32_t *count,
	struct bts_error *error);

struct sim_state {
	struct sim_state *parent; /* the commit it was made upon */
	struct bts_position position;
	struct sim_model model;
	uint64_t pages;
	bool has_pages;
};

struct sim_states {
	struct sim_state **list;
	size_t count, cap;
};
/* NULL: nobody made that commit. */
struct sim_state *states_find(const struct sim_states *, const struct bts_position *);
struct sim_state *states_add(
	struct sim_states *, struct sim_state *parent, const struct bts_position *, const struct sim_model *);
/* Is a state, or NULL for none, part of the history of another? */
bool states_lead_to(const struct sim_state *from, const struct sim_state *to);
void states_free(struct sim_states *);

#endif
