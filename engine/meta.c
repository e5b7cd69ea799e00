/*
 * Bytes of the commit record and of the meta slot; FORMAT.md has the same tables in words.
 *
 * Record (little-endian, offsets in bytes):
 *	  0  u32 magic "BTRC"       4  u16 format          6  u16 bytes in all
 *	  8  u64 must-understand bits                     16  database 16
 *	 32  u32 epoch             36  u32 next tree id   40  u64 epoch random
 *	 48  u48 txid              54  u8 log2 page size  55  zero
 *	 56  chain 16              72  u64 time, ms       80  u48 first page      86  u48 high water
 *	 92  u32 zero              96  u64 buckets       104  catalog tree 48    152  history tree 48
 *	200  snapshots tree 48
 *	248  free log: pointer 16, u32 generation, u32 pages, u64 sequence
 *	280  u16 inline free entries, u16 recent positions, u16 segments, u16 option bytes
 *	288  the entries (8 each), the positions (22), the segments (40), the options
 * Tree: pointer 16, u32 id, u32 depth, u64 entries, u64 bytes, u64 pages.
 *
 * Slot:
 *	  0  magic 8                8  u32 0x01020304     12  u16 format          14  u16 zero
 *	 16  u32 crc32c of all 4096 bytes, this field taken as zero               20  u32 zero
 *	 24  u64 must-understand bits                     32  u64 sequence
 *	 40  u8 mode  41 u8 role   42  u16 manifest runs  44  u32 pending count
 *	 48  u48 D                 54  u16 option bytes   56  u64 sequence of D's slot
 *	 64  node 16               80  u64 inode          88  u64 birth, ns       96  u64 pending salt
 *	104  u32 record bytes     108  u32 zero
 *	112  the runs (12 each: u48 page, u16 pages, u32 crc32c), the options, the record; zero up to the end
 *
 * Options: u16 type, u16 bytes, then so many; a type with bit 15 must be understood, another one is skipped.
 */
#include "meta.h"

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/siphash.h"
#include "error.h"

#define META_RECORD_MAGIC 0x43525442u /* "BTRC" */
#define META_RECORD_FIXED 288u
#define META_POSITION_SIZE 22u
#define META_SEGMENT_SIZE 40u
#define META_BYTE_ORDER 0x01020304u
#define META_SLOT_FIXED 112u
#define META_SLOT_CRC_AT 16u
#define META_RUN_SIZE 12u
#define META_RECORD_WORST                                                                                    \
	(META_RECORD_FIXED + 8u * FREELOG_INLINE_MAX + META_POSITION_SIZE * META_RECENT_MAX +                \
		META_SEGMENT_SIZE * META_SEGMENTS_INLINE)

ENSURE_STATIC(sizeof(META_MAGIC) == 9);
ENSURE_STATIC(META_RECORD_WORST <= BTS_RECORD_MAX);
ENSURE_STATIC(META_SLOT_FIXED + META_RUN_SIZE * META_MANIFEST_MAX + META_PROMISE_BYTES + META_RECORD_WORST <= LAYOUT_META_SIZE);
ENSURE_STATIC(LAYOUT_META_B_OFFSET + LAYOUT_META_SIZE <= LAYOUT_RESERVED_BYTES);

static enum bts_err meta_bad(struct bts_error *error, const char *where, const char *what)
{
	return error_set(error, BTS_CORRUPT, 0, "%s: %s", where, what);
}

