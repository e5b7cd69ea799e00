/*
 * Chunks through libzstd.
 *
 * A chunk is one frame of zstd that says its own content's size.  It is unpacked in one call into room for exactly that, so libzstd needs
 * no window of its own and a chunk that says more is refused before anything is done with it.
 */
#include "frame_zstd.h"

#include <stdlib.h>
#include <zstd.h>

#define FRAME_ZSTD_LEVEL 1    /* a chunk is to cost less time than the network takes for it */
#define FRAME_ZSTD_LEVEL_ON 3 /* a record is small: the shorter one */

struct frame_zstd {
	ZSTD_CCtx *packer;     /* or */
	ZSTD_DCtx *unpacker;
};

struct frame_zstd *frame_zstd_new(bool pack)
{
	struct frame_zstd *zstd = calloc(1, sizeof(*zstd));

	if (!zstd)
		return NULL;
	if (pack)
		zstd->packer = ZSTD_createCCtx();
	else
		zstd->unpacker = ZSTD_createDCtx();
	if (zstd->packer || zstd->unpacker)
		return zstd;
	free(zstd);
	return NULL;
}

void frame_zstd_free(struct frame_zstd *zstd)
{
	if (!zstd)
		return;
	ZSTD_freeCCtx(zstd->packer);
	ZSTD_freeDCtx(zstd->unpacker);
	free(zstd);
}

size_t frame_zstd_pack(struct frame_zstd *zstd, struct bts_slice in, uint8_t *out)
{
	size_t size = ZSTD_compressCCtx(zstd->packer, out, in.size, in.data, in.size, FRAME_ZSTD_LEVEL);

	/* No room for it is an error like any other: it would not be smaller. */
	return ZSTD_isError(size) || size >= in.size ? 0 : size;
}

size_t frame_zstd_pack_on(struct frame_zstd *zstd, struct bts_slice base, struct bts_slice in, uint8_t *out)
{
	size_t size = ZSTD_CCtx_refPrefix(zstd->packer, base.data, base.size);

	if (!ZSTD_isError(size))
		size = ZSTD_CCtx_setParameter(zstd->packer, ZSTD_c_compressionLevel, FRAME_ZSTD_LEVEL_ON);
	if (!ZSTD_isError(size))
		size = ZSTD_compress2(zstd->packer, out, in.size, in.data, in.size);
	return ZSTD_isError(size) || size >= in.size ? 0 : size;
}

bool frame_zstd_unpack(struct frame_zstd *zstd, struct bts_slice in, uint8_t *out, size_t size)
{
	if (ZSTD_getFrameContentSize(in.data, in.size) != size || ZSTD_findFrameCompressedSize(in.data, in.size) != in.size)
		return false;
	return ZSTD_decompressDCtx(zstd->unpacker, out, size, in.data, in.size) == size;
}

bool frame_zstd_unpack_on(
	struct frame_zstd *zstd, struct bts_slice base, struct bts_slice in, uint8_t *out, size_t size)
{
	bool right = !ZSTD_isError(ZSTD_DCtx_refPrefix(zstd->unpacker, base.data, base.size)) &&
		     frame_zstd_unpack(zstd, in, out, size);

	/* Of a prefix that was not used up nothing stays. */
	(void)ZSTD_DCtx_reset(zstd->unpacker, ZSTD_reset_session_and_parameters);
	return right;
}
