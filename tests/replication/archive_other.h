/* What other processes put into an archive, while an archiver is at it. */
#ifndef ARCHIVE_OTHER_H
#define ARCHIVE_OTHER_H

#include "position.h"
#include "store.h"

/* A prune's word that all of that epoch up to there is gone; nothing is deleted. */
void other_prune(struct store *, const struct bts_position *at);
/* Another archiver's entry, behind the only one that there is: a full frame with that one's parts and target. */
void other_enter(struct store *, const struct bts_position *epoch);

#endif