static bool meta_all_zero(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* Every version keeps the number where it is, so that any library can say what it met. */
static enum bts_err meta_check_version(unsigned version, const char *where, struct bts_error *error)
{
	if (version > META_FORMAT)
		return error_set(error, BTS_VERSION, 0,
			"%s: format version %u is newer than %u, the newest known: a newer release reads it", where,
			version, META_FORMAT);
	if (version < META_FORMAT)
		return error_set(error, BTS_VERSION, 0,
			"%s: format version %u, this release reads %u: dump it with `bts` of the release that wrote it, "
			"then load the dump with this one",
			where, version, META_FORMAT);
	return BTS_OK;
}

void meta_put_tree(uint8_t at[META_TREE_SIZE], const struct tree *tree)
{
	layout_put_ptr(at, &tree->root);
	bytes_put_u32(at + 16, tree->id);
	bytes_put_u32(at + 20, tree->depth);
	bytes_put_u64(at + 24, tree->entries);
	bytes_put_u64(at + 32, tree->bytes);
	bytes_put_u64(at + 40, tree->pages);
}

void meta_get_tree(const uint8_t at[META_TREE_SIZE], struct tree *tree)
{
	tree->root = layout_get_ptr(at);
	tree->id = bytes_get_u32(at + 16);
	tree->depth = bytes_get_u32(at + 20);
	tree->entries = bytes_get_u64(at + 24);
	tree->bytes = bytes_get_u64(at + 32);
	tree->pages = bytes_get_u64(at + 40);
}

static uint8_t *meta_put_history(const struct commit_record *record, uint8_t *at)
{
	for (uint32_t i = 0; i < record->recent_count; i++) {
		bytes_put_u48(at, record->recent[i].txid);
		memcpy(at + 6, record->recent[i].chain, 16);
		at += META_POSITION_SIZE;
	}
	for (uint32_t i = 0; i < record->segment_count; i++) {
		const struct history_segment *segment = &record->segments[i];

		bytes_put_u32(at, segment->epoch);
		bytes_put_u64(at + 4, segment->epoch_random);
		bytes_put_u48(at + 12, segment->last);
		bytes_put_u48(at + 18, segment->first);
		memcpy(at + 24, segment->chain, 16);
		at += META_SEGMENT_SIZE;
	}
	return at;
}

static void meta_get_history(const uint8_t *at, struct commit_record *record)
{
	for (uint32_t i = 0; i < record->recent_count; i++) {
		record->recent[i].txid = bytes_get_u48(at);
		memcpy(record->recent[i].chain, at + 6, 16);
		at += META_POSITION_SIZE;
	}
	for (uint32_t i = 0; i < record->segment_count; i++) {
		struct history_segment *segment = &record->segments[i];

		segment->epoch = bytes_get_u32(at);
		segment->epoch_random = bytes_get_u64(at + 4);
		segment->last = bytes_get_u48(at + 12);
		segment->first = bytes_get_u48(at + 18);
		memcpy(segment->chain, at + 24, 16);
		at += META_SEGMENT_SIZE;
	}
}

size_t meta_record_encode(const struct commit_record *record, uint8_t bytes[BTS_RECORD_MAX])
{
	uint8_t *at = bytes + META_RECORD_FIXED;

	ENSURE(record->free.inline_count <= FREELOG_INLINE_MAX && record->recent_count <= META_RECENT_MAX &&
		record->segment_count <= META_SEGMENTS_INLINE);
	ENSURE(record->page_size && !(record->page_size & (record->page_size - 1)));
	memset(bytes, 0, META_RECORD_FIXED);
	bytes_put_u32(bytes, META_RECORD_MAGIC);
	bytes_put_u16(bytes + 4, META_FORMAT);
	bytes_put_u64(bytes + 8, record->features);
	memcpy(bytes + 16, record->database, 16);
	bytes_put_u32(bytes + 32, record->epoch);
	bytes_put_u32(bytes + 36, record->next_tree);
	bytes_put_u64(bytes + 40, record->epoch_random);
	bytes_put_u48(bytes + 48, record->txid);
	bytes[54] = (uint8_t)__builtin_ctz(record->page_size);
	memcpy(bytes + 56, record->chain, 16);
	bytes_put_u64(bytes + 72, record->time_ms);
	bytes_put_u48(bytes + 80, record->first);
	bytes_put_u48(bytes + 86, record->high_water);
	bytes_put_u64(bytes + 96, record->buckets);
	meta_put_tree(bytes + 104, &record->catalog);
	meta_put_tree(bytes + 152, &record->history);
	meta_put_tree(bytes + 200, &record->snapshots);
	layout_put_ptr(bytes + 248, &record->free.head);
	bytes_put_u32(bytes + 264, record->free.generation);
	bytes_put_u32(bytes + 268, record->free.pages);
	bytes_put_u64(bytes + 272, record->free.sequence);
	bytes_put_u16(bytes + 280, (uint16_t)record->free.inline_count);
	bytes_put_u16(bytes + 282, (uint16_t)record->recent_count);
	bytes_put_u16(bytes + 284, (uint16_t)record->segment_count);
	for (uint32_t i = 0; i < record->free.inline_count; i++, at += 8)
		bytes_put_u64(at, record->free.inline_entries[i]);
	at = meta_put_history(record, at);
	bytes_put_u16(bytes + 6, (uint16_t)(at - bytes));
	return (size_t)(at - bytes);
}

static bool meta_ptr_ok(const struct commit_record *record, const struct page_ptr *ptr)
{
	return ptr->pgno >= record->first && ptr->pgno < record->high_water && ptr->birth >= 1 &&
	       ptr->birth <= record->txid;
}

static const char *meta_check_tree(const struct commit_record *record, const struct tree *tree, uint32_t id)
{
	if (tree->id != id)
		return "a tree has another tree's id";
	if (!tree->depth) {
		if (tree->root.pgno || tree->root.birth || tree->root.crc || tree->entries || tree->bytes ||
			tree->pages)
			return "an empty tree has a root or contents";
		return NULL;
	}
	if (tree->depth > TREE_DEPTH_MAX)
		return "a tree is deeper than the limit";
	if (!meta_ptr_ok(record, &tree->root))
		return "the root of a tree is out of bounds";
	/* A leaf without entries is the root that the last deletion leaves. */
	if ((!tree->entries && tree->depth > 1) || tree->pages < tree->depth ||
		tree->pages > record->high_water - record->first)
		return "the counters of a tree are impossible";
	return NULL;
}

static const char *meta_check_free(const struct commit_record *record)
{
	const struct freelog *log = &record->free;
	uint64_t page_entries = (record->page_size - 80) / 8;

	if (!log->head.pgno) {
		if (log->head.birth || log->head.crc || log->pages || log->sequence)
			return "an empty free log has pages";
	} else if (!meta_ptr_ok(record, &log->head)) {
		return "the head of the free log is out of bounds";
	} else if (!log->pages || log->pages > record->high_water - record->first ||
		   log->sequence > log->pages * page_entries) {
		return "the counters of the free log are impossible";
	}
	for (uint32_t i = 0; i < log->inline_count; i++) {
		uint64_t pgno = log->inline_entries[i] >> 16, count = log->inline_entries[i] & 0x7fff;

		/* Behind the mark too: it was higher when the entry was made (freelog.h). */
		if (!count || pgno < record->first || pgno > LAYOUT_PGNO_LIMIT)
			return "a free entry is out of bounds";
	}
	return NULL;
}

static const char *meta_check_history(const struct commit_record *record)
{
	const struct history_entry *newest;
	bts_txid before = 0;

	for (uint32_t i = 0; i < record->recent_count; i++) {
		if (record->recent[i].txid <= before)
			return "positions do not ascend";
		before = record->recent[i].txid;
	}
	before = 0;
	for (uint32_t i = 0; i < record->segment_count; i++) {
		const struct history_segment *segment = &record->segments[i];

		if (segment->last < before || segment->first <= segment->last ||
			segment->first > record->txid || segment->epoch > record->epoch)
			return "segments are out of order";
		before = segment->first;
	}
	if (!record->txid)
		return record->recent_count || record->segment_count ? "an empty database has a history"
								     : NULL;
	if (!record->recent_count)
		return "the commit's own position is missing";
	newest = &record->recent[record->recent_count - 1];
	if (newest->txid != record->txid || memcmp(newest->chain, record->chain, 16))
		return "the newest position is not the commit's own";
	return NULL;
}

static const char *meta_check_record(const struct commit_record *record)
{
	const char *what;

	if (record->first != LAYOUT_RESERVED_BYTES / record->page_size)
		return "the first page is not the one after the header area";
	if (record->high_water < record->first || record->high_water > LAYOUT_PGNO_LIMIT / 2)
		return "the high-water mark is out of bounds";
	if (record->txid >= LAYOUT_TXID_LIMIT)
		return "the transaction number is out of bounds";
	if (record->txid && !record->epoch)
		return "a commit without an epoch";
	if (record->next_tree < LAYOUT_TREE_FIRST_BUCKET)
		return "the next tree id is a reserved one";
	what = meta_check_tree(record, &record->catalog, LAYOUT_TREE_CATALOG);
	if (!what)
		what = meta_check_tree(record, &record->history, LAYOUT_TREE_HISTORY);
	if (!what)
		what = meta_check_tree(record, &record->snapshots, LAYOUT_TREE_SNAPSHOTS);
	if (!what)
		what = meta_check_free(record);
	if (!what)
		what = meta_check_history(record);
	return what;
}

/* The envelope of the record: what must be right before any count in it is used. */
static enum bts_err meta_check_frame(const uint8_t *bytes, size_t size, struct bts_error *error)
{
	static const char where[] = "commit record";
	size_t inlined, recent, segments, options;
	enum bts_err err;

	if (size < META_RECORD_FIXED || size > BTS_RECORD_MAX)
		return meta_bad(error, where, "impossible size");
	if (bytes_get_u32(bytes) != META_RECORD_MAGIC)
		return meta_bad(error, where, "no magic");
	err = meta_check_version(bytes_get_u16(bytes + 4), where, error);
	if (err)
		return err;
	if (bytes_get_u64(bytes + 8))
		return error_set(error, BTS_VERSION, 0, "%s: needs features 0x%llx, which this library lacks",
			where, (unsigned long long)bytes_get_u64(bytes + 8));
	inlined = bytes_get_u16(bytes + 280);
	recent = bytes_get_u16(bytes + 282);
	segments = bytes_get_u16(bytes + 284);
	options = bytes_get_u16(bytes + 286);
	if (inlined > FREELOG_INLINE_MAX || recent > META_RECENT_MAX || segments > META_SEGMENTS_INLINE)
		return meta_bad(error, where, "a table is longer than its limit");
	if (bytes_get_u16(bytes + 6) != size || META_RECORD_FIXED + 8 * inlined +
								META_POSITION_SIZE * recent +
								META_SEGMENT_SIZE * segments + options !=
							size)
		return meta_bad(error, where, "its tables do not add up to its size");
	if (bytes[54] < 12 || bytes[54] > 16)
		return meta_bad(error, where, "impossible page size");
	if (bytes[55] || !meta_all_zero(bytes + 92, 4))
		return meta_bad(error, where, "reserved bytes are not zero");
	return meta_options_check(bytes + size - options, options, where, error);
}

enum bts_err meta_record_decode(
	const void *data, size_t size, struct commit_record *out, struct bts_error *error)
{
	const uint8_t *bytes = data, *at = bytes + META_RECORD_FIXED;
	struct commit_record record;
	enum bts_err err;
	const char *what;

	err = meta_check_frame(bytes, size, error);
	if (err)
		return err;
	memset(&record, 0, sizeof(record));
	record.features = bytes_get_u64(bytes + 8);
	memcpy(record.database, bytes + 16, 16);
	record.epoch = bytes_get_u32(bytes + 32);
	record.next_tree = bytes_get_u32(bytes + 36);
	record.epoch_random = bytes_get_u64(bytes + 40);
	record.txid = bytes_get_u48(bytes + 48);
	record.page_size = 1u << bytes[54];
	memcpy(record.chain, bytes + 56, 16);
	record.time_ms = bytes_get_u64(bytes + 72);
	record.first = bytes_get_u48(bytes + 80);
	record.high_water = bytes_get_u48(bytes + 86);
	record.buckets = bytes_get_u64(bytes + 96);
	meta_get_tree(bytes + 104, &record.catalog);
	meta_get_tree(bytes + 152, &record.history);
	meta_get_tree(bytes + 200, &record.snapshots);
	record.free.head = layout_get_ptr(bytes + 248);
	record.free.generation = bytes_get_u32(bytes + 264);
	record.free.pages = bytes_get_u32(bytes + 268);
	record.free.sequence = bytes_get_u64(bytes + 272);
	record.free.inline_count = bytes_get_u16(bytes + 280);
	record.recent_count = bytes_get_u16(bytes + 282);
	record.segment_count = bytes_get_u16(bytes + 284);
	for (uint32_t i = 0; i < record.free.inline_count; i++, at += 8)
		record.free.inline_entries[i] = bytes_get_u64(at);
	meta_get_history(at, &record);
	what = meta_check_record(&record);
	if (what)
		return meta_bad(error, "commit record", what);
	*out = record;
	return BTS_OK;
}

static uint32_t meta_slot_crc(const uint8_t *bytes)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, bytes, META_SLOT_CRC_AT);

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, bytes + META_SLOT_CRC_AT + 4, LAYOUT_META_SIZE - META_SLOT_CRC_AT - 4);
}

