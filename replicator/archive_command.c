/* Lists, restores, verifies and prunes an archive. */
#include "archive_command.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "jsontext.h"
#include "prune.h"
#include "restore.h"
#include "when.h"

#define ARCHIVE_COMMAND_STALE_MS (UINT64_C(24) * 3600 * 1000)
#define ARCHIVE_COMMAND_TELL_MS 5000 /* between two lines of progress */

const char *archive_command_check_database(const char *text)
{
	uint8_t database[16];

	return position_hex_parse(text, database, sizeof(database)) ? NULL : "32 hex digits";
}

static bool archive_command_wish(const char *text, struct plan_wish *wish)
{
	*wish = (struct plan_wish){PLAN_TXID, 0};
	if (position_number_parse(text, POSITION_TXID_MAX, &wish->value))
		return true;
	wish->kind = PLAN_TIME;
	return when_parse(text, when_now(), &wish->value);
}

const char *archive_command_check_at(const char *text)
{
	struct plan_wish wish;

	return archive_command_wish(text, &wish) ? NULL
						 : "a time with its offset (2030-01-31T12:00:00Z), an age "
						   "(2h), or a transaction number";
}

const char *archive_command_check_epoch(const char *text)
{
	struct bts_position at;

	return position_epoch_parse(text, &at) && at.epoch ? NULL : "NUMBER-RANDOM, the latter 16 hex digits";
}

bool archive_command_given(const struct archive_command *command)
{
	return command->restore || command->list || command->verify || command->prune_ms;
}

const char *archive_command_fits(const struct archive_command *command)
{
	if (!!command->restore + !!command->list + !!command->verify + !!command->prune_ms > 1)
		return "one at a time of --restore, --list, --archive-verify and --prune";
	if (!command->restore && (command->at || command->same_database))
		return "--at and --same-database are for --restore";
	if (command->epoch && !command->restore && !command->list)
		return "--epoch is for --restore and --list";
	if (command->json && !command->list)
		return "--json is for --list";
	if (command->database && !archive_command_given(command))
		return "--database is for --restore, --list, --archive-verify and --prune";
	return NULL;
}

struct archive_task {
	const struct archive_command *command;
	const struct repl_events *events;
	struct store *store;
	struct restore_wish wish;
	size_t databases;
	uint64_t told_ms; /* when progress was last told, or the work began */
};

static enum bts_err archive_command_database(void *arg, const uint8_t database[16], struct bts_error *error)
{
	struct archive_task *run = arg;
	char hex[POSITION_ID_SIZE];

	(void)error;
	position_hex(database, 16, hex);
	repl_emit(run->events, REPL_INFO, "database", "%s", hex);
	memcpy(run->wish.database, database, sizeof(run->wish.database));
	run->databases++;
	return BTS_OK;
}

static enum bts_err archive_command_prepare(struct archive_task *run, struct bts_error *error)
{
	const struct archive_command *command = run->command;
	struct bts_position epoch = {.epoch = 0};
	enum bts_err err;

	if (command->epoch)
		(void)position_epoch_parse(command->epoch, &epoch);
	run->wish.epoch = epoch.epoch;
	run->wish.epoch_random = epoch.epoch_random;
	if (command->at)
		(void)archive_command_wish(command->at, &run->wish.boundary);
	if (command->database) {
		(void)position_hex_parse(command->database, run->wish.database, sizeof(run->wish.database));
		return BTS_OK;
	}
	err = catalog_databases(run->store, archive_command_database, run, error);
	if (!err && run->databases == 0)
		err = fail_set(error, BTS_NOT_FOUND, "%s: there is no archive", store_name(run->store));
	if (!err && run->databases > 1)
		err = fail_set(error, BTS_INVALID,
			"%s has %zu databases: say which one is meant, --database HEX",
			store_name(run->store), run->databases);
	return err;
}

/* ---- list ---- */

static void archive_command_json_boundary(const struct plan_boundary *boundary, bool first)
{
	char at[POSITION_TEXT_SIZE], time[WHEN_TEXT_SIZE];

	position_text(&boundary->at, at);
	when_text(boundary->time_ms, time);
	printf("%s\n{\"txid\":%" PRIu64 ",\"position\":\"%s\",\"time\":\"%s\",\"time_ms\":%" PRIu64
	       ",\"lineage\":%s,\"restorable\":%s",
		first ? "" : ",", boundary->at.txid, at, time, boundary->time_ms,
		boundary->lineage ? "true" : "false", boundary->frames ? "true" : "false");
	if (boundary->frames)
		printf(",\"frames\":%zu,\"bytes\":%" PRIu64, boundary->frames, boundary->bytes);
	putchar('}');
}

