/* Texts of settings into values. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>

#include "position.h"
#include "settings_private.h"

struct settings_unit {
	const char *name;
	uint64_t factor;
};

static const struct settings_unit settings_bytes_units[] = {{"", 1}, {"K", UINT64_C(1) << 10},
	{"M", UINT64_C(1) << 20}, {"G", UINT64_C(1) << 30}, {"T", UINT64_C(1) << 40}, {0}};
static const struct settings_unit settings_duration_units[] = {
	{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {0}};

static bool settings_parse_units(const char *text, const struct settings_unit *units, uint64_t *value)
{
	size_t digits = strspn(text, "0123456789");
	char number[21];

	if (!digits || digits >= sizeof(number))
		return false;
	memcpy(number, text, digits);
	number[digits] = '\0';
	for (; units->name && strcmp(units->name, text + digits); units++)
		;
	if (!units->name || !position_number_parse(number, UINT64_MAX / units->factor, value))
		return false;
	*value *= units->factor;
	return true;
}

/* With the largest unit that divides it. */
static void settings_units_text(uint64_t value, const struct settings_unit *units, char *out, size_t size)
{
	const struct settings_unit *best = units;

	for (; units->name; units++)
		if (value && value % units->factor == 0)
			best = units;
	snprintf(out, size, "%" PRIu64 "%s", value / best->factor, best->name);
}

static int settings_range(const struct settings_row *row, const char *text, const struct settings_unit *units,
	uint64_t *field, char *why, size_t size)
{
	char least[24], most[24];
	uint64_t value;

	if (settings_parse_units(text, units, &value) && value >= row->least && value <= row->most) {
		*field = value;
		return 0;
	}
	settings_units_text(row->least, units, least, sizeof(least));
	settings_units_text(row->most, units, most, sizeof(most));
	snprintf(why, size, "%s from %s to %s",
		units == settings_bytes_units ? "a number of bytes" : "a duration", least, most);
	return -1;
}

static int settings_number(
	const struct settings_row *row, const char *text, uint64_t *field, char *why, size_t size)
{
	uint64_t value;

	if (position_number_parse(text, row->most, &value) && value >= row->least) {
		*field = value;
		return 0;
	}
	snprintf(why, size, "a number from %" PRIu64 " to %" PRIu64, row->least, row->most);
	return -1;
}

size_t settings_word(const char *words, unsigned i, const char **word)
{
	for (; i && words; i--) {
		words = strchr(words, '|');
		words += words != NULL;
	}
	*word = words;
	return words ? strcspn(words, "|") : 0;
}

static int settings_enum(
	const struct settings_row *row, const char *text, unsigned *field, char *why, size_t size)
{
	const char *word;
	unsigned i;
	size_t n;

	for (i = 0; (n = settings_word(row->words, i, &word)); i++) {
		if (n == strlen(text) && !memcmp(word, text, n)) {
			*field = i + (unsigned)row->least;
			return 0;
		}
	}
	snprintf(why, size, "one of %s", row->words);
	return -1;
}

static int settings_flag(const char *text, int *field, char *why, size_t size)
{
	static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
	unsigned i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(words[i], text)) {
			*field = i & 1;
			return 0;
		}
	}
	snprintf(why, size, "true or false");
	return -1;
}

/* Names are not looked up, but for localhost: what is served to whom must not depend on a name server. */
const char *settings_address_parse(const char *text, struct settings_address *out)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
			*found;
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;
	const char *begin = text;
	uint64_t port;
	char host[64];

	if (!n || !position_number_parse(colon + 1, 65535, &port))
		return "HOST:PORT";
	if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
		begin++;
		n -= 2;
	}
	if (n >= sizeof(host))
		return "HOST:PORT";
	memcpy(host, begin, n);
	host[n] = '\0';
	if (!strcmp(host, "*")) /* the library would take it for the loopback */
		return "HOST:PORT with a numeric address as HOST: 0.0.0.0 or [::] for all of this machine";
	if (!strcmp(host, "localhost"))
		strcpy(host, "127.0.0.1");
	if (getaddrinfo(host, colon + 1, &hints, &found))
		return "HOST:PORT with a numeric address as HOST";
	memset(out, 0, sizeof(*out));
	memcpy(&out->addr, found->ai_addr, found->ai_addrlen);
	out->size = found->ai_addrlen;
	out->text = text;
	freeaddrinfo(found);
	return NULL;
}

bool settings_address_loopback(const struct settings_address *address)
{
	if (address->addr.ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)&address->addr)->sin_addr.s_addr) >>
			       24 ==
		       127;
	return address->addr.ss_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)&address->addr)->sin6_addr);
}

static int settings_text(
	const struct settings_row *row, const char *text, void *field, char *why, size_t size)
{
	const char *wrong = row->kind == SETTINGS_KIND_PATH && !*text ? "a path" : NULL;

	if (!wrong && row->check)
		wrong = row->check(text);
	if (!wrong && row->kind == SETTINGS_KIND_ADDRESS)
		wrong = settings_address_parse(text, field);
	else if (!wrong)
		*(const char **)field = text;
	if (wrong)
		snprintf(why, size, "%s", wrong);
	return wrong ? -1 : 0;
}

int settings_value_parse(
	const struct settings_row *row, const char *text, void *target, char *why, size_t size)
{
	void *field = (char *)target + row->offset;

	switch (row->kind) {
	case SETTINGS_KIND_BYTES:
		return settings_range(row, text, settings_bytes_units, field, why, size);
	case SETTINGS_KIND_DURATION:
		return settings_range(row, text, settings_duration_units, field, why, size);
	case SETTINGS_KIND_NUMBER:
		return settings_number(row, text, field, why, size);
	case SETTINGS_KIND_ENUM:
		return settings_enum(row, text, field, why, size);
	case SETTINGS_KIND_FLAG:
		return settings_flag(text, field, why, size);
	default:
		return settings_text(row, text, field, why, size);
	}
}
