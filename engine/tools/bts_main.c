/* bts: one program on a local file.  Reads the command line and calls the command. */
#include "bts_tool.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum option_code {
	OPTION_HELP = 256,
	OPTION_VERSION,
	OPTION_JSON,
	OPTION_BASE64,
	OPTION_NEW,
	OPTION_EXISTING,
	OPTION_REVERSE,
	OPTION_NO_LMDB,
	OPTION_BUCKETS,
	OPTION_BUCKET,
	OPTION_SNAPSHOT,
	OPTION_PREFIX,
	OPTION_FROM,
	OPTION_TO,
	OPTION_LIMIT,
	OPTION_BATCH,
	OPTION_PAGE_SIZE,
	OPTION_COUNT,
	OPTION_KEY_SIZE,
	OPTION_VALUE_SIZE,
	OPTION_PUTS,
	OPTION_ROUNDS,
	OPTION_SECONDS,
	OPTION_SEED,
	OPTION_SAME_ID
};

static const struct option options[] = {
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{"json", no_argument, NULL, OPTION_JSON},
	{"base64", no_argument, NULL, OPTION_BASE64},
	{"new", no_argument, NULL, OPTION_NEW},
	{"existing", no_argument, NULL, OPTION_EXISTING},
	{"reverse", no_argument, NULL, OPTION_REVERSE},
	{"no-lmdb", no_argument, NULL, OPTION_NO_LMDB},
	{"buckets", no_argument, NULL, OPTION_BUCKETS},
	{"bucket", required_argument, NULL, OPTION_BUCKET},
	{"snapshot", required_argument, NULL, OPTION_SNAPSHOT},
	{"prefix", required_argument, NULL, OPTION_PREFIX},
	{"from", required_argument, NULL, OPTION_FROM},
	{"to", required_argument, NULL, OPTION_TO},
	{"limit", required_argument, NULL, OPTION_LIMIT},
	{"batch", required_argument, NULL, OPTION_BATCH},
	{"page-size", required_argument, NULL, OPTION_PAGE_SIZE},
	{"count", required_argument, NULL, OPTION_COUNT},
	{"key-size", required_argument, NULL, OPTION_KEY_SIZE},
	{"value-size", required_argument, NULL, OPTION_VALUE_SIZE},
	{"puts", required_argument, NULL, OPTION_PUTS},
	{"rounds", required_argument, NULL, OPTION_ROUNDS},
	{"seconds", required_argument, NULL, OPTION_SECONDS},
	{"seed", required_argument, NULL, OPTION_SEED},
	{"same-id", no_argument, NULL, OPTION_SAME_ID},
	{NULL, 0, NULL, 0},
};

struct command {
	const char *name;
	bts_command *run;
	const char *arguments, *does;
	int words_min, words_max;  /* after FILE */
	enum option_code takes[9]; /* besides --json, --help, --version */
};

