/* btsd token: tokens of a file, without a server. */
#include "token_command.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "keyring.h"
#include "text.h"

static const char token_help[] =
	"Usage: btsd token create --token-file FILE --scope SCOPE[,SCOPE] [OPTION...]\n"
	"       btsd token list   --token-file FILE\n"
	"       btsd token revoke --token-file FILE ID...\n"
	"Who shows a token may do what its scopes say.  A server that runs with this file takes changes up "
	"within a second.\n"
	"\n"
	"  --token-file FILE    of their sums; made when absent, its mode is 0600\n"
	"  --scope SCOPE        read, write, admin (which includes all), replicate, elect: several with commas\n"
	"  --bucket PATTERN     only these buckets: names, or prefixes (\"logs*\"), percent-encoded; several "
	"with commas, or again\n"
	"                       (default: all; for read and write only)\n"
	"  --expires DURATION   from now on, as 90d, 12h (default: never)\n"
	"  --name NAME          for people: letters, digits, '.', '-', '_'\n"
	"  --certificate SUM    no token, but the client certificate of this SHA-256 fingerprint (64 hex "
	"digits, colons are fine)\n"
	"\n"
	"create prints the token, once: only its sum is kept.  Exit status: 0, 1 failure, 2 usage, 3 no such "
	"token.\n";

struct token_wish {
	const char *file;
	struct keyring_entry entry;
	int certificate;
};

static int token_usage(const char *format, const char *what)
{
	fputs("btsd token: ", stderr);
	fprintf(stderr, format, what);
	fputs("\nTry 'btsd token --help'.\n", stderr);
	return 2;
}

static int token_fail(enum bts_err err, const struct bts_error *error)
{
	fprintf(stderr, "btsd token: %s\n", error->text);
	return err == BTS_NOT_FOUND ? 3 : err == BTS_INVALID ? 2 : 1;
}

/* "AA:BB:..." or "aabb..." of 32 bytes. */
static int token_fingerprint(const char *text, uint8_t sum[KEYRING_SUM])
{
	static const char digits[] = "0123456789abcdefABCDEF";
	unsigned n = 0;

	memset(sum, 0, KEYRING_SUM);
	for (; *text; text++) {
		const char *at = strchr(digits, *text);
		unsigned value;

		if (*text == ':')
			continue;
		if (!at || n == 2 * KEYRING_SUM)
			return -1;
		value = (unsigned)(at - digits);
		sum[n / 2] |= (uint8_t)((value < 16 ? value : value - 6) << (n % 2 ? 0 : 4));
		n++;
	}
	return n == 2 * KEYRING_SUM ? 0 : -1;
}

static int token_add_buckets(struct keyring_entry *entry, const char *buckets)
{
	size_t used = strlen(entry->buckets);

	if (used + strlen(buckets) + 2 > sizeof(entry->buckets) || !keyring_buckets_valid(buckets))
		return -1;
	snprintf(entry->buckets + used, sizeof(entry->buckets) - used, "%s%s", used ? "," : "", buckets);
	return 0;
}

/* -1: go on. */
static int token_option(struct token_wish *w, int option, const char *value)
{
	switch (option) {
	case 'f':
		w->file = value;
		return -1;
	case 's':
		return keyring_scopes_parse(value, &w->entry.scopes)
			       ? -1
			       : token_usage("--scope is of read, write, admin, replicate, elect, not '%s'", value);
	case 'b':
		return token_add_buckets(&w->entry, value)
			       ? token_usage(
					 "--bucket: '%s' is no list of names or prefixes, or too long", value)
			       : -1;
	case 'e':
		return keyring_expiry_parse(value, &w->entry.expires_s)
			       ? -1
			       : token_usage("--expires is a duration as 90d or 12h, not '%s'", value);
	case 'n':
		if (!*value || !keyring_name_valid(value))
			return token_usage(
				"--name: '%s' is not 1 to 63 of letters, digits, '.', '-', '_'", value);
		snprintf(w->entry.name, sizeof(w->entry.name), "%s", value);
		return -1;
	case 'c':
		w->certificate = w->entry.certificate = 1;
		return token_fingerprint(value, w->entry.sum)
			       ? token_usage("--certificate: '%s' is no SHA-256 fingerprint", value)
			       : -1;
	case 'h':
		fputs(token_help, stdout);
		return 0;
	default:
		fputs("Try 'btsd token --help'.\n", stderr);
		return 2;
	}
}

