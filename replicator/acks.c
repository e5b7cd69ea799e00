/* Acknowledgements, by who made them. */
#include "acks.h"

#include <string.h>

bool acks_follower(const struct bts_ack *ack)
{
	return !strchr(ack->node, ':');
}

static size_t acks_all(struct bts *db, struct bts_ack acks[ACKS_MAX])
{
	size_t count = bts_ack_list(db, acks, ACKS_MAX);

	return count < ACKS_MAX ? count : ACKS_MAX;
}

size_t acks_followers(struct bts *db, struct bts_ack *acks, size_t cap)
{
	struct bts_ack all[ACKS_MAX];
	size_t count = acks_all(db, all), kept = 0, i;

	for (i = 0; i < count && kept < cap; i++)
		if (acks_follower(&all[i]))
			acks[kept++] = all[i];
	return kept;
}

bool acks_archive(struct bts *db, struct bts_ack *ack)
{
	struct bts_ack all[ACKS_MAX];
	size_t count = acks_all(db, all), i;

	for (i = 0; i < count; i++) {
		if (strcmp(all[i].node, BTS_ACK_ARCHIVE) == 0) {
			*ack = all[i];
			return true;
		}
	}
	return false;
}
