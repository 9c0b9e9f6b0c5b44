/* cuda_help.h: what the tests of the CUDA back on the stand-in for a GPU share: it and the CPU's plain path, open. */
#ifndef TESTS_CUDA_HELP_H
#define TESTS_CUDA_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "tests/ptx/standin.h"

static Dev *cpu, *cuda;

static int open_both(void **state) {
    (void)state;
    Err err = {0};
    cpu = dev_open(&(DevConf){.path = "plain", .threads = 2}, &err);
    if (cpu) cuda = dev_open(&(DevConf){.device = "cuda"}, &err);
    if (!cuda) print_error("%s\n", err.msg);
    return cuda ? 0 : -1;
}

static int close_both(void **state) {
    (void)state;
    dev_close(cuda);
    dev_close(cpu);
    return 0;
}

#endif
