/* The image of a commit as a file, a verified block at a time: for bts_backup and bts_image_read. */
#ifndef IMAGE_H
#define IMAGE_H

#include "db.h"
#include "redirect.h"
#include "traverse.h"
#include <btree_store/ship.h>

#define IMAGE_BUFFER (256u << 10) /* a multiple of every page size and of a chunk */

/* A large value whose header was verified. */
struct image_extent {
	bts_pgno pgno; /* 0: none */
	uint64_t pages, headers, size;
	const uint8_t *header;
	bool redirected;
};

struct bts_image {
	struct bts *db;
	const struct bts_image_options *options; /* while it is opened */
	struct shared_reader reader;
	bool entered;
	struct redirect *redirect;
	struct commit_record record;
	struct bts_position position;
	struct tree_ctx ctx;
	struct bts_error why;
	struct space space; /* the free set of the commit */
	struct traverse traverse;
	uint64_t edges;
	uint64_t *inner; /* 1: the page is of a large value, and not its first; a bit for the one behind the last too */
	struct meta_slot slot;
	uint32_t page_size;
	struct image_extent extent;
	uint8_t *buffer;
	/* the last block, in the buffer or in the map: bytes [block_at, + block_size) of the image; NULL: none */
	const uint8_t *block;
	uint64_t block_at, block_size;
};

/* Makes the block the one that holds offset `at`, which is below the end.  Else why is set. */
enum bts_err image_block(struct bts_image *, uint64_t at);

#endif
