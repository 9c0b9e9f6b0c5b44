/* cmd_diff.c: `whet diff`: two runs beside each other. Tested by tests/cmd_past.sh. */
#include "rl/cmd.h"
#include "rl/diff.h"

static const char usage[] =
    "usage: whet diff RUN1 RUN2\n\n"
    "Compares two runs: the keys in which their recipes differ, their metrics over the last steps that both have, "
    "and\n"
    "their last evaluations on the same data, problem by problem, with McNemar's exact test: whether one run's "
    "being\n"
    "better may be chance. RUN1 and RUN2 are output_dirs of runs, which may still be going on.\n\n";

int cmd_diff(int argc, char **argv) {
    Arena arena = {0};
    const char *first = past_argument(&argc, argv);
    const char *second = first ? past_argument(&argc, argv) : NULL;
    options_read(usage, NULL, 0, argc, argv, &arena);
    Past a, b;
    Err err = {0};
    if (!past_open(&a, first, false, &err) || !past_open(&b, second, false, &err) ||
        !diff_runs(&a, &b, stdout, &err))
        die("diff: %s", err.msg);
    past_close(&a);
    past_close(&b);
    return 0;
}
