/* Points in time as a person writes and reads them. */
#include "when.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WHEN_YEAR_10000 INT64_C(253402300800) /* seconds */

void when_text(uint64_t ms, char out[WHEN_TEXT_SIZE])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm utc;
	size_t size;

	snprintf(out, WHEN_TEXT_SIZE, "-");
	if (seconds >= WHEN_YEAR_10000 || !gmtime_r(&seconds, &utc))
		return;
	size = strftime(out, WHEN_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(out + size, WHEN_TEXT_SIZE - size, ".%03uZ", (unsigned)(ms % 1000));
}

/* "Z" or "+HH:MM", in seconds; false: neither. */
static bool when_offset(const char *text, int64_t *seconds)
{
	unsigned hours, minutes;
	int end = 0;
	char sign;

	*seconds = 0;
	if (!strcmp(text, "Z") || !strcmp(text, "z"))
		return true;
	if (sscanf(text, "%c%2u:%2u%n", &sign, &hours, &minutes, &end) != 3 || text[end] || end != 6 ||
		hours > 23 || minutes > 59 || (sign != '+' && sign != '-'))
		return false;
	*seconds = (int64_t)(hours * 3600 + minutes * 60) * (sign == '+' ? 1 : -1);
	return true;
}

static bool when_instant(const char *text, uint64_t *ms)
{
	struct tm utc = {.tm_isdst = 0};
	const char *at = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
	int64_t offset, seconds;
	unsigned part = 0, scale = 100;
	int day;

	if (!at)
		at = strptime(text, "%Y-%m-%d %H:%M:%S", &utc);
	if (!at)
		return false;
	if (*at == '.') {
		if (!isdigit((unsigned char)*++at))
			return false;
		for (; isdigit((unsigned char)*at); at++, scale /= 10)
			part += scale * (unsigned)(*at - '0');
	}
	day = utc.tm_mday;
	seconds = timegm(&utc);
	if (utc.tm_mday != day) /* there is no such one in that month */
		return false;
	if (!when_offset(at, &offset) || seconds - offset < 0 || seconds >= WHEN_YEAR_10000)
		return false;
	*ms = (uint64_t)(seconds - offset) * 1000 + part;
	return true;
}

static bool when_age(const char *text, uint64_t *ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	unsigned long long count;
	char *end;

	if (!isdigit((unsigned char)*text) || strlen(text) > 12)
		return false;
	count = strtoull(text, &end, 10);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(end, units[i].name)) {
			*ms = count * units[i].ms;
			return true;
		}
	return false;
}

bool when_parse(const char *text, uint64_t now_ms, uint64_t *ms)
{
	uint64_t age;

	if (when_instant(text, ms))
		return true;
	if (!when_age(text, &age))
		return false;
	*ms = age < now_ms ? now_ms - age : 0;
	return true;
}

uint64_t when_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
