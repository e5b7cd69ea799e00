/*
 * The file that tells what a rewind left behind (R11): one line of JSON for each change, durable under its name before the rewind
 * is installed.  DESIGN.md has the lines.
 */
#ifndef ORPHANS_H
#define ORPHANS_H

#include <btree_store/ship.h>

#include "fail.h"

#define ORPHANS_PATH_MAX 4096

/*
 * path: of the database file, which stands at `own`; out gets the name of the file that was written.  apply: a graft whose units
 * have all come.  An earlier file of that name, of an attempt that was not finished, is replaced.
 */
BTS_MUST_CHECK enum bts_err orphans_write(struct bts_apply *apply, const char *path, const struct bts_position *own,
	char out[ORPHANS_PATH_MAX], uint64_t *lines, struct bts_error *error);

#endif
