/* What bts-replicator does with an archive that nobody needs a database for: list, restore, verify, prune. */
#ifndef ARCHIVE_COMMAND_H
#define ARCHIVE_COMMAND_H

#include "fail.h"
#include "settings.h"

struct archive_command {
	const char *database; /* hex; NULL: the only one there is */
	const char *restore;  /* the file to make */
	const char *at;	      /* NULL: the newest */
	const char *epoch;    /* NULL: the newest */
	int same_database, list, json, verify;
	uint64_t prune_ms; /* 0: not asked for */
};

/* Checks of the settings: NULL, or what is wrong. */
const char *archive_command_check_database(const char *text);
const char *archive_command_check_at(const char *text);
const char *archive_command_check_epoch(const char *text);

/* Of a program's struct in which `field` is a struct archive_command. */
#define ARCHIVE_COMMAND_ROWS(type, field)                                                                    \
	{"restore", SETTINGS_PATH(type, field.restore), .arg = "FILE",                                       \
		.help = "make FILE from the archive: its newest state, or the one --at names; a new "        \
			"database, which may be written, "                                                   \
			"unless --same-database"},                                                           \
		{"at", SETTINGS_TEXT(type, field.at), .arg = "TIME|TXID", .check = archive_command_check_at, \
			.help = "with --restore: the newest state not later than that: "                     \
				"2030-01-31T12:00:00Z, 2h (ago), or a transaction number"},                  \
		{"same-database", SETTINGS_FLAG(type, field.same_database),                                  \
			.help = "with --restore: FILE is a follower's of the same database, which takes "    \
				"what it lacks from another node, or is promoted"},                          \
		{"list", SETTINGS_FLAG(type, field.list),                                                    \
			.help = "print what can be restored from the archive"},                              \
		{"json", SETTINGS_FLAG(type, field.json), .help = "with --list: as JSON"},                   \
		{"archive-verify", SETTINGS_FLAG(type, field.verify),                                        \
			.help = "read all of the archive and check it; exit 1 when something is missing or " \
				"damaged"},                                                                  \
		{"prune", SETTINGS_DURATION(type, field.prune_ms), .arg = "AGE", .least = 1,                 \
			.most = UINT64_C(1) << 50,                                                           \
			.help = "delete from the archive what no state younger than AGE (30d) needs"},       \
		{"database", SETTINGS_TEXT(type, field.database), .arg = "HEX",                              \
			.check = archive_command_check_database,                                             \
			.help = "for these: which database of the archive, if it has several"},              \
	{                                                                                                    \
		"epoch", SETTINGS_TEXT(type, field.epoch),                                                   \
			.arg = "N-RANDOM", .check = archive_command_check_epoch,                             \
			.help = "for --restore and --list: the history of that epoch, not of the newest"     \
	}

/* Is any of this asked for? */
bool archive_command_given(const struct archive_command *);
/* NULL, or what does not go together. */
const char *archive_command_fits(const struct archive_command *);
/* url: of the archive.  Prints to standard output what was asked for; what happens is told by events. */
BTS_MUST_CHECK enum bts_err archive_command_run(const struct archive_command *, const char *url,
	const struct repl_events *events, struct bts_error *error);

#endif
