/* past.c: see past.h. */
#include "rl/past.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* JSON is YAML. */
static bool recipe_of(Past *past, Err *err) {
    const char *text = past->run.recipe;
    recipe_default(&past->recipe);
    if (!recipe_read_yaml(&past->recipe, text, strlen(text), past->path, err) ||
        !recipe_resolve(&past->recipe, err))
        return false;
    past->recipe.output_dir = past->folder;
    past->recipe.resume_from_checkpoint = NULL;
    return true;
}

bool past_open(Past *past, const char *folder, bool beside, Err *err) {
    struct stat info;
    bool found = false;
    *past = (Past){0};
    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode))
        return err_set(err, "%s: there is no such folder: name the output_dir of a run", folder);
    past->folder = arena_text(&past->arena, folder, strlen(folder));
    past->path = arena_format(&past->arena, "%s/run.db", folder);
    if (stat(past->path, &info) != 0)
        return err_set(err, "%s: holds no run (no run.db): name the output_dir of a run", folder);
    past->store = beside ? store_open_beside(past->path, err) : store_open_read(past->path, err);
    if (past->store && store_run_last(past->store, &past->arena, &past->run, &found, err)) {
        if (found && recipe_of(past, err)) return true;
        if (!found) err_set(err, "%s: holds no run yet", past->path);
    }
    past_close(past);
    return false;
}

void past_close(Past *past) {
    store_close(past->store);
    recipe_free(&past->recipe);
    arena_free(&past->arena);
    *past = (Past){0};
}

const char *past_argument(int *argc, char **argv) {
    for (int i = 1; i < *argc; i++)
        if (strcmp(argv[i], "--help") == 0) return NULL;
    if (*argc < 2 || argv[1][0] == '-')
        die("%s: the folder of a run is needed; `whet %s --help` says more", argv[0], argv[0]);
    const char *run = argv[1];
    memmove(argv + 1, argv + 2, (size_t)(*argc - 2) * sizeof *argv);
    --*argc;
    return run;
}
