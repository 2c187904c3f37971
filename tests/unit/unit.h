// What every test program includes: cmocka with what it needs before it.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka 1.1 wants these first.
#include <cmocka.h>
