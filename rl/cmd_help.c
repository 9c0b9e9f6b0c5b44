/* cmd_help.c: `whet help train`: how a training run is told what to do, and every key of a recipe. The other
 * commands explain themselves (options.h). Tested by tests/cmd_run.sh. */
#include <stdio.h>

#include "rl/cmd.h"
#include "rl/recipe.h"

static const char usage[] = "usage: whet train [--config] RECIPE.yaml [--key value ...]\n\n"
                            "Samples groups of answers, has them judged, keeps them in OUTPUT_DIR/run.db and "
                            "updates the model. Every key\n"
                            "below stands in the recipe (key: value) or on the command line (--key value), which "
                            "wins; their names are TRL's.\n"
                            "Ctrl-C ends after the step that runs, and --resume_from_checkpoint last goes on.\n\n";

int cmd_train_help(int argc, char **argv) {
    (void)argc, (void)argv;
    Buf keys = {0};
    recipe_help(&keys);
    fputs(usage, stdout);
    fwrite(keys.p, 1, keys.n, stdout);
    buf_free(&keys);
    return 0;
}