void meta_slot_encode(const struct meta_slot *slot, uint8_t bytes[LAYOUT_META_SIZE])
{
	uint8_t record[BTS_RECORD_MAX];
	size_t size = meta_record_encode(&slot->record, record);
	uint8_t *at = bytes + META_SLOT_FIXED;
	size_t options;

	ENSURE(slot->manifest_count <= META_MANIFEST_MAX);
	ENSURE(slot->mode == META_ONE_FLUSH || !slot->manifest_count);
	memset(bytes, 0, LAYOUT_META_SIZE);
	memcpy(bytes, META_MAGIC, 8);
	bytes_put_u32(bytes + 8, META_BYTE_ORDER);
	bytes_put_u16(bytes + 12, META_FORMAT);
	bytes_put_u64(bytes + 24, meta_slot_bits(slot));
	bytes_put_u64(bytes + 32, slot->sequence);
	bytes[40] = (uint8_t)slot->mode;
	bytes[41] = (uint8_t)slot->role;
	bytes_put_u16(bytes + 42, (uint16_t)slot->manifest_count);
	bytes_put_u32(bytes + 44, slot->pending_count);
	bytes_put_u48(bytes + 48, slot->durable);
	bytes_put_u64(bytes + 56, slot->durable_sequence);
	memcpy(bytes + 64, slot->node, 16);
	bytes_put_u64(bytes + 80, slot->inode);
	bytes_put_u64(bytes + 88, slot->birth_ns);
	bytes_put_u64(bytes + 96, slot->pending_salt);
	bytes_put_u32(bytes + 104, (uint32_t)size);
	for (uint32_t i = 0; i < slot->manifest_count; i++, at += META_RUN_SIZE) {
		const struct meta_run *run = &slot->manifest[i];

		ENSURE(run->count >= 1 && run->count <= UINT16_MAX);
		bytes_put_u48(at, run->pgno);
		bytes_put_u16(at + 6, (uint16_t)run->count);
		bytes_put_u32(at + 8, run->crc);
	}
	options = meta_options_put(slot, at);
	bytes_put_u16(bytes + 54, (uint16_t)options);
	at += options;
	ENSURE(size <= (size_t)(bytes + LAYOUT_META_SIZE - at));
	memcpy(at, record, size);
	bytes_put_u32(bytes + META_SLOT_CRC_AT, meta_slot_crc(bytes));
}

