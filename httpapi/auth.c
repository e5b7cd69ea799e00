/* Who may do what: the one place that decides it. */
#include "auth.h"

/* Without tokens only the loopback is listened on (config.c), and who reaches it may do everything. */
int auth_allows(const struct request *r, enum auth_scope scope, struct bts_slice bucket)
{
	(void)r;
	(void)scope;
	(void)bucket;
	return 1;
}
