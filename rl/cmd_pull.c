/* cmd_pull.c: `whet pull`: fetches a model into the cache. Tested by tests/cmd_pull.sh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/cmd.h"
#include "rl/options.h"
#include "rl/pull.h"

static const char usage[] = "usage: whet pull ORG/MODEL [--base URL] [--cache FOLDER] ...\n\n"
                            "Fetches a model from a hub in Hugging Face's layout; --model ORG/MODEL finds it "
                            "afterwards. What was cut off goes "
                            "on,\nand every file is checked against the hub's hash.\n";

int cmd_pull(int argc, char **argv) {
    const char *hub = getenv("WHET_HUB");
    PullConf conf = {.base = hub && hub[0] ? hub : "https://huggingface.co", .revision = "main", .out = stderr};
    TextList files = {0};
    long tries = 6;
    Arena arena = {0};
    const Option table[] = {
        {"base", KEY_TEXT, &conf.base, 0, 0, "the hub's address; WHET_HUB in the environment sets it too"},
        {"revision", KEY_TEXT, &conf.revision, 0, 0, "a branch, tag or commit"},
        {"cache", KEY_TEXT, &conf.cache, 0, 0, "the folder of models; default: WHET_CACHE, or whet in ~/.cache"},
        {"files", KEY_TEXTS, &files, 0, 0, "names of files; default: what whet reads of the model"},
        {"tries", KEY_WHOLE, &tries, 1, 100, "attempts that bring nothing before it gives up"},
    };
    bool named = argc > 1 && strncmp(argv[1], "--", 2) != 0;
    char **flags = argv + named;
    if (named) conf.model = argv[1], flags[0] = argv[0];
    options_read(usage, table, sizeof table / sizeof *table, argc - named, flags, &arena);
    if (!named) die("pull: the first argument is the model, ORG/MODEL");
    conf.tries = (int)tries;
    if (files.n) {
        const char **names = arena_alloc(&arena, (size_t)files.n + 1, sizeof *names);
        for (int i = 0; i < files.n; i++) names[i] = files.at[i];
        conf.files = names;
    }
    Err err = {0};
    char *path;
    if (!pull(&conf, &path, &err)) die("pull: %s", err.msg);
    printf("%s\n", path);
    free(path);
    arena_free(&arena);
    return 0;
}
