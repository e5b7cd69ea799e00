/* Settings from command line, environment and file into a program's struct. */
#include "settings.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "settings_private.h"

/* Of our tests and tools, which run programs of ours with their own environment. */
static const char *const settings_others[] = {
	"BTS_BIN", "BTS_CONFIG", "BTS_KEEP", "BTS_KILLS", "BTS_ROUNDS", "BTS_SEED", "BTS_VERBOSE"};
#define SETTINGS_TEST_PREFIX "BTS_TEST_"

int settings_refuse(struct settings *s, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(s->why, sizeof(s->why), format, args);
	va_end(args);
	return -1;
}

char *settings_keep(struct settings *s, const char *text)
{
	size_t size = strlen(text) + 1;
	struct settings_kept *kept = malloc(sizeof(*kept) + size);

	if (!kept)
		return NULL;
	memcpy(kept->text, text, size);
	kept->next = s->kept;
	s->kept = kept;
	return kept->text;
}

void settings_fini(struct settings *s)
{
	struct settings_kept *kept;

	while ((kept = s->kept)) {
		s->kept = kept->next;
		free(kept);
	}
}

const struct settings_row *settings_find(const struct settings *s, const char *name, size_t size)
{
	size_t i;

	for (i = 0; i < s->count; i++)
		if (s->rows[i].name && strlen(s->rows[i].name) == size &&
			!memcmp(s->rows[i].name, name, size))
			return &s->rows[i];
	return NULL;
}

void settings_variable(const char *name, char out[SETTINGS_VARIABLE_SIZE])
{
	size_t i;

	snprintf(out, SETTINGS_VARIABLE_SIZE, "BTS_%s", name);
	for (i = 4; out[i]; i++)
		out[i] = out[i] == '-' ? '_'
				       : (char)(out[i] - (out[i] >= 'a' && out[i] <= 'z' ? 'a' - 'A' : 0));
}

/* ---- the command line ---- */

static int settings_take_word(struct settings *s, const char *word, bool *taken)
{
	size_t i;

	for (i = 0; i < s->count && !(s->rows[i].flags & SETTINGS_WORD); i++)
		;
	if (i == s->count || *taken)
		return settings_refuse(s, "unexpected argument '%s'", word);
	s->given[i].text[SETTINGS_COMMAND] = word;
	*taken = true;
	return 0;
}

/* What is no setting of the program: 1 when it was that. */
static int settings_take_own(struct settings *s, const char *name, size_t size)
{
	static const char *const names[] = {"help", "version", "check-config", "print-config"};
	bool *const asked[] = {&s->help, &s->tell_version, &s->check, &s->print};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i]) == size && !memcmp(names[i], name, size)) {
			*asked[i] = true;
			return 1;
		}
	}
	return 0;
}

/* --name value, --name=value, --name of a flag.  How many arguments it took, or -1. */
static int settings_take_option(struct settings *s, char **argv)
{
	const char *name = argv[0] + 2, *value = strchr(name, '=');
	size_t size = value ? (size_t)(value - name) : strlen(name);
	const struct settings_row *row = settings_find(s, name, size);
	bool file = size == 6 && !memcmp(name, "config", 6);

	if (!row && !file && !value && settings_take_own(s, name, size))
		return 1;
	if (!row && !file)
		return settings_refuse(s, "unknown option '%s'", argv[0]);
	if (value)
		value++;
	else
		value = row && row->kind == SETTINGS_KIND_FLAG ? "true" : argv[1];
	if (!value)
		return settings_refuse(s, "%s wants a value", argv[0]);
	if (file)
		s->file = value;
	else
		s->given[row - s->rows].text[SETTINGS_COMMAND] = value;
	return value == argv[1] ? 2 : 1;
}

static int settings_take_command(struct settings *s, int argc, char **argv)
{
	bool word = false, words = false;
	int i, n;

	for (i = 1; i < argc && !s->help && !s->tell_version; i += n) {
		n = 1;
		if (!words && !strcmp(argv[i], "--"))
			words = true;
		else if (!words && !strncmp(argv[i], "--", 2))
			n = settings_take_option(s, argv + i);
		else if (!words && argv[i][0] == '-' && argv[i][1])
			n = settings_refuse(s, "unknown option '%s'", argv[i]);
		else if (settings_take_word(s, argv[i], &word))
			return -1;
		if (n < 0)
			return -1;
	}
	return 0;
}

/* ---- the environment ---- */

static bool settings_variable_is_others(const char *variable)
{
	size_t i, size = strcspn(variable, "=");

	for (i = 0; i < sizeof(settings_others) / sizeof(settings_others[0]); i++)
		if (strlen(settings_others[i]) == size && !memcmp(settings_others[i], variable, size))
			return true;
	return !strncmp(variable, SETTINGS_TEST_PREFIX, strlen(SETTINGS_TEST_PREFIX));
}

