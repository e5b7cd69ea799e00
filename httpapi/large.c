/* Large values verified and looked at in steps. */
#include "large.h"

#include "text.h"

void large_begin(struct large *l, struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key)
{
	*l = (struct large){.txn = txn, .bucket = bucket, .key = key, .plain = 1};
}

/* A step's bytes, ending where a character does, if the bytes are text at all. */
static size_t large_piece(const struct large *l)
{
	const unsigned char *at = (const unsigned char *)l->value.data + l->looked;
	size_t n = l->value.size - l->looked;
	int back;

	if (n <= LARGE_STEP)
		return n;
	n = LARGE_STEP;
	for (back = 0; back < 3 && (at[n] & 0xc0) == 0x80; back++)
		n--;
	return n;
}

int large_step(struct large *l)
{
	size_t n;

	if (!l->value.data) {
		l->err = bts_get_bounded(l->txn, l->bucket, l->key, LARGE_STEP, &l->verified, &l->value);
		return !l->err;
	}
	n = large_piece(l);
	l->plain = text_utf8_plain((const char *)l->value.data + l->looked, n);
	l->looked += n;
	return l->plain && l->looked < l->value.size;
}
