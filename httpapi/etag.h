/* Entity tags: the version of a value in quotes. */
#ifndef HTTPAPI_ETAG_H
#define HTTPAPI_ETAG_H

#include "writer.h"

void etag_text(bts_txid version, char text[24]);
/*
 * An If-Match or If-None-Match header (NULL: not given).  Tags that are not ours match nothing; weak ones
 * count only where weak is set.  0, or -1 when it is malformed or has too many, whatever they are.
 */
int etag_parse(const char *header, int weak, struct writer_tags *);
#endif
