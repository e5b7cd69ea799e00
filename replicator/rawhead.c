/* What the HTTP library has hidden of a request's head. */
#include "rawhead.h"

#include <string.h>

#define RAWHEAD_LINE_END 2 /* CR LF, each of which has become a zero byte */

void rawhead_begin(struct rawhead *head, const char *url, size_t target_size, const char *version)
{
	head->odd = url + target_size + 1 != version;
	head->next = version + strlen(version) + RAWHEAD_LINE_END;
}

void rawhead_field(struct rawhead *head, const char *name, const char *value, size_t size)
{
	head->odd |= name != head->next;
	head->next = value + size + RAWHEAD_LINE_END;
}

bool rawhead_is_odd(const struct rawhead *head, const char *method, size_t head_size)
{
	return head->odd || head->next + RAWHEAD_LINE_END != method + head_size;
}
