/*
 * Chain, positions and segments of a database's history (R3).
 *
 * An opening commit (I4) is made before a tree can be changed, so it must find room inline however often
 * opening is interrupted.  Commits therefore spill while some room is left; should even that be used up by
 * openings alone, the newest opening takes the place of the one before, whose state it is.
 */
#include "history.h"

#include "base/ensure.h"
#include "base/fault.h"
#include "base/siphash.h"
#include "error.h"

#define HISTORY_RECENT_SPARE 8u /* opening commits in a row that keep their positions */
#define HISTORY_SEGMENT_SPARE 4u
#define HISTORY_KEY_SIZE 9u
#define HISTORY_THIN_STEP (2 * META_RECENT_MAX) /* positions looked at a spill: more than a spill adds */
#define HISTORY_KEEP 1024u /* one position in so many numbers is kept behind the dense part */
#define HISTORY_SEGMENT_SIZE 40u
#define HISTORY_CHAIN_PIECE 32u /* pointers hashed in one call */

ENSURE_STATIC(HISTORY_RECENT_SPARE < META_RECENT_MAX && HISTORY_SEGMENT_SPARE < META_SEGMENTS_INLINE);

void history_chain(struct commit_record *record, const struct history_page *pages, size_t count)
{
	uint8_t head[16 + 4 + 8 + 8 + 4 * LAYOUT_POINTER_SIZE], bytes[HISTORY_CHAIN_PIECE * LAYOUT_POINTER_SIZE];
	size_t held = 0;
	struct siphash hash;

	memcpy(head, record->chain, 16);
	bytes_put_u32(head + 16, record->epoch);
	bytes_put_u64(head + 20, record->epoch_random);
	bytes_put_u64(head + 28, record->txid);
	layout_put_ptr(head + 36, &record->catalog.root);
	layout_put_ptr(head + 52, &record->history.root);
	layout_put_ptr(head + 68, &record->snapshots.root);
	layout_put_ptr(head + 84, &record->free.head);
	siphash_init(&hash, record->database);
	siphash_update(&hash, head, sizeof(head));
	for (size_t i = 0; i < count; i++) {
		struct page_ptr ptr = {pages[i].pgno, record->txid, pages[i].crc};

		layout_put_ptr(bytes + LAYOUT_POINTER_SIZE * held++, &ptr);
		if (held == HISTORY_CHAIN_PIECE || i + 1 == count) {
			siphash_update(&hash, bytes, LAYOUT_POINTER_SIZE * held);
			held = 0;
		}
	}
	siphash_final(&hash, record->chain);
}

static struct bts_slice history_key(uint8_t bytes[HISTORY_KEY_SIZE], char kind, bts_txid txid)
{
	bytes[0] = (uint8_t)kind;
	bytes_put_be64(bytes + 1, txid);
	return (struct bts_slice){bytes, HISTORY_KEY_SIZE};
}

static void history_segment_bytes(const struct history_segment *segment, uint8_t bytes[HISTORY_SEGMENT_SIZE])
{
	bytes_put_u32(bytes, segment->epoch);
	bytes_put_u64(bytes + 4, segment->epoch_random);
	bytes_put_u48(bytes + 12, segment->last);
	bytes_put_u48(bytes + 18, segment->first);
	memcpy(bytes + 24, segment->chain, 16);
}

static bool history_is_position(struct bts_slice key)
{
	return key.size == HISTORY_KEY_SIZE && *(const uint8_t *)key.data == 'h';
}

/* How far thinning has come: the key 't' holds the last position looked at. */
static enum bts_err history_thinned(struct tree_ctx *ctx, struct commit_record *record, bts_txid *at)
{
	struct tree_hit hit;
	enum bts_err err = tree_get(ctx, &record->history, (struct bts_slice){"t", 1}, &hit);

	*at = 0;
	if (err == BTS_OK && !hit.cell.extent && hit.cell.value.size == 8)
		*at = bytes_get_be64(hit.cell.value.data);
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

enum bts_err history_thin(struct tree_ctx *ctx, struct commit_record *record, uint64_t dense)
{
	uint8_t key[HISTORY_KEY_SIZE], mark[8];
	struct tree_cursor cursor;
	struct node_cell cell;
	bts_txid at, before;
	enum bts_err err;

