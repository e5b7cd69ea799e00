/*
 * States of change feeds: which are kept for bookmarks, and for how long.
 *
 * A kept state is a reader's snapshot: it costs the pages that have changed since, and each is one more to be looked at by whoever
 * frees pages.  So they are few: under steady change a new one is kept only every so often that all of them together reach
 * back as far as they may be old; after a pause, at once.
 *
 * Besides these, who asks for a bookmark of the very state of now (the end of a poll, a heartbeat) has it kept in his own name.  When
 * there are too many, those go first as long as they are more than their part, of whoever has the most of them: so who polls in a
 * hurry takes away his own bookmarks, and not those of others.
 */
#include <stdlib.h>
#include <string.h>

#include "role.h"
#include "text.h"
#include "watch_internal.h"

#define ROOT_BOOKMARK 25 /* bytes: version, random, serial, txid */
#define ROOT_SHARES (2 * WATCH_KEPT_MAX)

struct watch_root *watch_root_ref(struct watch_root *root)
{
	if (root)
		root->refs++;
	return root;
}

void watch_root_drop(struct watch *watch, struct watch_root **at)
{
	struct watch_root *root = *at;

	(void)watch;
	*at = NULL;
	if (!root || --root->refs)
		return;
	*root->link = root->next;
	if (root->next)
		root->next->link = root->link;
	bts_abort(root->txn);
	free(root);
}

struct watch_root *watch_root_new(struct watch *watch, struct bts_txn *txn)
{
	struct watch_root *root = calloc(1, sizeof(*root));

	if (!root) {
		bts_abort(txn);
		return NULL;
	}
	root->txn = txn;
	root->txid = bts_txn_id(txn);
	root->serial = ++watch->serial;
	root->refs = 1;
	root->next = watch->roots;
	root->link = &watch->roots;
	if (root->next)
		root->next->link = &root->next;
	watch->roots = root;
	return root;
}

static void root_unkeep(struct watch *watch, struct watch_root *before)
{
	struct watch_root **link = before ? &before->kept_next : &watch->kept_first, *root = *link;

	*link = root->kept_next;
	if (watch->kept_last == root)
		watch->kept_last = before;
	root->kept_next = NULL;
	root->kept = 0;
	watch->kept_count--;
	watch_root_drop(watch, &root);
}

static void root_unkeep_oldest(struct watch *watch)
{
	root_unkeep(watch, NULL);
}

struct root_share {
	uint64_t owner; /* 0: free */
	unsigned count;
};

/* How many are kept in whose name, by open addressing; the sum. */
static unsigned root_shares(const struct watch *watch, struct root_share shares[ROOT_SHARES])
{
	const struct watch_root *root;
	unsigned i, sum = 0;

	memset(shares, 0, ROOT_SHARES * sizeof(*shares));
	for (root = watch->kept_first; root; root = root->kept_next) {
		if (!root->owner)
			continue;
		for (i = root->owner % ROOT_SHARES; shares[i].owner && shares[i].owner != root->owner; i = (i + 1) % ROOT_SHARES)
			;
		shares[i].owner = root->owner;
		shares[i].count++;
		sum++;
	}
	return sum;
}

static unsigned root_share(const struct root_share shares[ROOT_SHARES], uint64_t owner)
{
	unsigned i = owner % ROOT_SHARES;

	while (shares[i].owner && shares[i].owner != owner)
		i = (i + 1) % ROOT_SHARES;
	return shares[i].count;
}

static void root_evict(struct watch *watch)
{
	struct root_share shares[ROOT_SHARES];
	struct watch_root *root, *last = NULL, *before = NULL;
	unsigned most = 0;

	if (root_shares(watch, shares) > WATCH_KEPT_ASKED) {
		for (root = watch->kept_first; root; last = root, root = root->kept_next) {
			if (!root->owner || root_share(shares, root->owner) <= most)
				continue;
			most = root_share(shares, root->owner);
			before = last;
		}
	}
	root_unkeep(watch, before);
}

int watch_root_affords(struct watch *watch, uint64_t now_ms)
{
	uint64_t each = watch->retain_ms / (WATCH_KEPT_MAX - WATCH_KEPT_ASKED) + 1, passed = (now_ms - watch->tokens_ms) * 1000;

	watch->tokens += passed / each;
	if (passed >= each)
		watch->tokens_ms = now_ms - passed % each / 1000; /* what makes no whole one yet counts the next time */
	if (watch->tokens > WATCH_BURST * 1000)
		watch->tokens = WATCH_BURST * 1000;
	return watch->tokens >= 1000;
}

