/*
 * bts_backup: the image of the newest durable commit (image.c), written to a descriptor from its first byte to its last.
 */
#include "image.h"

#include "error.h"

#include <inttypes.h>
#include <string.h>

struct backup {
	struct bts_image *image;
	const struct bts_backup_options *options;
	int fd;
	uint64_t done; /* bytes */
};

static enum bts_err backup_write(struct backup *backup, const void *data, uint64_t size)
{
	struct bts_env *env = backup->image->db->env;
	int os = env->ops->fd_write(env, backup->fd, data, (size_t)size);

	return os ? error_os(&backup->image->why, os, "writing the backup") : BTS_OK;
}

static void backup_progress(struct backup *backup, uint64_t size)
{
	uint32_t page_size = backup->image->page_size;

	backup->done += size;
	if (backup->options->progress != NULL)
		backup->options->progress(
			backup->options->arg, backup->done / page_size, backup->image->record.high_water);
}

/* So many bytes from here on, block by block. */
static enum bts_err backup_blocks(struct backup *backup, uint64_t size)
{
	struct bts_image *image = backup->image;

	while (size > 0) {
		enum bts_err err = image_block(image, backup->done);
		uint64_t skip = backup->done - image->block_at, part = image->block_size - skip;

		if (part > size)
			part = size;
		if (err == BTS_OK)
			err = backup_write(backup, image->block + skip, part);
		if (err)
			return err;
		size -= part;
		backup_progress(backup, part);
	}
	return BTS_OK;
}

/* Free pages: a hole where that is possible, else zeros.  The last byte of the image is written in any case. */
static enum bts_err backup_zeros(struct backup *backup, uint64_t size)
{
	struct bts_env *env = backup->image->db->env;
	uint64_t last = backup->image->page_size;

	if (size > last && env->ops->fd_skip(env, backup->fd, size - last) == 0) {
		backup_progress(backup, size - last);
		size = last;
	}
	return backup_blocks(backup, size);
}

static enum bts_err backup_all(struct backup *backup)
{
	struct bts_image *image = backup->image;
	uint64_t page_size = image->page_size;
	struct space_run run;
	bts_pgno state = 0;
	enum bts_err err = BTS_OK;

	while (err == BTS_OK && space_next_free(&image->space, &state, &run)) {
		err = backup_blocks(backup, run.pgno * page_size - backup->done);
		if (err == BTS_OK)
			err = backup_zeros(backup, run.count * page_size);
	}
	return err ? err : backup_blocks(backup, bts_image_size(image) - backup->done);
}

enum bts_err bts_backup(
	struct bts *db, int fd, const struct bts_backup_options *options, struct bts_error *error)
{
	static const struct bts_backup_options plain = {.size = sizeof(plain)};
	struct backup backup = {.fd = fd, .options = options != NULL ? options : &plain};
	struct bts_error why;
	enum bts_err err;

	if (backup.options->size != sizeof(*options))
		return error_set(error, BTS_INVALID, 0, "struct bts_backup_options of %zu bytes", backup.options->size);
	err = bts_image_open(db, NULL, &backup.image, &why);
	if (err == BTS_OK) {
		err = backup_all(&backup);
		why = backup.image->why;
		bts_image_close(backup.image);
	}
	return err ? error_set(error, err, why.os, "backup: %s", why.text) : BTS_OK;
}