	/* What was kept before `at` is one in HISTORY_KEEP numbers at most; the rest is dense. */
	if (record->history.entries <= dense)
		return BTS_OK;
	err = history_thinned(ctx, record, &before);
	if (err)
		return err;
	tree_cursor_init(&cursor, ctx, &record->history);
	for (unsigned i = 0; i < HISTORY_THIN_STEP && !err; i++) {
		err = tree_cursor_seek(&cursor, history_key(key, 'h', before + 1), &cell);
		if (err || !history_is_position(cell.key))
			break;
		at = bytes_get_be64((const uint8_t *)cell.key.data + 1);
		if (at + dense > record->txid) /* never the newest, however many segments there are */
			break;
		if (before != 0 && at / HISTORY_KEEP == before / HISTORY_KEEP)
			err = tree_del(ctx, &record->history, history_key(key, 'h', at));
		before = at;
	}
	if (err && err != BTS_NOT_FOUND)
		return err;
	bytes_put_be64(mark, before);
	return tree_put(ctx, &record->history, (struct bts_slice){"t", 1}, (struct bts_slice){mark, 8}, ctx->stamp);
}

enum bts_err history_make_room(struct tree_ctx *ctx, struct commit_record *record)
{
	uint8_t key[HISTORY_KEY_SIZE], bytes[HISTORY_SEGMENT_SIZE];
	enum bts_err err;

	if (record->recent_count < META_RECENT_MAX - HISTORY_RECENT_SPARE &&
		record->segment_count <= META_SEGMENTS_INLINE - HISTORY_SEGMENT_SPARE)
		return BTS_OK;
	for (uint32_t i = 0; i < record->recent_count; i++) {
		const struct history_entry *entry = &record->recent[i];

		err = tree_put(ctx, &record->history, history_key(key, 'h', entry->txid),
			(struct bts_slice){entry->chain, sizeof(entry->chain)}, ctx->stamp);
		if (err)
			return err;
	}
	for (uint32_t i = 0; i < record->segment_count; i++) {
		history_segment_bytes(&record->segments[i], bytes);
		err = tree_put(ctx, &record->history, history_key(key, 's', record->segments[i].first),
			(struct bts_slice){bytes, sizeof(bytes)}, ctx->stamp);
		if (err)
			return err;
	}
	record->recent_count = 0;
	record->segment_count = 0;
	return history_thin(ctx, record, HISTORY_DENSE);
}

void history_append(struct commit_record *record)
{
	struct history_entry *entry;

	if (record->recent_count == META_RECENT_MAX)
		record->recent_count--;
	entry = &record->recent[record->recent_count++];
	entry->txid = record->txid;
	memcpy(entry->chain, record->chain, sizeof(entry->chain));
}

void history_segment_add(struct commit_record *record, bts_txid last, const uint8_t chain[16], bts_txid first)
{
	struct history_segment *segment;

	ENSURE(last < first);
	/* Full: openings only, so that this gap follows the last one at once (a hostile record may say
	 * otherwise). */
	if (record->segment_count == META_SEGMENTS_INLINE) {
		record->segments[META_SEGMENTS_INLINE - 1].first = first;
		return;
	}
	segment = &record->segments[record->segment_count++];
	segment->epoch = record->epoch;
	segment->epoch_random = record->epoch_random;
	segment->last = last;
	segment->first = first;
	memcpy(segment->chain, chain, sizeof(segment->chain));
}

/* The chain at txid: BTS_NOT_FOUND when this history has no commit of that number. */
static enum bts_err history_find(
	struct tree_ctx *ctx, const struct commit_record *record, bts_txid txid, uint8_t chain[16])
{
	uint8_t key[HISTORY_KEY_SIZE];
	struct tree_hit hit;
	enum bts_err err;

	for (uint32_t i = record->recent_count; i-- > 0;) {
		if (record->recent[i].txid == txid) {
			memcpy(chain, record->recent[i].chain, 16);
			return BTS_OK;
		}
	}
	err = tree_get(ctx, &record->history, history_key(key, 'h', txid), &hit);
	if (err)
		return err;
	if (hit.cell.extent || hit.cell.value.size != 16)
		return error_set(ctx->error, BTS_CORRUPT, 0, "history of transaction %llu: not a chain",
			(unsigned long long)txid);
	memcpy(chain, hit.cell.value.data, 16);
	return BTS_OK;
}

/* What the segments say about a transaction of an epoch. */
struct history_verdict {
	uint32_t epoch;
	uint64_t epoch_random;
	bts_txid txid;
	bool seen;  /* a segment of this epoch */
	bool gap;   /* txid lies in one of its gaps */
	bts_txid last; /* the last transaction before its newest gap: its end when a later epoch followed */
};

static void history_judge(void *arg, const struct history_segment *segment)
{
	struct history_verdict *verdict = arg;

	if (segment->epoch != verdict->epoch || segment->epoch_random != verdict->epoch_random)
		return;
	verdict->seen = true;
	verdict->gap = verdict->gap || (verdict->txid > segment->last && verdict->txid < segment->first);
	if (segment->last > verdict->last)
		verdict->last = segment->last;
}

enum bts_err history_each_segment(struct tree_ctx *ctx, struct commit_record *record, history_segment_fn *fn, void *arg)
{
	uint8_t key[HISTORY_KEY_SIZE];
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;

