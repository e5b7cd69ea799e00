/* The sums and hashes of the engine as btree_store/ship.h exports them. */
#include <btree_store/ship.h>

#include <string.h>

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/siphash.h"

ENSURE_STATIC(sizeof(struct siphash) <= sizeof(struct bts_digest));

uint32_t bts_crc32c(uint32_t seed, const void *data, size_t size)
{
	return crc32c(seed, data, size);
}

void bts_digest_init(struct bts_digest *digest, const uint8_t key[16])
{
	struct siphash hash;

	siphash_init(&hash, key);
	memset(digest, 0, sizeof(*digest));
	memcpy(digest, &hash, sizeof(hash));
}

void bts_digest_update(struct bts_digest *digest, const void *data, size_t size)
{
	struct siphash hash;

	memcpy(&hash, digest, sizeof(hash));
	siphash_update(&hash, data, size);
	memcpy(digest, &hash, sizeof(hash));
}

void bts_digest_final(struct bts_digest *digest, uint8_t out[16])
{
	struct siphash hash;

	memcpy(&hash, digest, sizeof(hash));
	siphash_final(&hash, out);
}
