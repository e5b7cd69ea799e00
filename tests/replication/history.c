/* The black-box judge of list appends. */
#include "history.h"

#include <string.h>

static bool history_fits(struct history *history, unsigned list, const uint32_t *items, uint32_t count)
{
	uint32_t *longest = history->items[list],
		 both = count < history->counts[list] ? count : history->counts[list];

	if (count > HISTORY_ITEMS || memcmp(longest, items, both * sizeof(*items)) != 0)
		return false;
	if (count > history->counts[list]) {
		memcpy(longest, items, count * sizeof(*items));
		history->counts[list] = count;
	}
	return true;
}

const char *history_acknowledge(struct history *history, unsigned list, const uint32_t *items, uint32_t count)
{
	if (!history_fits(history, list, items, count))
		return "an append was acknowledged behind a list that is not the one";
	if (count > history->acknowledged[list])
		history->acknowledged[list] = count;
	return NULL;
}

const char *history_read(
	struct history *history, unsigned place, unsigned list, const uint32_t *items, uint32_t count)
{
	if (!history_fits(history, list, items, count))
		return "a list was read that is no beginning of the longest one";
	if (count < history->seen[place][list])
		return "a list got shorter";
	history->seen[place][list] = count;
	return NULL;
}

const char *history_last(
	struct history *history, unsigned place, unsigned list, const uint32_t *items, uint32_t count)
{
	const char *wrong = history_read(history, place, list, items, count);

	if (!wrong && count < history->acknowledged[list])
		wrong = "an acknowledged append is lost";
	return wrong;
}
