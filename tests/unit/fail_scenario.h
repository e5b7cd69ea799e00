/*
 * What the failure tests fail: scenarios over a prepared database, each a few commits whose outcome is known.
 *
 * A scenario runs once unharmed, which records what the database holds after each commit; then again and
 * again with one call failing, and whatever happened, the database must hold what it held after the last
 * acknowledged commit (or, where the caller says so, after the one in flight).
 */
#ifndef UNIT_FAIL_SCENARIO_H
#define UNIT_FAIL_SCENARIO_H

#include <btree_store.h>
#include <env_mem.h>
#include <stdbool.h>

#define FAIL_PATH "/db"
#define FAIL_COMMITS 80

struct fail_bed;
typedef enum bts_err fail_scenario(struct fail_bed *);
typedef void fail_arm(struct fail_bed *, struct env_mem *);

struct fail_bed {
	struct env_mem *mem;
	struct bts *db; /* NULL: not open */
	fail_arm *arm;	/* called where a scenario begins to be harmed; NULL: never */
	uint64_t nth;	/* for arm */
	int os;
	bool again; /* repeat a call that had BTS_MEMORY, then go on */
	/* outcome */
	unsigned commits;
	struct bts_error error;
	uint64_t hashes[FAIL_COMMITS]; /* of the unharmed run: [0] before, [i] after commit i */
	unsigned hash_count;
	bool recording;
};

struct fail_named {
	const char *name;
	fail_scenario *run;
};
extern const struct fail_named fail_scenarios[];
extern const unsigned fail_scenario_count;
/* fail_pieces.c */
fail_scenario fail_pieces, fail_turns, fail_diff;

/* A database with a few buckets, large values and a history, cleanly closed.  Owned: env_mem_free. */
struct env_mem *fail_base(void);
enum bts_err fail_open(struct fail_bed *);
/* Everything the database holds, by a read transaction. */
uint64_t fail_hash(struct bts *);
/* The unharmed run of a scenario on a copy of base fills hashes. */
void fail_record(struct fail_bed *, const struct env_mem *base, fail_scenario *);
/* bts_check finds nothing. */
void fail_sound(struct bts *);

#endif
