/* cmd_rescore.c: `whet rescore`: a run's samples judged anew by other rewards. Tested by tests/cmd_past.sh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/cmd.h"
#include "rl/rescore.h"

static const char usage[] =
    "usage: whet rescore RUN [--recipe R.yaml] [--examples N] [--key value ...]\n\n"
    "Judges all stored answers of a run by other rewards: what R.yaml or the flags say of rewards and advantages\n"
    "(reward_funcs, reward_weights, scale_rewards, ...; `whet help train` lists them) in place of the run's own. "
    "The\n"
    "scores are stored beside the first (side_by_side in rl/schema.sql), and the report says what would have "
    "changed:\n"
    "verdicts that flipped, groups that gained or lost signal, advantages that changed their sign. Nothing is "
    "sampled.\n"
    "RUN is the output_dir of a run, which may still be going on.\n\n"
    "  --recipe                 a recipe; of its keys those about rewards and advantages count\n"
    "  --examples               flipped verdicts that are shown (default: 5)\n";

/* The value of a flag of ours, which is taken out of the arguments; NULL when it is not there. */
static const char *take(const char *name, int *argc, char **argv) {
    size_t n = strlen(name);
    for (int i = 1; i < *argc; i++) {
        bool whole = strcmp(argv[i], name) == 0;
        if (!whole && (strncmp(argv[i], name, n) != 0 || argv[i][n] != '=')) continue;
        if (whole && i + 1 == *argc) die("rescore: %s wants a value", name);
        const char *value = whole ? argv[i + 1] : argv[i] + n + 1;
        int taken = whole ? 2 : 1;
        memmove(argv + i, argv + i + taken, (size_t)(*argc - i - taken) * sizeof *argv);
        *argc -= taken;
        return value;
    }
    return NULL;
}

/* The run's recipe with the keys of the file and the flags over it. */
static bool recipe_over(Recipe *recipe, const Past *past, const char *path, int n, char *const *flags, Err *err) {
    const char *own = past->run.recipe;
    Recipe other = {0};
    recipe_default(&other);
    bool good = (!path || recipe_read_file(&other, path, err)) && recipe_read_flags(&other, n, flags, err);
    int funcs = recipe_key_find("reward_funcs"), weights = recipe_key_find("reward_weights");
    bool anew = good && other.given[funcs] && !other.given[weights];
    recipe_free(&other);
    recipe_default(recipe);
    good = good && recipe_read_yaml(recipe, own, strlen(own), past->path, err);
    memset(recipe->given, 0, sizeof recipe->given); /* so that the file may say another */
    if (anew) recipe->reward_weights.n = 0;
    return good && (!path || recipe_read_file(recipe, path, err)) && recipe_read_flags(recipe, n, flags, err);
}

int cmd_rescore(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) return fputs(usage, stdout) < 0;
    const char *folder = past_argument(&argc, argv);
    const char *path = take("--recipe", &argc, argv), *count = take("--examples", &argc, argv);
    char *end = "";
    long examples = count ? strtol(count, &end, 10) : 5;
    if (*end || examples < 0) die("rescore: --examples is %s and must be a whole number", count);
    if (!path && argc == 1) die("rescore: by which rewards? --recipe R.yaml, or --reward_funcs NAME,...");
    Past past;
    Recipe recipe = {0};
    Err err = {0};
    if (!past_open(&past, folder, true, &err) || !recipe_over(&recipe, &past, path, argc - 1, argv + 1, &err))
        die("rescore: %s", err.msg);
    /* What the answers are stays as it was. */
    recipe.num_generations = past.recipe.num_generations;
    recipe.per_device_train_batch_size = past.recipe.per_device_train_batch_size;
    recipe.gradient_accumulation_steps = past.recipe.gradient_accumulation_steps;
    recipe.generation_batch_size = past.recipe.generation_batch_size;
    recipe.steps_per_generation = past.recipe.steps_per_generation;
    recipe.num_iterations = past.recipe.num_iterations;
    if (!recipe_resolve(&recipe, &err) || !rescore(&past, &recipe, examples, stdout, &err))
        die("rescore: %s", err.msg);
    recipe_free(&recipe);
    past_close(&past);
    return 0;
}