bool meta_slot_intact(const uint8_t bytes[LAYOUT_META_SIZE])
{
	return !memcmp(bytes, META_MAGIC, 8) &&
	       bytes_get_u32(bytes + META_SLOT_CRC_AT) == meta_slot_crc(bytes);
}

static enum bts_err meta_check_slot_head(const uint8_t *bytes, struct bts_error *error)
{
	static const char where[] = "meta slot";
	uint32_t stored = bytes_get_u32(bytes + META_SLOT_CRC_AT), crc = meta_slot_crc(bytes);
	uint32_t mark = bytes_get_u32(bytes + 8);
	enum bts_err err;

	if (memcmp(bytes, META_MAGIC, 8))
		return error_set(error, BTS_INVALID, 0, "%s: no magic, this is not a database", where);
	/* A writer of the other byte order stores the sum swapped, like everything else. */
	if (mark != META_BYTE_ORDER && (stored == crc || __builtin_bswap32(stored) == crc))
		return error_set(error, BTS_VERSION, 0, "%s: written in a foreign byte order (mark 0x%08x)",
			where, mark);
	if (stored != crc)
		return error_set(error, BTS_CORRUPT, 0, "%s: checksum 0x%08x, its bytes give 0x%08x", where,
			stored, crc);
	err = meta_check_version(bytes_get_u16(bytes + 12), where, error);
	if (err)
		return err;
	if (bytes_get_u64(bytes + 24) & ~META_BITS_KNOWN)
		return error_set(error, BTS_VERSION, 0,
			"%s: must-understand bits 0x%llx, which this library lacks", where,
			(unsigned long long)(bytes_get_u64(bytes + 24) & ~META_BITS_KNOWN));
	if (!meta_all_zero(bytes + 14, 2) || !meta_all_zero(bytes + 20, 4) || !meta_all_zero(bytes + 108, 4))
		return meta_bad(error, where, "reserved bytes are not zero");
	return BTS_OK;
}

