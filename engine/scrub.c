/*
 * Reading every live page against its pointer, and putting right what is damaged: bts_scrub_* (ship.h).
 *
 * One pinned commit, each page once: what only the head holds, then named snapshots oldest first, then the head's catalog, each turning
 * back at what came with the one before (snapshot.h).  A pager of its own, in which nothing passes for verified.  What is damaged is told, and passed over with all
 * below it, unless it is repaired at once: then the walk goes on in what was repaired.
 *
 * A repair writes a live page.  That is allowed for one reason: the bytes are those that the pointer in the tree names, by
 * page number, birth and checksum, and the pin keeps the page from being another one meanwhile.  Whatever part of them
 * arrives, and wherever the power fails, no byte differs from what it should be that did not before.
 */
#include "db.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "live.h"
#include "redirect.h"
#include "snapshot.h"
#include "traverse.h"

struct bts_scrub {
	struct bts *db;
	struct shared_reader reader;
	struct redirect_afresh redirect; /* pages that are not home */
	struct commit_record record;
	struct pager pager;
	bool pager_there;
	struct tree_ctx ctx;
	struct bts_error why; /* ctx's */
	struct traverse traverse;
	struct snapshot_list snapshots;
	bool listed;	/* snapshots are known: what only the head holds was walked, and repaired */
	size_t next;	/* of them; count: the head is under way */
	bts_txid floor; /* births up to this one came with an older state */
	struct traverse_edge damaged;
	bool is_damaged; /* the last unit, and not repaired */
	struct bts_scrub_stat stat;
};

static void scrub_begin_state(struct bts_scrub *scrub)
{
	const struct snapshot *snapshot;

	if (scrub->next == scrub->snapshots.count) {
		traverse_init(&scrub->traverse, &scrub->record, TRAVERSE_CATALOG, &scrub->why);
		return;
	}
	snapshot = &scrub->snapshots.items[scrub->next];
	traverse_init_catalog(&scrub->traverse, &scrub->record, &snapshot->catalog, snapshot->txid, &scrub->why);
}

/* A list that is damaged for good hides what only those snapshots hold. */
static enum bts_err scrub_list(struct bts_scrub *scrub)
{
	enum bts_err err;

	err = snapshot_list_load(&scrub->ctx, &scrub->record, &scrub->record.snapshots, &scrub->snapshots);
	if (err == BTS_CORRUPT) {
		snapshot_list_fini(&scrub->snapshots);
		scrub->stat.hidden = true;
		err = BTS_OK;
	}
	scrub->listed = true;
	scrub_begin_state(scrub);
	return err;
}

static enum bts_err scrub_start(struct bts_scrub *scrub)
{
	struct commit_record *record = &scrub->record;
	enum bts_err err;

	err = pager_init(&scrub->pager, scrub->db->env, scrub->db->file, record->page_size,
		(record->high_water + 1) * record->page_size, &scrub->why);
	if (err)
		return err;
	scrub->pager_there = true;
	scrub->ctx = (struct tree_ctx){
		.pager = &scrub->pager, .limit = record->high_water, .newest = record->txid, .error = &scrub->why};
	redirect_use_afresh(&scrub->ctx, &scrub->redirect);
	scrub->stat.total = record->high_water - record->first;
	traverse_init(&scrub->traverse, record, TRAVERSE_ASIDE, &scrub->why);
	return BTS_OK;
}

enum bts_err bts_scrub_open(struct bts *db, struct bts_scrub **out, struct bts_error *error)
{
	struct bts_scrub *scrub = db->env->ops->memory(db->env, NULL, sizeof(*scrub));
	enum bts_err err;

	if (!scrub)
		return error_set(error, BTS_MEMORY, 0, "no memory to scrub");
	memset(scrub, 0, sizeof(*scrub));
	scrub->db = db;
	err = redirect_enter(db, REDIRECT_DURABLE, &scrub->reader, &scrub->record, &scrub->redirect.table, error);
	if (err) {
		db->env->ops->memory(db->env, scrub, 0);
		return err;
	}
	err = scrub_start(scrub);
	if (err) {
		error_set(error, err, scrub->why.os, "%s", scrub->why.text);
		bts_scrub_close(scrub);
		return err;
	}
	*out = scrub;
	return BTS_OK;
}

void bts_scrub_close(struct bts_scrub *scrub)
{
	struct bts *db;

	if (!scrub)
		return;
	db = scrub->db;
	snapshot_list_fini(&scrub->snapshots);
	if (scrub->pager_there)
		pager_fini(&scrub->pager);
	redirect_drop(db, scrub->redirect.table);
	shared_reader_leave(db->shared, &scrub->reader);
	db->env->ops->memory(db->env, scrub, 0);
}

void bts_scrub_stat(const struct bts_scrub *scrub, struct bts_scrub_stat *stat)
{
	*stat = scrub->stat;
}

static enum bts_err scrub_next_edge(struct bts_scrub *scrub, const struct traverse_edge **edge)
{
	enum bts_err err = traverse_next(&scrub->traverse, edge);

	if (err == BTS_NOT_FOUND && !scrub->listed) {
		err = scrub_list(scrub);
		if (!err)
			err = traverse_next(&scrub->traverse, edge);
	}
	while (err == BTS_NOT_FOUND && scrub->next < scrub->snapshots.count) {
		scrub->floor = scrub->snapshots.items[scrub->next++].txid;
		scrub_begin_state(scrub);
		err = traverse_next(&scrub->traverse, edge);
	}
	return err;
}

static struct bts_page_id scrub_id(const struct traverse_edge *edge)
{
	return (struct bts_page_id){
		edge->ptr.pgno, edge->ptr.birth, edge->ptr.crc, (uint32_t)edge->pages, (uint32_t)edge->kind};
}

