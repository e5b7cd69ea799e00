/* bts stat: what the file holds and where its history stands. */
#include "bts_tool.h"
#include <string.h>

static void stat_hex(char to[33], const uint8_t bytes[16])
{
	for (int i = 0; i < 16; i++)
		sprintf(to + 2 * i, "%02x", bytes[i]);
}

static const char *stat_opening(const struct bts_stat *stat)
{
	if (stat->fell_back)
		return "fell back to the commit before";
	return stat->clean_open ? "clean" : "recovered after an unclean exit";
}

static void stat_print(const struct bts_stat *s)
{
	char database[33], digest[33];
	uint64_t used = s->pages - s->first_page - s->free_pages;

	stat_hex(database, s->database);
	stat_hex(digest, s->root_digest);
	printf("database     %s, %s\n", database, s->follower ? "a follower's file" : "a primary's file");
	printf("epoch        %u\n", s->epoch);
	printf("txid         %llu\n", (unsigned long long)s->txid);
	printf("root digest  %s\n", digest);
	printf("last exit    %s\n", stat_opening(s));
	printf("file         %llu bytes, pages of %u bytes\n", (unsigned long long)s->file_bytes,
		s->page_size);
	printf("pages        %llu in use, %llu free\n", (unsigned long long)used,
		(unsigned long long)s->free_pages);
	printf("readers      %u", s->readers);
	if (s->oldest_reader)
		printf(", the oldest at txid %llu", (unsigned long long)s->oldest_reader);
	printf("\nbuckets      %llu\n", (unsigned long long)s->buckets);
}

static void stat_json(struct bts_json_text *text, const struct bts_stat *s)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"epoch", s->epoch},
		{"txid", s->txid},
		{"durable_txid", s->durable_txid},
		{"page_size", s->page_size},
		{"file_bytes", s->file_bytes},
		{"first_page", s->first_page},
		{"pages", s->pages},
		{"free_pages", s->free_pages},
		{"readers", s->readers},
		{"oldest_reader", s->oldest_reader},
		{"buckets", s->buckets},
	};
	char hex[33];

	bts_json_raw(text, "{");
	stat_hex(hex, s->database);
	bts_json_member(text, "database_id", bts_tool_slice(hex));
	bts_json_raw(text, ",");
	bts_json_member(text, "role", bts_tool_slice(s->follower ? "follower" : "primary"));
	bts_json_raw(text, ",");
	stat_hex(hex, s->root_digest);
	bts_json_member(text, "root_digest", bts_tool_slice(hex));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		bts_json_raw(text, ",");
		bts_json_number(text, numbers[i].name, numbers[i].value);
	}
	bts_json_raw(text, s->clean_open ? ",\"clean_open\":true" : ",\"clean_open\":false");
	bts_json_raw(text, s->fell_back ? ",\"fell_back\":true" : ",\"fell_back\":false");
}

static void stat_bucket_json(struct bts_json_text *text, const struct bts_bucket_info *info)
{
	bts_json_raw(text, "{");
	bts_json_member(text, "name", info->name);
	bts_json_raw(text, ",");
	bts_json_member(text, "meta", info->meta);
	bts_json_raw(text, ",");
	bts_json_number(text, "entries", info->entries);
	bts_json_raw(text, ",");
	bts_json_number(text, "bytes", info->bytes);
	bts_json_raw(text, ",");
	bts_json_number(text, "pages", info->pages);
	bts_json_raw(text, ",");
	bts_json_number(text, "depth", info->depth);
	bts_json_raw(text, "}");
}

/* Every bucket; text NULL: for people. */
static enum bts_err stat_buckets(struct bts_txn *txn, struct bts_json_text *text)
{
	uint8_t name[BTS_BUCKET_NAME_MAX];
	struct bts_slice after = {name, 0};
	struct bts_bucket_info info;
	enum bts_err err;

	while ((err = bts_bucket_next(txn, after, &info)) == BTS_OK) {
		if (text) {
			bts_json_raw(text, after.size ? "," : "");
			stat_bucket_json(text, &info);
		} else {
			fputs("  ", stdout);
			bts_tool_print(stdout, info.name);
			printf(": %llu entries, %llu bytes, %llu pages, depth %u\n",
				(unsigned long long)info.entries, (unsigned long long)info.bytes,
				(unsigned long long)info.pages, info.depth);
		}
		memcpy(name, info.name.data, info.name.size);
		after.size = info.name.size;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static int stat_run(const struct bts_args *args, const struct bts_stat *stat, struct bts_txn *txn)
{
	struct bts_json_text text = {0};
	enum bts_err err;
	int status = BTS_EXIT_OK;

	if (!args->json) {
		stat_print(stat);
		err = stat_buckets(txn, NULL);
		return err ? bts_tool_fail_txn(args, err, txn) : status;
	}
	stat_json(&text, stat);
	bts_json_raw(&text, ",\"bucket_list\":[");
	err = stat_buckets(txn, &text);
	bts_json_raw(&text, "]}");
	if (err)
		status = bts_tool_fail_txn(args, err, txn);
	else if (!bts_tool_put_line(&text))
		status = bts_tool_fail(args, BTS_MEMORY, "no memory for the list of buckets");
	bts_json_free(&text);
	return status;
}

int bts_cmd_stat(const struct bts_args *args)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_error error = {0};
	struct bts_txn *txn;
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	/* The figures first: our own snapshot is none of the readers they tell of. */
	if (bts_stat(db, &stat, &error) || bts_begin(db, BTS_READ, &txn, &error)) {
		status = bts_tool_fail_error(args, &error);
	} else {
		status = stat_run(args, &stat, txn);
		bts_abort(txn);
	}
	bts_close(db);
	return status;
}