/* One that several want is in the name of whom it weighs least. */
static void root_share_in(struct watch *watch, struct watch_root *root, uint64_t owner)
{
	struct root_share shares[ROOT_SHARES];

	if (!root->owner || root->owner == owner)
		return;
	if (owner) {
		root_shares(watch, shares);
		if (root_share(shares, owner) >= root_share(shares, root->owner))
			return;
	}
	root->owner = owner;
}

void watch_root_keep(struct watch *watch, struct watch_root *root, uint64_t owner, uint64_t now_ms)
{
	if (root->kept)
		root_share_in(watch, root, owner);
	if (root->kept || root->expired)
		return;
	if (!owner)
		watch->tokens -= watch->tokens < 1000 ? watch->tokens : 1000;
	root->kept = 1;
	root->owner = owner;
	root->kept_ms = now_ms;
	root->refs++;
	if (watch->kept_last)
		watch->kept_last->kept_next = root;
	else
		watch->kept_first = root;
	watch->kept_last = root;
	if (++watch->kept_count > WATCH_KEPT_MAX)
		root_evict(watch);
}

void watch_root_age(struct watch *watch, uint64_t now_ms)
{
	bts_txid newest = role_txid(watch->role);

	/* One that still is the newest state costs nothing. */
	while (watch->kept_first &&
		(watch->kept_first->expired || (watch->kept_first->txid != newest &&
						       watch_is_past(watch->kept_first->kept_ms, watch->retain_ms, now_ms))))
		root_unkeep_oldest(watch);
}

void watch_root_expire_all(struct watch *watch)
{
	struct watch_root *root;

	while (watch->kept_first)
		root_unkeep_oldest(watch);
	for (root = watch->roots; root; root = root->next)
		root->expired = 1;
}

void watch_root_clear(struct watch *watch, struct watch_wakes *wakes)
{
	struct watch_channel *channel;

	while (watch->kept_first)
		root_unkeep_oldest(watch);
	for (channel = watch->channels; channel; channel = channel->next) {
		while (channel->first)
			watch_trim(watch, channel);
		while (channel->filter.form == WATCH_JSON && channel->idle) {
			channel->idle->timed_out = 1;
			watch_root_keep(watch, watch->live, channel->idle->owner, role_clock_ms());
			watch_wake_to_live(watch, channel->idle, wakes);
		}
	}
	watch->clearing = 0;
}

static void root_measured(void *arg, const struct bts_reader_info *info)
{
	struct watch *watch = arg;
	struct watch_root *root;

	if (!info->own)
		return;
	pthread_mutex_lock(&watch->lock);
	for (root = watch->roots; root; root = root->next)
		if (root->txid == info->txid)
			root->held_pages = info->expired ? UINT64_MAX : info->held_pages; /* it was told to end */
	pthread_mutex_unlock(&watch->lock);
}

void watch_root_measure(struct watch *watch)
{
	struct watch_root *root;

	if (!watch->db || bts_readers(watch->db, root_measured, watch, NULL))
		return; /* the next look will tell */
	pthread_mutex_lock(&watch->lock);
	for (root = watch->roots; root; root = root->next)
		if (root->held_pages > watch->retain_pages && root != watch->live)
			root->expired = 1;
	watch_root_age(watch, role_clock_ms());
	pthread_mutex_unlock(&watch->lock);
}

static void root_put(uint8_t *bytes, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t root_get(const uint8_t *bytes)
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value |= (uint64_t)bytes[i] << 8 * i;
	return value;
}

void watch_root_bookmark(
	const struct watch *watch, const struct watch_root *root, char text[WATCH_BOOKMARK_MAX])
{
	uint8_t bytes[ROOT_BOOKMARK] = {1};
	struct buf b = {0};

	root_put(bytes + 1, watch->random);
	root_put(bytes + 9, root->serial);
	root_put(bytes + 17, root->txid);
	text_base64url(&b, bytes, sizeof(bytes));
	text[0] = '\0';
	if (!b.failed && b.size < WATCH_BOOKMARK_MAX) {
		memcpy(text, b.data, b.size);
		text[b.size] = '\0';
	}
	buf_fini(&b);
}

struct watch_root *watch_root_find(struct watch *watch, struct bts_slice text, int *malformed)
{
	uint8_t bytes[WATCH_BOOKMARK_MAX + 3];
	struct watch_root *root;

	*malformed = text.size >= WATCH_BOOKMARK_MAX ||
		     text_base64url_decode(text.data, text.size, bytes) != ROOT_BOOKMARK || bytes[0] != 1;
	if (*malformed || root_get(bytes + 1) != watch->random)
		return NULL;
	for (root = watch->kept_first; root; root = root->kept_next)
		if (root->serial == root_get(bytes + 9) && root->txid == root_get(bytes + 17) &&
			!root->expired)
			return watch_root_ref(root);
	return NULL;
}