static const struct command commands[] = {
	{"get", bts_cmd_get, "FILE BUCKET KEY", "print the value of a key", 2, 2, {OPTION_BASE64, OPTION_SNAPSHOT}},
	{"put", bts_cmd_put, "FILE BUCKET KEY [VALUE]",
		"store a value; without VALUE, read it from standard input", 2, 3,
		{OPTION_BASE64, OPTION_NEW, OPTION_EXISTING, OPTION_PAGE_SIZE}},
	{"del", bts_cmd_del, "FILE BUCKET KEY", "remove a key", 2, 2, {OPTION_BASE64}},
	{"scan", bts_cmd_scan, "FILE BUCKET", "print keys and values in order", 1, 1,
		{OPTION_PREFIX, OPTION_FROM, OPTION_TO, OPTION_REVERSE, OPTION_LIMIT, OPTION_SNAPSHOT}},
	{"snapshot", bts_cmd_snapshot, "FILE [list|create NAME|delete NAME]", "states kept under a name", 0, 2, {0}},
	{"stat", bts_cmd_stat, "FILE", "sizes, position, readers and buckets", 0, 0, {OPTION_BUCKETS}},
	{"check", bts_cmd_check, "FILE", "verify every page; exit 1 when damaged", 0, 0, {0}},
	{"scrub", bts_cmd_scrub, "FILE", "read every live page; with --from, repair damaged ones; exit 1 when some are left", 0,
		0, {OPTION_FROM}},
	{"dump", bts_cmd_dump, "FILE", "print everything as lines of JSON", 0, 0,
		{OPTION_BUCKET, OPTION_SNAPSHOT}},
	{"diff", bts_cmd_diff, "FILE SINCE", "print what changed since a named snapshot as lines of JSON", 1, 1,
		{OPTION_BUCKET, OPTION_SNAPSHOT}},
	{"load", bts_cmd_load, "FILE [INPUT]", "store lines of JSON from INPUT or standard input", 0, 1,
		{OPTION_BUCKET, OPTION_BATCH, OPTION_PAGE_SIZE}},
	{"compact", bts_cmd_compact, "FILE", "move pages from the end into free ones, make the file smaller", 0, 0,
		{OPTION_BATCH}},
	{"demote", bts_cmd_demote, "FILE", "fence a primary's file: nobody writes it any more", 0, 0, {0}},
	{"promote", bts_cmd_promote, "FILE", "make a follower's or fenced file a primary's", 0, 0, {0}},
	{"backup", bts_cmd_backup, "FILE OUTPUT", "copy the newest commit to a new file, or - for standard output", 1, 1,
		{0}},
	{"restore", bts_cmd_restore, "FILE [INPUT]", "make FILE from a backup, verified; without INPUT, from standard input",
		0, 1, {OPTION_SAME_ID}},
	{"bench", bts_bench, "FILE [writers]", "time the store, or many writers, beside LMDB; FILE must not exist", 0,
		1,
		{OPTION_COUNT, OPTION_KEY_SIZE, OPTION_VALUE_SIZE, OPTION_PUTS, OPTION_ROUNDS, OPTION_BATCH,
			OPTION_SEED, OPTION_NO_LMDB, OPTION_SECONDS}},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static const char option_help[] =
	"\nOptions:\n"
	"  --json            output for programs (JSON lines); errors too\n"
	"  --base64          get, put, del: KEY and VALUE are given in base64\n"
	"  --new             put: refuse a key that is there (exit 4)\n"
	"  --existing        put: refuse a key that is not there (exit 3)\n"
	"  --prefix P        scan: only keys that begin with P\n"
	"  --from K, --to K  scan: only keys from K on; only keys before K\n"
	"  --from FILE       scrub: another file of the same database to take pages from (a node: bts-replicator --scrub)\n"
	"  --reverse         scan: from the greatest key down\n"
	"  --limit N         scan: at most N keys\n"
	"  --buckets         stat: read every bucket's tree: how full its pages are, what is in large values\n"
	"  --bucket B        dump, diff: only this bucket; load: the bucket of lines that name none\n"
	"  --snapshot S      get, scan, dump: what the named snapshot holds; diff: up to that\n"
	"  --batch N         load, bench: records a commit (1000); compact: pages a commit (1000)\n"
	"  --page-size N     put, load: of a file being created, 4096 to 65536 (4096)\n"
	"  --count N         bench: records (200000)\n"
	"  --key-size N      bench: bytes, 8 to 511 (16)\n"
	"  --value-size N    bench: bytes (100)\n"
	"  --puts N          bench: durable single puts a round (300)\n"
	"  --rounds N        bench: the median of so many is shown (3)\n"
	"  --seconds N       bench writers: for each number of writers and store, in each round (1)\n"
	"  --seed N          bench: of the random order (1)\n"
	"  --no-lmdb         bench: this store alone\n"
	"  --same-id         restore: the same database, not a new one made from it\n"
	"\nput and load create the file and the bucket when absent.  Commands that only read work beside the "
	"process that\n"
	"writes.  Exit status: 0 done, 1 failure (or damage found), 2 usage, 3 not found, 4 conflict.\n";

static void usage(FILE *to)
{
	fputs("Usage: bts COMMAND [options] FILE ...\n\nCommands:\n", to);
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(to, "  %-8s %-24s %s\n", commands[i].name, commands[i].arguments, commands[i].does);
	fputs(option_help, to);
}

static int refuse(const struct command *command, const char *format, const char *word)
{
	fprintf(stderr, "bts%s%s: ", command ? " " : "", command ? command->name : "");
	fprintf(stderr, format, word);
	if (command)
		fprintf(stderr, "\nusage: bts %s [options] %s\n", command->name, command->arguments);
	else
		fputs("\nbts --help lists the commands\n", stderr);
	return BTS_EXIT_USAGE;
}

static bool number(const char *word, uint64_t least, uint64_t most, uint64_t *out)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(word, &end, 10);
	if (errno || *end || word[0] < '0' || word[0] > '9' || value < least || value > most)
		return false;
	*out = value;
	return true;
}

static bool page_size(const char *word, uint64_t *out)
{
	return number(word, BTS_PAGE_SIZE_MIN, BTS_PAGE_SIZE_MAX, out) && (*out & (*out - 1)) == 0;
}

