/* What a golden file holds, as one digest and a line of counters; shared by who makes them and who reads them. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <btree_store/ship.h>

#include "env_mem.h"

#define GOLDEN_LINE 512
#define GOLDEN_MAP (UINT64_C(64) << 20)

/* Print what and why, and end the program; nothing when err is BTS_OK. */
void golden_must(enum bts_err err, const struct bts_error *error, const char *what);

enum bts_err golden_open(struct bts_env *, const char *path, unsigned flags, uint32_t page_size,
	struct bts **db, struct bts_error *error);

/*
 * SipHash-2-4-128, its key all zero, over (numbers little-endian):
 *	the head, then each named snapshot by name:  'S', u32 bytes of the name, the name, u64 number, u64 time (head: "", 0, 0)
 *	each of its buckets by name:                 'B', u32 bytes of the name, the name, u32 bytes of the note, the note, u64 version
 *	each entry by key:                           'E', u32 bytes of the key, the key, u64 bytes of the value, the value, u64 version
 */
void golden_dump(struct bts *db, uint8_t out[16], unsigned *snapshots);

/* "dump=HEX root=HEX chain=HEX epoch=N txid=N first=N pages=N free=N buckets=N snapshots=N follower=N clean=N fell_back=N" */
void golden_line(struct bts *db, char line[GOLDEN_LINE]);

/* The whole of a file; owned: free. */
uint8_t *golden_load(const char *folder, const char *name, const char *suffix, size_t *size);

#endif
