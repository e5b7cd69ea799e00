/* What other processes put into an archive. */
#include "archive_other.h"

#include "cmocka.h"

#include <stdlib.h>

#include "catalog.h"

void other_prune(struct store *store, const struct bts_position *at)
{
	struct catalog_floor floor = {at->epoch, at->epoch_random, at->txid + 1};
	struct bts_slice text;
	char key[MANIFEST_KEY_SIZE];

	assert_int_equal(catalog_pruned_write(&floor, 1, &text, NULL), BTS_OK);
	catalog_pruned_key(at->database, key);
	assert_int_equal(store_put(store, key, text, false, NULL), BTS_OK);
	free((void *)(uintptr_t)text.data);
}

void other_enter(struct store *store, const struct bts_position *epoch)
{
	static char text[MANIFEST_TEXT_MAX];
	struct manifest *manifest = calloc(1, sizeof(*manifest));
	struct catalog catalog;
	char key[MANIFEST_KEY_SIZE];

	assert_non_null(manifest);
	assert_int_equal(catalog_read(store, epoch->database, &catalog, NULL), BTS_OK);
	assert_int_equal(catalog.count, 1);
	manifest->epoch = *epoch;
	manifest->sequence = 1;
	manifest->count = 2;
	manifest->entries[0] = manifest->entries[1] = catalog.entries[0];
	manifest_key(epoch, 1, key);
	assert_int_equal(
		store_put(store, key, (struct bts_slice){text, manifest_write(manifest, text)}, true, NULL),
		BTS_OK);
	free(manifest);
	catalog_fini(&catalog);
}