static void archive_command_json(const struct archive_task *run, const struct restore_choice *choice)
{
	const struct catalog *catalog = &choice->catalog;
	char hex[POSITION_ID_SIZE];

	position_hex(run->wish.database, 16, hex);
	printf("{\"database\":\"%s\",\"epoch\":\"%" PRIu32 "-%016" PRIx64 "\",\"boundaries\":[", hex,
		choice->plan.epoch, choice->plan.epoch_random);
	for (size_t i = 0; i < choice->plan.boundary_count; i++)
		archive_command_json_boundary(&choice->plan.boundaries[i], i == 0);
	printf("],\n\"holes\":[");
	for (size_t i = 0; i < catalog->hole_count; i++) {
		printf("%s{\"key\":\"%s\",\"why\":", i ? "," : "", catalog->holes[i].key);
		jsontext_string(stdout, catalog->holes[i].why.text);
		putchar('}');
	}
	puts("]}");
}

static void archive_command_row(const struct plan_boundary *boundary)
{
	char epoch[POSITION_EPOCH_SIZE], time[WHEN_TEXT_SIZE];

	position_epoch_text(&boundary->at, epoch);
	when_text(boundary->time_ms, time);
	printf("%15" PRIu64 "  %-24s  %-24s  ", boundary->at.txid, epoch, time);
	if (boundary->frames)
		printf("%6zu  %14" PRIu64 "\n", boundary->frames, boundary->bytes);
	else
		puts("frames are missing");
}

static void archive_command_table(const struct archive_task *run, const struct restore_choice *choice)
{
	const struct plan *plan = &choice->plan;
	char hex[POSITION_ID_SIZE];
	bool others = false;

	position_hex(run->wish.database, 16, hex);
	printf("Database %s, history of epoch %" PRIu32 "-%016" PRIx64 "\n\n", hex, plan->epoch,
		plan->epoch_random);
	printf("%15s  %-24s  %-24s  %6s  %14s\n", "TXID", "EPOCH", "TIME", "FRAMES", "BYTES");
	for (size_t i = 0; i < plan->boundary_count; i++)
		if (plan->boundaries[i].lineage)
			archive_command_row(&plan->boundaries[i]);
	for (size_t i = 0; i < plan->boundary_count; i++) {
		if (plan->boundaries[i].lineage)
			continue;
		if (!others)
			puts("\nNot known to be of this history (--epoch restores them):");
		others = true;
		archive_command_row(&plan->boundaries[i]);
	}
}

static enum bts_err archive_command_list(struct archive_task *run, struct bts_error *error)
{
	struct restore_choice choice;
	enum bts_err err = restore_survey(run->store, &run->wish, &choice, error);

	if (!err && run->command->json)
		archive_command_json(run, &choice);
	else if (!err)
		archive_command_table(run, &choice);
	for (size_t i = 0; i < choice.catalog.hole_count && !err; i++)
		repl_emit(run->events, REPL_WARN, "hole", "%s: %s", choice.catalog.holes[i].key,
			choice.catalog.holes[i].why.text);
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = fail_set(error, BTS_IO, "cannot write to standard output");
	restore_choice_fini(&choice);
	return err;
}

/* ---- restore ---- */

static void archive_command_progress(void *arg, uint64_t bytes, uint64_t total)
{
	struct archive_task *run = arg;
	uint64_t now = when_now();

	if (now - run->told_ms < ARCHIVE_COMMAND_TELL_MS)
		return;
	run->told_ms = now;
	repl_emit(run->events, REPL_INFO, "progress", "%" PRIu64 " of %" PRIu64 " MiB", bytes >> 20,
		total >> 20);
}

static void archive_command_tell(
	const struct archive_task *run, const struct restore_choice *choice, const char *event)
{
	const struct plan_boundary *at = &choice->plan.boundaries[choice->boundary];
	char position[POSITION_TEXT_SIZE], time[WHEN_TEXT_SIZE];

	position_text(&at->at, position);
	when_text(at->time_ms, time);
	repl_emit(run->events, REPL_INFO, event,
		"%s, all that was committed before %s; %zu frames, %" PRIu64 " bytes", position, time,
		at->frames, at->bytes);
}

static void archive_command_gap(const struct archive_task *run, const struct restore_choice *choice)
{
	const struct plan_boundary *next;
	char time[WHEN_TEXT_SIZE];

	if (choice->next == PLAN_NONE) {
		repl_emit(run->events, REPL_INFO, "newest", "the archive has nothing later of this history");
		return;
	}
	next = &choice->plan.boundaries[choice->next];
	when_text(next->time_ms, time);
	repl_emit(run->events, REPL_INFO, "next",
		"the next boundary is transaction %" PRIu64 ", of %s: nothing between is in the file",
		next->at.txid, time);
}

