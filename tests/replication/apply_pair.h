/* A primary and a follower on the disk, whose frames overwrite what readers of the follower see (apply_bed.h). */
#ifndef APPLY_PAIR_H
#define APPLY_PAIR_H

#include "apply_bed.h"

#define PAIR_KEYS 400u

struct pair {
	struct bts *primary, *follower;
	char source[96], path[96];
	struct rng rng;
};

extern char pair_directory[64];

/* In main: the seed and a directory for all pairs; true: it failed. */
bool pair_begin(int argc, char **argv);
bool pair_end(void);
void pair_must(enum bts_err, const struct bts_error *);
/* env: the follower's.  limit: its pending_limit.  Both have a first commit of all keys. */
void pair_open(struct pair *, struct bts_env *env, const char *name, uint64_t limit);
void pair_close(struct pair *);
/* So many keys anew, PAIR_KEYS for all, one in forty of them large. */
void pair_overwrite(struct pair *, unsigned round, unsigned changes);
uint64_t pair_log_bytes(const struct pair *); /* in the files of both names */
void pair_digest(struct bts *, uint8_t digest[16]);
void pair_assert_newest(struct pair *, struct bts *);
void pair_flip(const char *path, uint64_t at); /* a bit there */

#endif
