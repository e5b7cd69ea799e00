/* When commits were made: see ages.h. */
#include "ages.h"

void ages_note(struct ages *ages, bts_txid txid, uint64_t now_ms)
{
	const struct ages_entry *last = &ages->entries[(ages->first + ages->count - 1) % AGES_MAX];

	if (ages->count && (last->txid >= txid || now_ms - last->ms < AGES_STEP_MS))
		return;
	if (ages->count == AGES_MAX)
		ages->first++;
	else
		ages->count++;
	ages->entries[(ages->first + ages->count - 1) % AGES_MAX] = (struct ages_entry){txid, now_ms};
}

uint64_t ages_after(const struct ages *ages, bts_txid txid, uint64_t now_ms)
{
	uint64_t since = ages->since_ms;

	for (size_t i = 0; i < ages->count; i++) {
		const struct ages_entry *entry = &ages->entries[(ages->first + i) % AGES_MAX];

		since = entry->ms;
		if (entry->txid > txid)
			break;
	}
	return now_ms > since ? now_ms - since : 0;
}