static enum bts_err archive_command_restore(struct archive_task *run, struct bts_error *error)
{
	const struct restore_options options = {.path = run->command->restore,
		.same_database = run->command->same_database,
		.progress = archive_command_progress,
		.arg = run};
	struct restore_choice choice;
	enum bts_err err = restore_survey(run->store, &run->wish, &choice, error);

	if (!err)
		err = restore_choose(&run->wish, &choice, error);
	if (!err) {
		archive_command_tell(run, &choice, "restoring");
		err = restore_file(run->store, &choice, &options, error);
	}
	if (!err) {
		archive_command_tell(run, &choice, "restored");
		archive_command_gap(run, &choice);
	}
	restore_choice_fini(&choice);
	return err;
}

/* ---- verify, prune ---- */

/* Every frame of every history. */
static enum bts_err archive_command_verify(struct archive_task *run, struct bts_error *error)
{
	uint64_t done = 0, total = 0;
	struct catalog catalog;
	size_t bad = 0, frames = 0;
	enum bts_err err = catalog_read(run->store, run->wish.database, &catalog, error);

	for (size_t i = 0; i < catalog.count; i++)
		total += catalog_pruned(&catalog, &catalog.entries[i]) ? 0 : catalog.entries[i].bytes;
	for (size_t i = 0; i < catalog.hole_count && !err; i++, bad++)
		repl_emit(run->events, REPL_ERROR, "damaged", "%s: %s", catalog.holes[i].key,
			catalog.holes[i].why.text);
	for (size_t i = 0; i < catalog.count && !err; i++) {
		struct bts_error why = {0};

		if (catalog_pruned(&catalog, &catalog.entries[i]))
			continue;
		frames++;
		err = restore_verify_frame(run->store, &catalog.entries[i], &why);
		if (err == BTS_CORRUPT || err == BTS_VERSION) {
			repl_emit(run->events, REPL_ERROR, "damaged", "%s", why.text);
			bad++;
			err = BTS_OK;
		} else if (err) {
			fail_set(error, err, "%s", why.text);
		}
		done += catalog.entries[i].bytes;
		archive_command_progress(run, done, total);
	}
	if (!err && bad)
		err = fail_set(error, BTS_CORRUPT, "%zu damaged frames and manifests in %s", bad,
			store_name(run->store));
	else if (!err)
		repl_emit(run->events, REPL_INFO, "verified", "%zu frames, %" PRIu64 " bytes", frames, total);
	catalog_fini(&catalog);
	return err;
}

static enum bts_err archive_command_prune(struct archive_task *run, struct bts_error *error)
{
	const uint64_t now = when_now(), age = run->command->prune_ms;
	struct prune_options options = {
		.before_ms = age < now ? now - age : 0, .stale_ms = now - ARCHIVE_COMMAND_STALE_MS};
	struct prune_counts counts;
	enum bts_err err;

	memcpy(options.database, run->wish.database, sizeof(options.database));
	err = prune_archive(run->store, &options, &counts, error);
	if (counts.hole)
		repl_emit(run->events, REPL_WARN, "hole",
			"manifests are missing or damaged: parts that none names were left alone");
	if (!err || counts.parts)
		repl_emit(run->events, REPL_INFO, "pruned",
			"%" PRIu64 " frames, %" PRIu64 " manifests; %" PRIu64 " parts (%" PRIu64
			" of them of no frame), %" PRIu64 " bytes",
			counts.frames, counts.manifests, counts.parts, counts.unnamed, counts.bytes);
	return err;
}

enum bts_err archive_command_run(const struct archive_command *command, const char *url,
	const struct repl_events *events, struct bts_error *error)
{
	struct archive_task run = {.command = command, .events = events, .told_ms = when_now()};
	enum bts_err err = store_open(url, NULL, &run.store, error);
	sigset_t stops;

	/* What is interrupted leaves nothing that does harm, so there is nothing to be done before the end. */
	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGHUP);
	pthread_sigmask(SIG_UNBLOCK, &stops, NULL);
	if (!err)
		err = archive_command_prepare(&run, error);
	if (err)
		goto end;
	if (command->restore)
		err = archive_command_restore(&run, error);
	else if (command->list)
		err = archive_command_list(&run, error);
	else if (command->verify)
		err = archive_command_verify(&run, error);
	else
		err = archive_command_prune(&run, error);
end:
	store_close(run.store);
	return err;
}
