/* past.h: a run that is there already, for the commands that read one: replay, show, rescore, diff.
 *
 * Knows: where a run's files lie. Must never know: what a command does with them.
 * Structs: Past (owns the store and the recipe; past_close frees them). A run that is being written can be read.
 * Tested by tests/cmd_past.sh.
 */
#ifndef WHET_RL_PAST_H
#define WHET_RL_PAST_H

#include "rl/options.h"
#include "rl/store.h"

typedef struct {
    const char *folder;
    char *path; /* of its store */
    Store *store;
    StoreRun run;
    Recipe recipe; /* as it was run, with output_dir where the run lies now */
    Arena arena;
} Past;

/* `beside`: something is added to the store that is no part of the run. Err: no run there, a store of another
 * whet. */
bool past_open(Past *past, const char *folder, bool beside, Err *err);
void past_close(Past *past);

/* Of a command `whet NAME RUN [--option ...]`: takes RUN out of argv and returns it; dies when there is none. */
const char *past_argument(int *argc, char **argv);

#endif