/* The unit that an edge leads to, every byte of it; *image: to go below. */
static enum bts_err scrub_verify(struct bts_scrub *scrub, const struct traverse_edge *edge, const uint8_t **image)
{
	struct bts_page_id id = scrub_id(edge);
	const char *wrong = NULL;
	struct bts_slice value;
	enum bts_err err;

	switch (edge->kind) {
	case BTS_KIND_NODE:
		return pager_node(&scrub->ctx, &edge->ptr, edge->tree, edge->level, image);
	case BTS_KIND_FREE_LOG:
		return pager_free_log(&scrub->ctx, &edge->ptr, image);
	case BTS_KIND_EXTENT:
		break;
	}
	err = pager_extent(&scrub->ctx, &edge->ptr, edge->size, &value);
	if (err)
		return err;
	*image = pager_image(&scrub->ctx, &edge->ptr, edge->pages);
	if (*image)
		wrong = live_check(*image, &id, scrub->record.page_size, scrub->record.high_water);
	return wrong ? error_set(&scrub->why, BTS_CORRUPT, 0, "page %" PRIu64 ": %s", edge->ptr.pgno, wrong) : BTS_OK;
}

/* Verify, and go below. */
static enum bts_err scrub_unit(struct bts_scrub *scrub, const struct traverse_edge *edge)
{
	const uint8_t *image = NULL;
	enum bts_err err = scrub_verify(scrub, edge, &image);

	return err || edge->kind == BTS_KIND_EXTENT ? err : traverse_descend(&scrub->traverse, image);
}

enum bts_err bts_scrub_next(struct bts_scrub *scrub, struct bts_scrub_unit *unit, struct bts_error *error)
{
	const struct traverse_edge *edge;
	enum bts_err err;

	scrub->is_damaged = false;
	/* A frame waits for the homes that this snapshot keeps (homes_press). */
	if (scrub->db->follower && shared_reader_expired(&scrub->reader))
		return error_set(error, BTS_EXPIRED, 0, "the scrub of transaction %" PRIu64 " was told to end: frames wait for its snapshot",
			scrub->record.txid);
	do {
		err = scrub_next_edge(scrub, &edge);
		if (err == BTS_NOT_FOUND)
			return error_set(error, err, 0, "no further page");
	} while (!err && edge->ptr.birth <= scrub->floor);
	if (err)
		return error_set(error, err, scrub->why.os, "%s", scrub->why.text);
	scrub->damaged = *edge;
	*unit = (struct bts_scrub_unit){.id = scrub_id(edge)};
	scrub->stat.done += edge->pages;
	err = scrub_unit(scrub, &scrub->damaged);
	/* A page that cannot be read is one that can be written. */
	if (err != BTS_CORRUPT && err != BTS_IO)
		return err ? error_set(error, err, scrub->why.os, "%s", scrub->why.text) : BTS_OK;
	scrub->is_damaged = unit->damaged = true;
	pager_forget(&scrub->db->pager, unit->id.pgno);
	redirect_suspect(scrub->redirect.table, &scrub->damaged.ptr);
	scrub->stat.damaged++;
	error_set(&unit->what, err, scrub->why.os, "%s", scrub->why.text);
	return BTS_OK;
}

static enum bts_err scrub_write(struct bts_scrub *scrub, struct bts_slice bytes, struct bts_error *error)
{
	struct bts *db = scrub->db;
	struct iovec iov = {(void *)(uintptr_t)bytes.data, bytes.size};
	enum bts_err err = redirect_repair(db, scrub->redirect.table, &scrub->damaged.ptr, bytes, error);
	int os;

	if (err != BTS_NOT_FOUND) /* it is not home */
		return err;
	os = db->env->ops->file_pwritev(db->file, &iov, 1, scrub->damaged.ptr.pgno * scrub->record.page_size);

	if (os)
		return error_os(error, os, "page %" PRIu64 " cannot be written", scrub->damaged.ptr.pgno);
	os = db->env->ops->file_sync(db->file);
	/* It may have dropped what others wrote (I7). */
	return os ? db_poison(db, error, os, "flushing a repaired page") : BTS_OK;
}

enum bts_err bts_scrub_repair(struct bts_scrub *scrub, struct bts_slice bytes, struct bts_error *error)
{
	struct bts_page_id id = scrub_id(&scrub->damaged);
	uint32_t page_size = scrub->record.page_size;
	const uint8_t *image = bytes.data;
	const char *wrong = NULL;
	enum bts_err err;

	if (!scrub->is_damaged)
		return error_set(error, BTS_INVALID, 0, "nothing is known to be damaged");
	err = db_may_write(scrub->db, error);
	if (err)
		return err;
	if (bytes.size != (uint64_t)id.count * page_size)
		wrong = "of another size";
	else
		wrong = live_check(image, &id, page_size, scrub->record.high_water);
	if (!wrong && id.kind == BTS_KIND_NODE &&
		(layout_tree(image) != scrub->damaged.tree || layout_level(image) != scrub->damaged.level))
		wrong = "a node of another tree or level";
	if (!wrong && id.kind == BTS_KIND_EXTENT && live_extent_size(image, id.count, page_size) != scrub->damaged.size)
		wrong = "not the large value that belongs here";
	if (wrong)
		return error_set(error, BTS_CORRUPT, 0, "page %" PRIu64 " is not repaired with what was offered: %s", id.pgno, wrong);
	err = scrub_write(scrub, bytes, error);
	if (err)
		return err;
	err = scrub_unit(scrub, &scrub->damaged);
	if (err)
		return error_set(error, err, scrub->why.os, "written anew, and still: %s", scrub->why.text);
	scrub->is_damaged = false;
	scrub->stat.repaired++;
	return BTS_OK;
}
