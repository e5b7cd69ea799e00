/*
 * What S3 answers as XML: pages of a listing, and errors.  Hostile: no document type, bounded in depth and texts,
 * nothing is fetched.
 */
#ifndef STORE_XML_H
#define STORE_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <btree_store.h>

#define STORE_XML_KEY_MAX 4096	 /* of a key as it is written; S3 has 1024 bytes, each perhaps as %XX */
#define STORE_XML_TOKEN_MAX 2048 /* of a continuation token */

/* An object as it is listed: its key decoded.  What is not BTS_OK ends the reading, which returns it. */
typedef enum bts_err store_xml_object_fn(void *arg, const char *key, uint64_t size, uint64_t modified_ms);

struct store_xml_page {
	bool truncated; /* there are more */
	char token[STORE_XML_TOKEN_MAX + 1];
	size_t objects;
};

/*
 * A ListBucketResult.  BTS_CORRUPT: it is none, with why; visit may have been called by then.  BTS_MEMORY.
 */
BTS_MUST_CHECK enum bts_err store_xml_list(const char *data, size_t size, store_xml_object_fn *visit,
	void *arg, struct store_xml_page *page, const char **why);

struct store_xml_problem {
	char code[64];	 /* letters, digits and '.'; "" when there is none */
	char region[33]; /* likewise, small letters, digits and '-' */
};

/* An Error.  Whatever is not understood leaves the fields empty. */
void store_xml_error(const char *data, size_t size, struct store_xml_problem *problem);

#endif