static const char *meta_check_slot(const struct meta_slot *slot)
{
	const struct commit_record *record = &slot->record;
	uint64_t pages = 0;

	if (slot->mode < META_ONE_FLUSH || slot->mode > META_SEAL)
		return "unknown mode";
	if (slot->role < META_PRIMARY || slot->role > META_FENCED)
		return "unknown role";
	if (slot->mode != META_ONE_FLUSH && slot->manifest_count)
		return "a manifest in a slot that needs none";
	if (!slot->sequence || slot->durable_sequence >= slot->sequence || slot->durable > record->txid)
		return "it names a newer slot as the one before";
	if (slot->role != META_FOLLOWER && (!record->txid || slot->pending_count))
		return "a primary without a commit or with pending pages";
	if (slot->pending_log && !slot->pending_count)
		return "a log of pending pages that holds none";
	for (uint32_t i = 0; i < slot->manifest_count; i++) {
		const struct meta_run *run = &slot->manifest[i];

		if (!run->count || run->pgno < record->first || run->pgno >= record->high_water ||
			run->count > record->high_water - run->pgno)
			return "a manifest run is out of bounds";
		pages += run->count;
	}
	if (pages * record->page_size > META_MANIFEST_BYTES)
		return "the manifest covers more than its limit";
	return NULL;
}

