/* Accept headers. */
#include "accept.h"

#include <string.h>
#include <strings.h>

static const char *accept_skip(const char *at)
{
	return at + strspn(at, " \t");
}

/* From the value of a parameter, which may be a quoted string with anything in it, to what ends it: `;`, `,` or the end. */
static const char *accept_past_value(const char *at)
{
	if (*at == '"') {
		for (at++; *at && *at != '"'; at++)
			at += *at == '\\' && at[1];
		at += *at == '"';
	}
	return at + strcspn(at, ";,");
}

/* Of "q=0", "q=0.000": a weight of nothing. */
static int accept_is_zero(const char *weight)
{
	const char *at = weight + (*weight == '0');

	if (at > weight && *at == '.')
		at += 1 + strspn(at + 1, "0");
	at = accept_skip(at);
	return *weight == '0' && (!*at || *at == ',' || *at == ';');
}

int accept_names(const char *header, const char *type)
{
	const char *at = header ? header : "";
	size_t size = strlen(type);

	while (*(at = at + strspn(at, " \t,"))) {
		size_t n = strcspn(at, " \t;,");
		int is = n == size && !strncasecmp(at, type, n);

		at += n;
		at += strcspn(at, ";,");
		while (*at == ';') {
			at = accept_skip(at + 1);
			if ((*at == 'q' || *at == 'Q') && at[1] == '=' && accept_is_zero(at + 2))
				is = 0;
			n = strcspn(at, "=;,");
			at += n;
			at = accept_past_value(at + (*at == '='));
		}
		if (is)
			return 1;
	}
	return 0;
}
