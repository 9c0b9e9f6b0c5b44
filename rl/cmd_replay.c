/* cmd_replay.c: `whet replay`: learns a stored step again and says whether the store fits. Tested by
 * tests/cmd_past.sh. */
#include "rl/cmd.h"
#include "rl/replay.h"

static const char usage[] =
    "usage: whet replay RUN [--step N] [--option value ...]\n\n"
    "Learns the steps up to N again from their stored answers, from the newest checkpoint before N and before "
    "its\n"
    "answers (or the model that the run began with), and says whether log-probabilities, rewards, advantages, "
    "loss,\n"
    "gradient norm and the hashes of weights and moments are those that the store holds. What does not fit is "
    "named:\n"
    "group, sample, token. RUN is the output_dir of a run, which is only read. Status 0: everything agrees; 1: "
    "something\ndoes not.\n\n";

int cmd_replay(int argc, char **argv) {
    long step = 0, threads = 0;
    int64_t memory = 0;
    const char *model = NULL, *data = NULL, *path = NULL;
    bool sampling = true;
    Arena arena = {0};
    const Option table[] = {
        {"step", KEY_WHOLE, &step, 0, 1e9, "the step; 0: the last one"},
        {"sampling", KEY_SWITCH, &sampling, 0, 0, "sample and judge the step's answers anew (--no_sampling: not)"},
        {"model", KEY_TEXT, &model, 0, 0, "where the model lies that the run began with, if not where it lay"},
        {"data", KEY_TEXT, &data, 0, 0, "where the data set lies, if not where it lay"},
        {"cpu_path", KEY_TEXT, &path, 0, 0,
         "instruction set; default: the run's, or one with its bits; on others numbers are compared loosely"},
        {"threads", KEY_WHOLE, &threads, 0, 256, "0: as many as cores"},
        {"max_memory", KEY_BYTES, &memory, 0, 0, "most bytes to take (8G, 500M), of those that are free"},
    };
    const char *folder = past_argument(&argc, argv);
    options_read(usage, table, sizeof table / sizeof *table, argc, argv, &arena);
    Past past;
    Err err = {0};
    bool fits = false;
    if (!past_open(&past, folder, false, &err)) die("replay: %s", err.msg);
    long last;
    if (!store_step_last(past.store, past.run.id, &last, &err)) die("replay: %s", err.msg);
    if (last == 0) die("replay: %s: holds no step yet", past.path);
    if (step > last) die("replay: %s: step %ld is not there; the last one is %ld", past.path, step, last);
    if (step == 0) step = last;
    if (model) past.recipe.model_name_or_path = model;
    if (data) past.recipe.dataset_name = data, past.recipe.datasets.n = 0;
    past.recipe.threads = threads, past.recipe.max_memory = memory;
    if (!replay(&past, step, path, sampling, stdout, &fits, &err)) die("replay: %s", err.msg);
    past_close(&past);
    arena_free(&arena);
    return fits ? 0 : 1;
}
