/* bts stat: what the file holds, where its history stands, who reads it and what that costs. */
#include "bts_tool.h"
#include <stdlib.h>
#include <string.h>

#define STAT_AGE_CELL 16
#define STAT_SIZE_CELL 16

struct stat_report {
	const struct bts_args *args;
	struct bts_stat stat;
	struct bts_reader_info *readers;
	size_t reader_count, reader_cap;
	bool no_memory;
};

static void stat_hex(char to[33], const uint8_t bytes[16])
{
	for (int i = 0; i < 16; i++)
		sprintf(to + 2 * i, "%02x", bytes[i]);
}

/* "1023 B", "1.0 KiB", "312 GiB". */
static const char *stat_size(char to[STAT_SIZE_CELL], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	for (; value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		value /= 1024;
	snprintf(to, STAT_SIZE_CELL, unit > 0 && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return to;
}

/* "250 ms", "3.5 s", "12 min", "5 h", "3 d". */
static const char *stat_age(char to[STAT_AGE_CELL], uint64_t ms)
{
	if (ms < 1000)
		snprintf(to, STAT_AGE_CELL, "%u ms", (unsigned)ms);
	else if (ms < 120000)
		snprintf(to, STAT_AGE_CELL, "%.1f s", (double)ms / 1000);
	else if (ms < 7200000)
		snprintf(to, STAT_AGE_CELL, "%u min", (unsigned)(ms / 60000));
	else if (ms < 172800000)
		snprintf(to, STAT_AGE_CELL, "%u h", (unsigned)(ms / 3600000));
	else
		snprintf(to, STAT_AGE_CELL, "%llu d", (unsigned long long)(ms / 86400000));
	return to;
}

static uint64_t stat_percent(uint64_t part, uint64_t whole)
{
	return whole == 0 ? 0 : (uint64_t)((double)part * 100 / (double)whole + 0.5);
}

static const char *stat_opening(const struct bts_stat *stat)
{
	if (stat->fell_back)
		return "fell back to the commit before";
	return stat->clean_open ? "clean" : "recovered after an unclean exit";
}

static void stat_add_reader(void *arg, const struct bts_reader_info *info)
{
	struct stat_report *report = arg;

	if (report->reader_count == report->reader_cap) {
		size_t cap = report->reader_cap ? 2 * report->reader_cap : 64;
		void *more = realloc(report->readers, cap * sizeof(*info));

		report->no_memory = report->no_memory || !more;
		if (!more)
			return;
		report->readers = more;
		report->reader_cap = cap;
	}
	report->readers[report->reader_count++] = *info;
}

static void stat_print_readers(const struct stat_report *report)
{
	char age[STAT_AGE_CELL], size[STAT_SIZE_CELL];

	printf("readers       %zu\n", report->reader_count);
	if (report->reader_count > 0)
		printf("  %10s %14s %10s %10s %10s\n", "pid", "snapshot", "age", "holds", "pages");
	for (size_t i = 0; i < report->reader_count; i++) {
		const struct bts_reader_info *info = &report->readers[i];

		printf("  %10u %14llu %10s %10s %10llu%s\n", info->pid, (unsigned long long)info->txid,
			stat_age(age, info->age_ms), stat_size(size, info->held_bytes),
			(unsigned long long)info->held_pages, info->expired ? "  expired" : "");
	}
}

static void stat_print_space(const struct bts_stat *s)
{
	uint64_t all = s->pages - s->first_page, used = all - s->free_pages;
	char size[STAT_SIZE_CELL];

	printf("file          %s, in pages of %u bytes\n", stat_size(size, s->file_bytes), s->page_size);
	printf("  in use      %s, %llu pages, %llu%%\n", stat_size(size, used * s->page_size),
		(unsigned long long)used, (unsigned long long)stat_percent(used, all));
	printf("  free        %s, %llu pages\n", stat_size(size, s->free_pages * s->page_size),
		(unsigned long long)s->free_pages);
	if (s->pinned_pages > 0)
		printf("  kept        %s, %llu of the free pages: readers still need them\n",
			stat_size(size, s->pinned_pages * s->page_size), (unsigned long long)s->pinned_pages);
}

static void stat_print(const struct stat_report *report)
{
	const struct bts_stat *s = &report->stat;
	char hex[33], age[STAT_AGE_CELL];

	stat_hex(hex, s->database);
	printf("database      %s, %s\n", hex, s->follower ? "a follower's file" : "a primary's file");
	printf("transaction   %llu, epoch %u", (unsigned long long)s->txid, s->epoch);
	if (s->durable_txid < s->txid)
		printf(", durable up to %llu", (unsigned long long)s->durable_txid);
	stat_hex(hex, s->root_digest);
	printf("\nroot digest   %s\n", hex);
	printf("last exit     %s\n", stat_opening(s));
	if (s->poisoned)
		puts("POISONED      a write or flush failed: close it in every process, then open it again");
	if (s->stuck_pid)
		printf("STUCK         process %u has held the commit lock for %s (is it stopped?)\n",
			s->stuck_pid, stat_age(age, s->stuck_ms));
	stat_print_space(s);
	stat_print_readers(report);
	printf("buckets       %llu\n", (unsigned long long)s->buckets);
}

struct stat_number {
	const char *name;
	uint64_t value;
};

/* Members, each with a comma before it. */
static void stat_numbers(struct bts_json_text *text, const struct stat_number *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		bts_json_raw(text, ",");
		bts_json_number(text, numbers[i].name, numbers[i].value);
	}
}
#define STAT_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void stat_json_bytes(struct bts_json_text *text, const char *name, const uint8_t bytes[16])
{
	char hex[33];

	stat_hex(hex, bytes);
	bts_json_member(text, name, bts_tool_slice(hex));
	bts_json_raw(text, ",");
}

static void stat_json_readers(struct bts_json_text *text, const struct stat_report *report)
{
	bts_json_raw(text, ",\"reader_list\":[");
	for (size_t i = 0; i < report->reader_count; i++) {
		const struct bts_reader_info *info = &report->readers[i];
		const struct stat_number numbers[] = {
			{"txid", info->txid},
			{"age_ms", info->age_ms},
			{"held_pages", info->held_pages},
			{"held_bytes", info->held_bytes},
		};

		bts_json_raw(text, i > 0 ? ",{" : "{");
		bts_json_number(text, "pid", info->pid);
		stat_numbers(text, numbers, STAT_COUNT(numbers));
		bts_json_raw(text, info->expired ? ",\"expired\":true}" : ",\"expired\":false}");
	}
	bts_json_raw(text, "]");
}

static void stat_json(struct bts_json_text *text, const struct stat_report *report)
{
	const struct bts_stat *s = &report->stat;
	const struct stat_number numbers[] = {
		{"epoch", s->epoch},
		{"txid", s->txid},
		{"durable_txid", s->durable_txid},
		{"page_size", s->page_size},
		{"file_bytes", s->file_bytes},
		{"first_page", s->first_page},
		{"pages", s->pages},
		{"free_pages", s->free_pages},
		{"pinned_pages", s->pinned_pages},
		{"readers", s->readers},
		{"oldest_reader", s->oldest_reader},
		{"stuck_pid", s->stuck_pid},
		{"stuck_ms", s->stuck_ms},
		{"buckets", s->buckets},
	};

	bts_json_raw(text, "{");
	stat_json_bytes(text, "database_id", s->database);
	stat_json_bytes(text, "root_digest", s->root_digest);
	stat_json_bytes(text, "chain", s->chain);
	bts_json_member(text, "role", bts_tool_slice(s->follower ? "follower" : "primary"));
	stat_numbers(text, numbers, STAT_COUNT(numbers));
	bts_json_raw(text, s->clean_open ? ",\"clean_open\":true" : ",\"clean_open\":false");
	bts_json_raw(text, s->fell_back ? ",\"fell_back\":true" : ",\"fell_back\":false");
	bts_json_raw(text, s->poisoned ? ",\"poisoned\":true" : ",\"poisoned\":false");
	stat_json_readers(text, report);
}

static void stat_bucket_json(
	struct bts_json_text *text, const struct bts_bucket_info *info, const struct bts_bucket_stat *walked)
{
	const struct stat_number numbers[] = {
		{"entries", info->entries},
		{"bytes", info->bytes},
		{"pages", info->pages},
		{"depth", info->depth},
		{"version", info->version},
	};

	bts_json_member(text, "name", info->name);
	bts_json_raw(text, ",");
	bts_json_member(text, "meta", info->meta);
	stat_numbers(text, numbers, STAT_COUNT(numbers));
	if (walked) {
		const struct stat_number more[] = {
			{"leaf_pages", walked->leaf_pages},
			{"leaf_bytes_used", walked->leaf_bytes_used},
			{"leaf_bytes", walked->leaf_bytes},
			{"branch_pages", walked->branch_pages},
			{"branch_bytes_used", walked->branch_bytes_used},
			{"branch_bytes", walked->branch_bytes},
			{"large_values", walked->large_values},
			{"large_bytes", walked->large_bytes},
			{"large_pages", walked->large_pages},
		};

		stat_numbers(text, more, STAT_COUNT(more));
	}
}

static void stat_bucket_print(const struct stat_report *report, const struct bts_bucket_info *info,
	const struct bts_bucket_stat *walked)
{
	char size[STAT_SIZE_CELL], large[STAT_SIZE_CELL], fill[8];

	printf("  %12llu %10s %10llu %6u  ", (unsigned long long)info->entries, stat_size(size, info->bytes),
		(unsigned long long)info->pages, info->depth);
	if (walked) {
		snprintf(fill, sizeof(fill), "%llu%%",
			(unsigned long long)stat_percent(walked->leaf_bytes_used, walked->leaf_bytes));
		printf("%5s %10llu %10s  ", walked->leaf_pages ? fill : "-",
			(unsigned long long)walked->large_values,
			stat_size(large, walked->large_pages * report->stat.page_size));
	}
	bts_tool_print(stdout, info->name);
	putchar('\n');
}

static void stat_bucket_header(const struct stat_report *report)
{
	printf("  %12s %10s %10s %6s  ", "entries", "bytes", "pages", "depth");
	if (report->args->buckets)
		printf("%5s %10s %10s  ", "fill", "large", "in large");
	puts("name");
}

/* One bucket; text NULL: for people. */
static enum bts_err stat_bucket(const struct stat_report *report, struct bts_txn *txn,
	struct bts_json_text *text, const struct bts_bucket_info *info)
{
	struct bts_bucket_stat walked = {.size = sizeof(walked)};
	struct bts_bucket *bucket;
	enum bts_err err = BTS_OK;

	if (report->args->buckets) {
		err = bts_bucket(txn, info->name, 0, &bucket, NULL);
		if (!err)
			err = bts_bucket_stat(txn, bucket, &walked);
		if (err)
			return err;
	}
	if (text)
		stat_bucket_json(text, info, report->args->buckets ? &walked : NULL);
	else
		stat_bucket_print(report, info, report->args->buckets ? &walked : NULL);
	return BTS_OK;
}

static enum bts_err stat_buckets(
	const struct stat_report *report, struct bts_txn *txn, struct bts_json_text *text)
{
	uint8_t name[BTS_BUCKET_NAME_MAX];
	struct bts_slice after = {name, 0};
	struct bts_bucket_info info;
	enum bts_err err;

	while ((err = bts_bucket_next(txn, after, &info)) == BTS_OK) {
		if (text)
			bts_json_raw(text, after.size ? ",{" : "{");
		else if (!after.size)
			stat_bucket_header(report);
		err = stat_bucket(report, txn, text, &info);
		if (err)
			return err;
		if (text)
			bts_json_raw(text, "}");
		memcpy(name, info.name.data, info.name.size);
		after.size = info.name.size;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static int stat_run(const struct stat_report *report, struct bts_txn *txn)
{
	const struct bts_args *args = report->args;
	struct bts_json_text text = {0};
	enum bts_err err;
	int status = BTS_EXIT_OK;

	if (!args->json) {
		stat_print(report);
		err = stat_buckets(report, txn, NULL);
		return err ? bts_tool_fail_txn(args, err, txn) : status;
	}
	stat_json(&text, report);
	bts_json_raw(&text, ",\"bucket_list\":[");
	err = stat_buckets(report, txn, &text);
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
	struct stat_report report = {.args = args, .stat = {.size = sizeof(report.stat)}};
	struct bts_error error = {0};
	struct bts_txn *txn;
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	/* The figures first: our own snapshot is none of the readers they tell of. */
	if (bts_stat(db, &report.stat, &error) || bts_readers(db, stat_add_reader, &report, &error) ||
		bts_begin(db, BTS_READ, &txn, &error)) {
		status = bts_tool_fail_error(args, &error);
	} else {
		status = report.no_memory
				 ? bts_tool_fail(args, BTS_MEMORY, "no memory for the list of readers")
				 : stat_run(&report, txn);
		bts_abort(txn);
	}
	free(report.readers);
	bts_close(db);
	return status;
}
