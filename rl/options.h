/* options.h: the flags of a command: a table in, values in place.
 *
 * Knows: how flags are written (as a recipe's: --key value, --key=value, --switch, --no_switch, `-` for `_`; a
 * list is written a,b,c or as several values). Must never know: what a command does with them. `whet train` reads
 * recipes instead.
 * Tested by tests/cmd_run.sh.
 */
#ifndef WHET_RL_OPTIONS_H
#define WHET_RL_OPTIONS_H

#include "rl/recipe.h"

typedef struct {
    const char *name;
    KeyType type;     /* KEY_TEXT, KEY_WHOLE, KEY_NUMBER, KEY_SWITCH, KEY_BYTES, KEY_TEXTS or KEY_NUMBERS */
    void *to;         /* const char *, long, double, bool, int64_t, TextList or NumberList; holds the default */
    double low, high; /* of whole and other numbers */
    const char *help;
} Option;

/* Reads argv[1] and on. Lists lie in the arena; texts are views of argv. At --help prints `usage` and the table,
 * and ends the program; a wrong flag ends it with one line that names it and the nearest known one. */
void options_read(const char *usage, const Option *options, int n, int argc, char **argv, Arena *arena);

#endif