static int token_create(struct token_wish *w)
{
	char token[KEYRING_TOKEN_SIZE], id[KEYRING_ID_SIZE];
	struct bts_error error = {0};
	enum bts_err err;

	if (!w->entry.scopes)
		return token_usage("%s is missing", "--scope");
	if (!w->entry.buckets[0])
		strcpy(w->entry.buckets, "*");
	if (!keyring_limit_fits(&w->entry))
		return token_usage(
			"--bucket is for %s only: the others are for all of the file", "read and write");
	w->entry.created_s = (uint64_t)time(NULL);
	err = w->certificate ? keyring_add(w->file, &w->entry, &error)
			     : keyring_create(w->file, &w->entry, token, &error);
	if (err)
		return token_fail(err, &error);
	keyring_id(w->entry.sum, id);
	fprintf(stderr, "btsd token: %s may %s\n", id,
		w->certificate ? "ask, by its certificate" : "ask, by this token, shown once:");
	puts(w->certificate ? id : token);
	return fflush(stdout) ? 1 : 0;
}

static void token_print_time(uint64_t seconds)
{
	time_t when = (time_t)seconds;
	struct tm utc;
	char text[32];

	if (seconds && gmtime_r(&when, &utc) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc))
		printf("\t%s", text);
	else
		fputs("\tnever", stdout);
}

static int token_list(const char *file)
{
	char id[KEYRING_ID_SIZE], scopes[KEYRING_SCOPES_SIZE];
	struct bts_error error = {0};
	struct keyring_list list;
	enum bts_err err = keyring_load(file, &list, &error);

	if (err)
		return token_fail(err, &error);
	puts("ID\tSCOPES\tBUCKETS\tCREATED\tEXPIRES\tNAME");
	for (size_t i = 0; i < list.count; i++) {
		const struct keyring_entry *e = &list.entries[i];

		keyring_id(e->sum, id);
		keyring_scopes_text(e->scopes, scopes);
		printf("%s\t%s\t%s", id, scopes, e->buckets);
		token_print_time(e->created_s);
		token_print_time(e->expires_s);
		printf("\t%s\n", e->name[0] ? e->name : "-");
	}
	keyring_list_free(&list);
	return fflush(stdout) ? 1 : 0;
}

static int token_revoke(const char *file, char **ids)
{
	struct bts_error error = {0};

	if (!*ids)
		return token_usage("say %s", "which, by its ID");
	for (; *ids; ids++) {
		enum bts_err err = keyring_revoke(file, *ids, &error);

		if (err)
			return token_fail(err, &error);
	}
	return 0;
}

int token_command(int argc, char **argv)
{
	static const struct option options[] = {
		{"token-file", required_argument, NULL, 'f'},
		{"scope", required_argument, NULL, 's'},
		{"bucket", required_argument, NULL, 'b'},
		{"expires", required_argument, NULL, 'e'},
		{"name", required_argument, NULL, 'n'},
		{"certificate", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct token_wish w = {.file = NULL};
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		status = token_option(&w, option, optarg);
		if (status != -1)
			return status;
	}
	if (optind == argc)
		return token_usage("say %s", "create, list or revoke");
	if (!w.file)
		return token_usage("%s is missing", "--token-file FILE");
	if (!strcmp(argv[optind], "revoke"))
		return token_revoke(w.file, argv + optind + 1);
	if (optind + 1 < argc)
		return token_usage("unexpected argument '%s'", argv[optind + 1]);
	if (!strcmp(argv[optind], "create"))
		return token_create(&w);
	if (!strcmp(argv[optind], "list"))
		return token_list(w.file);
	return token_usage("'%s' is no command", argv[optind]);
}
