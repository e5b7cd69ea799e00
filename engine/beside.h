/*
 * Where a data file is, for what is opened beside it: the path that it was opened by may be relative, and the program may go
 * elsewhere; the directory may be given another name, and another file the old one.
 */
#ifndef BESIDE_H
#define BESIDE_H

#include <btree_store/env.h>
#include <stdbool.h>

struct beside {
	struct bts_env *env;
	struct bts_file *file; /* borrowed */
	char *given;	       /* owned, for texts: the path as it was given */
	char *whole;	       /* owned: the same from the root, as of then */
};

/* path: copied.  false: no memory; beside_fini is needed in any case. */
bool beside_init(struct beside *, struct bts_env *, const char *path);
void beside_fini(struct beside *);
/* The one of the two that names the file now; from the root where neither does, or that cannot be told. */
const char *beside_path(const struct beside *);

/* Does path still name this file?  An errno value; of a path that is not there 0. */
int beside_names(struct bts_env *, const char *path, struct bts_file *file, bool *same);

#endif
