/* bts scrub: read every live page, and put damaged ones right from another file of the same commits. */
#include "bts_tool.h"

#include <btree_store/ship.h>

struct scrub {
	const struct bts_args *args;
	struct bts_pages *peer; /* NULL: none */
	struct bts_progress progress;
	uint64_t left;
};

static void scrub_tell(struct scrub *scrub, const struct bts_scrub_unit *unit, bool repaired, const char *why)
{
	struct bts_json_text text = {0};

	if (!scrub->args->json) {
		printf("page %llu: %s: %s\n", (unsigned long long)unit->id.pgno, repaired ? "repaired" : "DAMAGED", why);
		return;
	}
	bts_json_raw(&text, "{");
	bts_json_number(&text, "page", unit->id.pgno);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "pages", unit->id.count);
	bts_json_raw(&text, repaired ? ",\"repaired\":true," : ",\"repaired\":false,");
	bts_json_member(&text, "text", bts_tool_slice(why));
	bts_json_raw(&text, "}");
	bts_tool_put_line(&text);
	bts_json_free(&text);
}

static void scrub_damaged(struct scrub *scrub, struct bts_scrub *running, const struct bts_scrub_unit *unit)
{
	struct bts_error error = {0};
	struct bts_slice bytes;
	bool repaired = scrub->peer && !bts_pages_read(scrub->peer, &unit->id, &bytes, &error) &&
			!bts_scrub_repair(running, bytes, &error);

	scrub->left += !repaired;
	scrub_tell(scrub, unit, repaired, scrub->peer && !repaired ? error.text : unit->what.text);
}

static enum bts_err scrub_run(struct scrub *scrub, struct bts *db, struct bts_scrub_stat *stat, struct bts_error *error)
{
	struct bts_scrub *running;
	struct bts_scrub_unit unit;
	enum bts_err err = bts_scrub_open(db, &running, error);

	if (err)
		return err;
	while ((err = bts_scrub_next(running, &unit, error)) == BTS_OK) {
		if (unit.damaged)
			scrub_damaged(scrub, running, &unit);
		bts_scrub_stat(running, stat);
		bts_progress_step(&scrub->progress, stat->done, stat->done, stat->total);
	}
	bts_scrub_stat(running, stat);
	bts_scrub_close(running);
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* Of a primary's file beside whoever writes it; of a follower's with nobody at it. */
static enum bts_err scrub_open(const struct bts_args *args, struct bts **db, struct bts_error *error)
{
	struct bts_options options;
	enum bts_err err;

	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING | (args->from ? 0 : BTS_OPEN_READ_ONLY);
	err = bts_open(args->file, &options, db, error);
	if (err != BTS_READ_ONLY)
		return err;
	options.flags |= BTS_OPEN_FOLLOWER;
	return bts_open(args->file, &options, db, error);
}

int bts_cmd_scrub(const struct bts_args *args)
{
	struct scrub scrub = {.args = args};
	struct bts_scrub_stat stat = {0};
	struct bts_options options;
	struct bts_error error = {0};
	struct bts *db = NULL, *peer = NULL;
	enum bts_err err = scrub_open(args, &db, &error);

	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING | BTS_OPEN_READ_ONLY;
	if (!err && args->from)
		err = bts_open(args->from, &options, &peer, &error);
	if (!err && peer)
		err = bts_pages_open(peer, &scrub.peer, &error);
	bts_progress_begin(&scrub.progress, args, "pages");
	if (!err)
		err = scrub_run(&scrub, db, &stat, &error);
	bts_progress_end(&scrub.progress);
	bts_pages_close(scrub.peer);
	bts_close(peer);
	bts_close(db);
	if (err)
		return bts_tool_fail_error(args, &error);
	if (!args->json)
		printf("%s: %llu pages read, %llu damaged, %llu repaired\n", args->file, (unsigned long long)stat.done,
			(unsigned long long)stat.damaged, (unsigned long long)stat.repaired);
	return bts_tool_finish(args, scrub.left || stat.hidden ? BTS_EXIT_FAILURE : BTS_EXIT_OK);
}
