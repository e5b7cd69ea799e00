/*
 * A bed for trees: a file in memory, a pager on it, private pages, and a commit that writes them behind the
 * last page.  No meta pages, no free space; it only makes clean pages as a commit would.  It keeps account of
 * which pages of the file are live, so that each must be released exactly once.
 */
#ifndef TREE_BED_H
#define TREE_BED_H

#include "dirty.h"
#include "env_mem.h"
#include "tree.h"

#define TREE_BED_PAGES (1u << 20)

struct tree_bed {
	struct bts_env env; /* first: memory() finds the bed by it */
	struct bts_env_ops ops;
	struct env_mem *mem;
	struct bts_file *file;
	struct pager pager;
	struct bts_error error;
	struct tree_ctx ctx; /* writing */
	struct tree tree;
	uint64_t fail_in; /* allocations until one fails; 0: never */
	uint8_t *live;	  /* by page number */
};

struct tree_bed *tree_bed_new(uint32_t page_size); /* owned: tree_bed_free */
void tree_bed_free(struct tree_bed *);
/* Write what is private, check every page's account, begin anew with nothing private; stamp + 1. */
void tree_bed_commit(struct tree_bed *);
/* A context that reads what was committed last. */
struct tree_ctx tree_bed_reader(struct tree_bed *);
/* Forget which clean pages have been verified, as a process that opens the file. */
void tree_bed_forget(struct tree_bed *);
/* tree_check, failing the test with its first finding. */
void tree_bed_check(struct tree_bed *, struct tree_ctx *, bool extents);
/* The private pages held are those the tree reaches, no more. */
void tree_bed_check_private(struct tree_bed *);

#endif
