/* Commit records that were sent: a ring, in which the oldest gives its place to the newest. */
#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "frame_zstd.h"
#include "position.h"

struct records_entry {
	struct bts_position at;
	uint8_t *bytes; /* NULL: a free place */
	size_t size;
};

struct records {
	struct frame_zstd *zstd;
	size_t next; /* the place that is taken next */
	struct records_entry entries[RECORDS_MAX];
};

struct records *records_new(void)
{
	struct records *records = calloc(1, sizeof(*records));

	if (!records)
		return NULL;
	records->zstd = frame_zstd_new(true);
	if (records->zstd)
		return records;
	free(records);
	return NULL;
}

void records_free(struct records *records)
{
	if (!records)
		return;
	for (size_t i = 0; i < RECORDS_MAX; i++)
		free(records->entries[i].bytes);
	frame_zstd_free(records->zstd);
	free(records);
}

struct bts_slice records_find(const struct records *records, const struct bts_position *at)
{
	for (size_t i = 0; i < RECORDS_MAX; i++) {
		const struct records_entry *entry = &records->entries[i];

		if (entry->bytes && position_equal(&entry->at, at))
			return (struct bts_slice){entry->bytes, entry->size};
	}
	return (struct bts_slice){NULL, 0};
}

void records_keep(struct records *records, const struct bts_position *at, struct bts_slice record)
{
	struct records_entry *entry = &records->entries[records->next];
	uint8_t *bytes;

	if (records_find(records, at).size)
		return;
	bytes = malloc(record.size);
	if (!bytes)
		return;
	memcpy(bytes, record.data, record.size);
	free(entry->bytes);
	*entry = (struct records_entry){*at, bytes, record.size};
	records->next = (records->next + 1) % RECORDS_MAX;
}

size_t records_pack(struct records *records, struct bts_slice base, struct bts_slice record, uint8_t out[BTS_RECORD_MAX])
{
	return record.size > BTS_RECORD_MAX ? 0 : frame_zstd_pack_on(records->zstd, base, record, out);
}
