/* What a diff has to say, found the long way: both states read whole, and compared. */
#ifndef DIFF_BED_H
#define DIFF_BED_H

#include "bed.h"

#define DIFF_KEY_MAX 64u

struct diff_change {
	enum bts_change_kind kind;
	char bucket[DIFF_KEY_MAX], key[DIFF_KEY_MAX];
	uint64_t value_size, value_sum; /* of a put */
	bts_txid version;
};

struct diff_list {
	struct diff_change *items;
	size_t count, cap;
};

void diff_list_fini(struct diff_list *);
/* Expected: every bucket and entry of both, within the options.  older NULL: nothing. */
void diff_expected(
	struct bts_txn *older, struct bts_txn *newer, const struct bts_diff_options *, struct diff_list *);
/* What bts_diff_next gives from here on, at most `most` changes; the error that ended it. */
enum bts_err diff_collect(struct bts_diff *, size_t most, struct diff_list *);
/* Both lists the same from this place of the first on; fails the test otherwise. */
void diff_equal(const struct diff_list *expected, size_t from, const struct diff_list *found);

#endif
