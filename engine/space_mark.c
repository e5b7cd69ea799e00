/* The mark of a replica or a follower, up and down, and who keeps pages from becoming ready. */
#include "space.h"
#include "base/ensure.h"

enum bts_err space_set_mark(struct space *space, bts_pgno mark)
{
	if (mark >= space->high_water)
		return space_raise(space, mark);
	ENSURE(mark >= space->first);
	if (!space_claim(space, (struct space_run){mark, space->high_water - mark}))
		return BTS_MEMORY;
	space->high_water = mark;
	space_heads_quiet(space);
	if (space->hint > mark)
		space->hint = space->first;
	return BTS_OK;
}

enum bts_err space_reach(struct space *space, bts_pgno end)
{
	struct space_run run = {space->high_water, end - space->high_water};
	enum bts_err err;

	if (end <= space->high_water)
		return BTS_OK;
	err = space_raise(space, end);
	return err ? err : space_give(space, run);
}

bts_txid space_holder(const struct space *space, bts_pgno pgno)
{
	for (size_t s = 0; s < space->shelf_count; s++) {
		const struct space_shelf *shelf = space->shelves[s];

		for (size_t i = 0; i < shelf->count; i++)
			if (pgno == 0 || (pgno >= shelf->entries[i].pgno &&
						 pgno - shelf->entries[i].pgno < shelf->entries[i].count))
				return shelf->snapshot;
	}
	return 0;
}