	tree_cursor_init(&cursor, ctx, &record->history);
	err = tree_cursor_seek(&cursor, history_key(key, 's', 0), &cell);
	while (!err && cell.key.size == HISTORY_KEY_SIZE && *(const uint8_t *)cell.key.data == 's') {
		struct history_segment segment = {0};

		if (cell.extent || cell.value.size != HISTORY_SEGMENT_SIZE)
			return error_set(ctx->error, BTS_CORRUPT, 0, "history: not a segment");
		segment.epoch = bytes_get_u32(cell.value.data);
		segment.epoch_random = bytes_get_u64((const uint8_t *)cell.value.data + 4);
		segment.last = bytes_get_u48((const uint8_t *)cell.value.data + 12);
		segment.first = bytes_get_u48((const uint8_t *)cell.value.data + 18);
		memcpy(segment.chain, (const uint8_t *)cell.value.data + 24, 16);
		fn(arg, &segment);
		err = tree_cursor_next(&cursor, &cell);
	}
	if (err && err != BTS_NOT_FOUND)
		return err;
	for (uint32_t i = 0; i < record->segment_count; i++)
		fn(arg, &record->segments[i]);
	return BTS_OK;
}

enum bts_err history_at_or_above(struct tree_ctx *ctx, struct commit_record *record, bts_txid *txid, uint8_t chain[16])
{
	uint8_t key[HISTORY_KEY_SIZE];
	struct tree_cursor cursor;
	struct node_cell cell;
	enum bts_err err;

	tree_cursor_init(&cursor, ctx, &record->history);
	err = tree_cursor_seek(&cursor, history_key(key, 'h', *txid), &cell);
	if (err)
		return err;
	if (!history_is_position(cell.key) || cell.extent || cell.value.size != 16)
		return BTS_NOT_FOUND;
	*txid = bytes_get_be64((const uint8_t *)cell.key.data + 1);
	memcpy(chain, cell.value.data, 16);
	return BTS_OK;
}

enum bts_err history_reached(struct tree_ctx *ctx, struct commit_record *record, uint32_t epoch, uint64_t epoch_random,
	bts_txid txid, enum bts_standing *standing)
{
	struct history_verdict verdict = {.epoch = epoch, .epoch_random = epoch_random, .txid = txid};
	bool ours = epoch == record->epoch && epoch_random == record->epoch_random;
	enum bts_err err;

	if (epoch > record->epoch) {
		*standing = BTS_STANDING_AHEAD;
		return BTS_OK;
	}
	err = history_each_segment(ctx, record, history_judge, &verdict);
	if (err)
		return err;
	if (verdict.gap || (!ours && (!verdict.seen || txid > verdict.last)))
		*standing = BTS_STANDING_DIVERGED;
	else
		*standing = txid > record->txid ? BTS_STANDING_AHEAD : BTS_STANDING_KNOWN;
	return BTS_OK;
}

/* Not in the map of positions: of an earlier epoch, a number that its segments rule out is of another history. */
static enum bts_err history_unknown(
	struct tree_ctx *ctx, struct commit_record *record, const struct bts_position *claimed, enum bts_standing *standing)
{
	enum bts_err err =
		history_reached(ctx, record, claimed->epoch, claimed->epoch_random, claimed->txid, standing);

	if (!err && (*standing != BTS_STANDING_DIVERGED || claimed->epoch == record->epoch))
		*standing = BTS_STANDING_BASE_UNKNOWN;
	return err;
}

enum bts_err history_standing(struct tree_ctx *ctx, struct commit_record *record,
	const struct bts_position *claimed, enum bts_standing *standing)
{
	static const uint8_t none[16];
	bool same_database = !memcmp(claimed->database, record->database, 16);
	bool nameless = !claimed->txid && !memcmp(claimed->database, none, 16);
	uint8_t chain[16];
	enum bts_err err;

	if (!same_database && !nameless)
		*standing = BTS_STANDING_WRONG_DATABASE;
	else if (!claimed->txid)
		*standing = BTS_STANDING_EMPTY;
	else if (claimed->epoch > record->epoch)
		*standing = BTS_STANDING_AHEAD;
	else if (claimed->epoch == record->epoch && claimed->epoch_random != record->epoch_random)
		*standing = BTS_STANDING_DIVERGED;
	else if (claimed->txid > record->txid)
		*standing = claimed->epoch == record->epoch ? BTS_STANDING_AHEAD : BTS_STANDING_DIVERGED;
	else {
		err = history_find(ctx, record, claimed->txid, chain);
		if (err == BTS_NOT_FOUND)
			return history_unknown(ctx, record, claimed, standing);
		else if (err)
			return err;
		else
			*standing = memcmp(chain, claimed->chain, 16) && !SABOTAGE(FAULT_R3_NO_CHAIN) &&
						    !SABOTAGE(FAULT_R4_NO_GRAFT)
					    ? BTS_STANDING_DIVERGED
					    : BTS_STANDING_KNOWN;
	}
	return BTS_OK;
}
