/* cmd_show.c: `whet show`: what a run's store holds, for a person. Tested by tests/cmd_past.sh. */
#include "rl/cmd.h"
#include "rl/show.h"

static const char usage[] = "usage: whet show RUN [--step N [--group G [--number I]] | --sample ID] [--json]\n\n"
                            "Shows a run (how it went, its evaluations, what its guards said), a step (its "
                            "metrics, a line for each answer), or\n"
                            "answers with all that belongs to them: prompt, each token with its log-probability, "
                            "every part of the reward with\n"
                            "its reason, the group, the advantage and the step that learnt from it. RUN is the "
                            "output_dir of a run, which may\n"
                            "still be going on; groups and answers count from 0.\n\n";

int cmd_show(int argc, char **argv) {
    long step = 0, group = -1, number = -1, sample = 0;
    bool json = false;
    Arena arena = {0};
    const Option table[] = {
        {"step", KEY_WHOLE, &step, 1, 1e9, "the step"},
        {"group", KEY_WHOLE, &group, 0, 1e9, "one group of the step, its answers in full"},
        {"number", KEY_WHOLE, &number, 0, 1e9, "one answer of the group"},
        {"sample", KEY_WHOLE, &sample, 1, 9e15, "an answer by its id (samples.id in the store)"},
        {"json", KEY_SWITCH, &json, 0, 0, "answers as JSON, one object a line"},
    };
    const char *folder = past_argument(&argc, argv);
    options_read(usage, table, sizeof table / sizeof *table, argc, argv, &arena);
    if (group >= 0 && !step) die("show: --group wants a --step");
    if (number >= 0 && group < 0) die("show: --number wants a --group");
    if (json && group < 0 && !sample) die("show: --json is for answers: --sample ID, or --step N --group G");
    Past past;
    Err err = {0};
    if (!past_open(&past, folder, false, &err)) die("show: %s", err.msg);
    bool good = !sample || show_find(&past, sample, &step, &group, &number, &err);
    good = good && (group >= 0 ? show_samples(&past, step, group, number, json, stdout, &err)
                    : step     ? show_step(&past, step, stdout, &err)
                               : show_run(&past, stdout, &err));
    if (!good) die("show: %s", err.msg);
    past_close(&past);
    arena_free(&arena);
    return 0;
}