static bool set_flag(struct bts_args *args, int code)
{
	switch (code) {
	case OPTION_JSON:
		return args->json = true;
	case OPTION_BASE64:
		return args->base64 = true;
	case OPTION_NEW:
		return args->only_new = true;
	case OPTION_EXISTING:
		return args->only_existing = true;
	case OPTION_REVERSE:
		return args->reverse = true;
	case OPTION_SAME_ID:
		return args->same_id = true;
	case OPTION_NO_LMDB:
		return args->no_lmdb = true;
	case OPTION_BUCKETS:
		return args->buckets = true;
	default:
		return false;
	}
}

static bool set_word(struct bts_args *args, int code, const char *word)
{
	const char **place = code == OPTION_BUCKET   ? &args->bucket
			     : code == OPTION_SNAPSHOT ? &args->snapshot
			     : code == OPTION_PREFIX ? &args->prefix
			     : code == OPTION_FROM   ? &args->from
			     : code == OPTION_TO     ? &args->to
						     : NULL;

	if (place)
		*place = word;
	return place;
}

/* False: the argument of the option is not what it takes. */
static bool set_number(struct bts_args *args, int code, const char *word)
{
	switch (code) {
	case OPTION_LIMIT:
		return number(word, 1, UINT64_MAX, &args->limit);
	case OPTION_BATCH:
		return number(word, 1, 1000000, &args->batch);
	case OPTION_PAGE_SIZE:
		return page_size(word, &args->page_size);
	case OPTION_COUNT:
		return number(word, 1, 100000000, &args->count);
	case OPTION_KEY_SIZE:
		return number(word, 8, 511, &args->key_size); /* LMDB's own limit */
	case OPTION_VALUE_SIZE:
		return number(word, 0, 1 << 24, &args->value_size);
	case OPTION_PUTS:
		return number(word, 1, 1000000, &args->puts);
	case OPTION_ROUNDS:
		return number(word, 1, 99, &args->rounds);
	case OPTION_SECONDS:
		return number(word, 1, 3600, &args->seconds);
	case OPTION_SEED:
		return number(word, 0, UINT64_MAX, &args->seed);
	default:
		return false;
	}
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static bool takes(const struct command *command, int code)
{
	if (code == OPTION_JSON)
		return true;
	for (size_t i = 0; i < sizeof(command->takes) / sizeof(command->takes[0]); i++)
		if ((int)command->takes[i] == code)
			return true;
	return false;
}

static const char *option_name(int code)
{
	const struct option *option = options;

	while (option->name && option->val != code)
		option++;
	return option->name;
}

/* -1: go on; else the exit status. */
static int one_option(const struct command *command, struct bts_args *args, int code, const char *name)
{
	switch (code) {
	case OPTION_HELP:
		usage(stdout);
		return BTS_EXIT_OK;
	case OPTION_VERSION:
		printf("bts %s\n", bts_version());
		return BTS_EXIT_OK;
	case ':':
		return refuse(command, "option '%s' needs an argument", name);
	case '?':
		return refuse(command, "unknown option '%s'", name);
	}
	if (!takes(command, code))
		return refuse(command, "option '--%s' is not for this command", option_name(code));
	if (!set_flag(args, code) && !set_word(args, code, optarg) && !set_number(args, code, optarg))
		return refuse(command, "'%s' is not a number this option takes", optarg);
	return -1;
}

int main(int argc, char **argv)
{
	const struct command *command = argc > 1 ? find_command(argv[1]) : NULL;
	struct bts_args args = {.batch = 1000,
		.count = 200000,
		.key_size = 16,
		.value_size = 100,
		.puts = 300,
		.rounds = 3,
		.seconds = 1,
		.seed = 1};
	int code, status;

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "--version") == 0))
		return one_option(NULL, &args, argv[1][2] == 'h' ? OPTION_HELP : OPTION_VERSION, NULL);
	if (!command)
		return argc > 1 ? refuse(NULL, "unknown command '%s'", argv[1])
				: refuse(NULL, "%s", "a command is needed");
	args.command = command->name;
	argc--;
	argv++;
	while ((code = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		status = one_option(command, &args, code, argv[optind - 1]);
		if (status >= 0)
			return status;
	}
	if (optind == argc)
		return refuse(command, "%s", "FILE is missing");
	args.file = argv[optind];
	args.words = argv + optind + 1;
	args.word_count = argc - optind - 1;
	if (args.word_count < command->words_min)
		return refuse(command, "%s", "an argument is missing");
	if (args.word_count > command->words_max)
		return refuse(command, "one argument too many: '%s'", args.words[command->words_max]);
	/* A size limit of the process shall be an error of the write, like a full disk, not its death. */
	signal(SIGXFSZ, SIG_IGN);
	return bts_tool_finish(&args, command->run(&args));
}
