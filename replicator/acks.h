/*
 * The acknowledgements in a file's lock file (bts_ack_list), by who made them: followers, and an archive (BTS_ACK_ARCHIVE),
 * whose name no node can have (query_node_valid).  It is a copy that nobody can be asked for, and counts as no follower's.
 */
#ifndef ACKS_H
#define ACKS_H

#include <stdbool.h>
#include <stddef.h>

#include <btree_store/ship.h>

#define ACKS_MAX 64 /* that the lock file keeps */

bool acks_follower(const struct bts_ack *);
/* Those of followers: fills at most cap, returns how many it filled. */
size_t acks_followers(struct bts *db, struct bts_ack *acks, size_t cap);
/* An archive's; false: there has never been one. */
bool acks_archive(struct bts *db, struct bts_ack *ack);

#endif
