/*
 * The one place that includes the cmocka library, with the headers it wants to see first.
 */
#ifndef SUPPORT_CMOCKA_H
#define SUPPORT_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include_next <cmocka.h>

#endif