enum bts_err meta_slot_decode(
	const uint8_t bytes[LAYOUT_META_SIZE], struct meta_slot *out, struct bts_error *error)
{
	static const char where[] = "meta slot";
	const uint8_t *at = bytes + META_SLOT_FIXED;
	struct meta_slot slot;
	size_t runs, options, size;
	enum bts_err err;
	const char *what;

	err = meta_check_slot_head(bytes, error);
	if (err)
		return err;
	memset(&slot, 0, sizeof(slot));
	slot.sequence = bytes_get_u64(bytes + 32);
	slot.mode = (enum meta_mode)bytes[40];
	slot.role = (enum meta_role)bytes[41];
	runs = bytes_get_u16(bytes + 42);
	slot.pending_count = bytes_get_u32(bytes + 44);
	slot.pending_log = (bytes_get_u64(bytes + 24) & META_BIT_LOG) != 0;
	slot.durable = bytes_get_u48(bytes + 48);
	options = bytes_get_u16(bytes + 54);
	slot.durable_sequence = bytes_get_u64(bytes + 56);
	memcpy(slot.node, bytes + 64, 16);
	slot.inode = bytes_get_u64(bytes + 80);
	slot.birth_ns = bytes_get_u64(bytes + 88);
	slot.pending_salt = bytes_get_u64(bytes + 96);
	size = bytes_get_u32(bytes + 104);
	if (runs > META_MANIFEST_MAX ||
		META_RUN_SIZE * runs + options + size > LAYOUT_META_SIZE - META_SLOT_FIXED)
		return meta_bad(error, where, "its parts do not fit");
	slot.manifest_count = (uint32_t)runs;
	for (size_t i = 0; i < runs; i++, at += META_RUN_SIZE) {
		slot.manifest[i].pgno = bytes_get_u48(at);
		slot.manifest[i].count = bytes_get_u16(at + 6);
		slot.manifest[i].crc = bytes_get_u32(at + 8);
	}
	err = meta_options_get(at, options, &slot, where, error);
	if (err)
		return err;
	at += options;
	err = meta_record_decode(at, size, &slot.record, error);
	if (err)
		return err;
	at += size;
	what = meta_check_slot(&slot);
	if (!what && bytes_get_u64(bytes + 24) != meta_slot_bits(&slot))
		what = "its bits are not those of its contents";
	if (!what && !meta_all_zero(at, (size_t)(bytes + LAYOUT_META_SIZE - at)))
		what = "unused bytes are not zero";
	if (what)
		return meta_bad(error, where, what);
	*out = slot;
	return BTS_OK;
}

void meta_record_copy_reader(struct commit_record *to, const struct commit_record *from)
{
	memcpy(to, from, META_READER_BYTES(from));
	to->recent_count = 0;
	to->segment_count = 0;
}

void meta_root_digest(const struct commit_record *record, uint8_t digest[16])
{
	uint8_t roots[4 * LAYOUT_POINTER_SIZE];

	layout_put_ptr(roots, &record->catalog.root);
	layout_put_ptr(roots + LAYOUT_POINTER_SIZE, &record->history.root);
	layout_put_ptr(roots + 2 * LAYOUT_POINTER_SIZE, &record->snapshots.root);
	layout_put_ptr(roots + 3 * LAYOUT_POINTER_SIZE, &record->free.head);
	siphash128(record->database, roots, sizeof(roots), digest);
}

void meta_position(const struct commit_record *record, struct bts_position *position)
{
	memset(position, 0, sizeof(*position));
	memcpy(position->database, record->database, 16);
	position->epoch = record->epoch;
	position->epoch_random = record->epoch_random;
	position->txid = record->txid;
	memcpy(position->chain, record->chain, 16);
}