static int settings_take_variable(struct settings *s, const char *variable)
{
	size_t i, size = strcspn(variable, "=");
	char name[SETTINGS_VARIABLE_SIZE];

	for (i = 0; i < s->count; i++) {
		if (!s->rows[i].name)
			continue;
		settings_variable(s->rows[i].name, name);
		if (strlen(name) == size && !memcmp(name, variable, size)) {
			s->given[i].text[SETTINGS_ENVIRONMENT] =
				variable[size] && variable[size + 1] ? variable + size + 1 : NULL;
			return 0;
		}
	}
	if (settings_variable_is_others(variable))
		return 0;
	return settings_refuse(
		s, "the environment variable %.*s is no setting of %s", (int)size, variable, s->program);
}

static int settings_take_environment(struct settings *s, char **environment)
{
	for (; *environment; environment++) {
		if (strncmp(*environment, "BTS_", 4))
			continue;
		if (!strncmp(*environment, "BTS_CONFIG=", 11) && !s->file && (*environment)[11])
			s->file = *environment + 11;
		else if (settings_take_variable(s, *environment))
			return -1;
	}
	return 0;
}

/* ---- all of it ---- */

static int settings_refuse_value(
	struct settings *s, const struct settings_row *row, enum settings_origin origin, const char *right)
{
	const struct settings_given *given = &s->given[row - s->rows];
	const char *text = row->flags & SETTINGS_SECRET ? "..." : given->text[origin];
	char variable[SETTINGS_VARIABLE_SIZE];

	settings_variable(row->name, variable);
	if (origin == SETTINGS_FILE)
		return settings_refuse(
			s, "%s:%u: %s '%s': must be %s", s->file, given->line, row->name, text, right);
	if (origin == SETTINGS_ENVIRONMENT)
		return settings_refuse(s, "%s '%s': must be %s", variable, text, right);
	return settings_refuse(s, "--%s '%s': must be %s", row->name, text, right);
}

/* From the weakest origin to the strongest, so that the strongest stays. */
static int settings_apply(struct settings *s, void *target)
{
	char right[SETTINGS_WHY_SIZE / 2];
	unsigned origin;
	size_t i;

	for (i = 0; i < s->count; i++) {
		s->given[i].text[SETTINGS_DEFAULT] = s->rows[i].fallback;
		for (origin = 0; origin < SETTINGS_ORIGINS; origin++)
			if (s->given[i].text[origin] &&
				settings_value_parse(
					&s->rows[i], s->given[i].text[origin], target, right, sizeof(right)))
				return settings_refuse_value(s, &s->rows[i], origin, right);
	}
	return 0;
}

int settings_read(struct settings *s, void *target, int argc, char **argv, char **environment)
{
	if (s->count > SETTINGS_MAX)
		return settings_refuse(s, "the table has more rows than SETTINGS_MAX");
	if (settings_take_command(s, argc, argv))
		return -1;
	if (s->help || s->tell_version)
		return 0;
	if (settings_take_environment(s, environment))
		return -1;
	if (s->file && settings_file_read(s))
		return -1;
	return settings_apply(s, target);
}

/* ---- reload ---- */

static bool settings_same(const struct settings_row *row, const void *a, const void *b)
{
	const char *x, *y;

	switch (row->kind) {
	case SETTINGS_KIND_BYTES:
	case SETTINGS_KIND_DURATION:
	case SETTINGS_KIND_NUMBER:
		return *(const uint64_t *)a == *(const uint64_t *)b;
	case SETTINGS_KIND_ENUM:
	case SETTINGS_KIND_FLAG:
		return *(const unsigned *)a == *(const unsigned *)b;
	default: /* an address begins with its text */
		x = *(const char *const *)a;
		y = *(const char *const *)b;
		return x && y ? !strcmp(x, y) : x == y;
	}
}

static void settings_take_over(const struct settings_row *row, void *to, const void *from)
{
	switch (row->kind) {
	case SETTINGS_KIND_BYTES:
	case SETTINGS_KIND_DURATION:
	case SETTINGS_KIND_NUMBER:
		__atomic_store_n((uint64_t *)to, *(const uint64_t *)from, __ATOMIC_RELAXED);
		break;
	case SETTINGS_KIND_ENUM:
	case SETTINGS_KIND_FLAG:
		__atomic_store_n((unsigned *)to, *(const unsigned *)from, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_store_n((const char **)to, *(const char *const *)from, __ATOMIC_RELEASE);
		break;
	}
}

unsigned settings_adopt(struct settings *live, void *target, struct settings *fresh, const void *fresh_target,
	char *needs_restart, size_t size)
{
	struct settings_kept **last = &fresh->kept;
	unsigned changed = 0;
	size_t i, used = 0;

	*needs_restart = '\0';
	for (i = 0; i < live->count; i++) {
		const struct settings_row *row = &live->rows[i];
		void *to = (char *)target + row->offset;
		const void *from = (const char *)fresh_target + row->offset;

		if (!row->name || settings_same(row, to, from))
			continue;
		if ((row->flags & SETTINGS_RELOAD) && row->kind != SETTINGS_KIND_ADDRESS) {
			settings_take_over(row, to, from);
			live->given[i] = fresh->given[i];
			changed++;
		} else if (used < size) {
			used += (size_t)snprintf(
				needs_restart + used, size - used, "%s%s", used ? "," : "", row->name);
		}
	}
	while (*last)
		last = &(*last)->next;
	*last = live->kept;
	live->kept = fresh->kept;
	fresh->kept = NULL;
	return changed;
}
