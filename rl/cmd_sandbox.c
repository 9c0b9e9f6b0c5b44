/* cmd_sandbox.c: `whet sandbox-selftest`: prints which layers of isolation hold for candidate programs on this
 * machine. What is measured and how is in reward/; exit status 0 when all that is asked for holds, 1 otherwise.
 * Tested by tests/test_reward_sandbox.c (the measurement). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reward/reward.h"
#include "rl/cmd.h"

int cmd_sandbox(int argc, char **argv) {
    Err err = {{0}};
    char *text;
    if (argc > 1) {
        bool help = !strcmp(argv[1], "--help");
        fprintf(help ? stdout : stderr,
                "usage: whet sandbox-selftest\n\nMeasures the layers between candidate programs "
                "and this machine. Exit status 0 when all hold.\n");
        return help ? 0 : 2;
    }
    bool ok = reward_sandbox_report(&text, &err);
    if (text) fputs(text, stdout);
    free(text);
    if (ok)
        puts("all layers that candidates need hold");
    else
        fprintf(stderr, "whet: %s\n", err.msg);
    return ok ? 0 : 1;
}
