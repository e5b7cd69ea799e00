/* The settings of automatic failover: see failover_run.h. */
#include <stdlib.h>

#include "etcd.h"
#include "failover_run.h"
#include "sources.h"

const char *failover_check_place(const char *text)
{
	struct etcd_place place;

	return etcd_parse(text, &place);
}

const char *failover_check_members(const char *text)
{
	struct elect *elect = malloc(sizeof(*elect));
	bool wrong = elect && elect_init(elect, text, 0, NULL);

	free(elect);
	return wrong ? "http://HOST:PORT of each other node, with commas between" : NULL;
}

const char *failover_check_source(const char *text)
{
	struct sources sources;

	return sources_parse(&sources, text, NULL) || sources.count != 1 ? "one http://HOST:PORT" : NULL;
}

const char *failover_fits(const struct failover_settings *s)
{
	unsigned count = 1;

	if (!s->place)
		return s->members || s->advertise || s->survive
			       ? "--failover-members, --survive and --advertise are for --failover"
			       : NULL;
	if (!s->members || !*s->members)
		return "--failover needs --failover-members: whom to ask in an election";
	if (!s->survive)
		return "--failover needs --survive K of at least 1: with 0 every node would have to answer "
		       "an election, and the one that died does not";
	for (const char *at = s->members; *at; at++)
		count += *at == ',';
	if (s->survive > count)
		return "--survive is more than there are --failover-members";
	return NULL;
}
