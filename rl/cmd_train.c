/* cmd_train.c: whet train RECIPE [--key value ...]. Tested by tests/cmd_train.sh. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rl/cmd.h"
#include "rl/train.h"

static volatile int stop_asked;

/* The first Ctrl-C lets the step end and saves; the second ends at once, which loses no more than the step. */
static void on_signal(int number) {
    static const char first[] = "\nwhet: ending after this step (again: at once)\n";
    if (stop_asked++) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    ssize_t unused = write(STDERR_FILENO, first, sizeof first - 1);
    (void)unused;
}

static void watch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void print_recipe(const Recipe *recipe) {
    Buf text = {0};
    recipe_yaml(recipe, &text);
    printf("%s", text.p);
    for (int i = 0; i < recipe->notes.n; i++) printf("# %s\n", recipe->notes.at[i]);
    fflush(stdout);
    buf_free(&text);
}

/* The command that goes on: the one that was given, from the newest checkpoint. */
static void print_again(int argc, char **argv) {
    printf("interrupted; go on with\n  whet");
    for (int i = 0; i < argc; i++) {
        bool plain = argv[i][0] && !argv[i][strcspn(argv[i], " \t\n\"'$&|;<>(){}*?!`#~\\")];
        if (strncmp(argv[i], "--overwrite_output_dir", 22) == 0) continue;
        if (strcmp(argv[i], "--resume_from_checkpoint") == 0) {
            i++;
            continue;
        }
        if (plain) {
            printf(" %s", argv[i]);
            continue;
        }
        printf(" '");
        for (const char *p = argv[i]; *p; p++) printf(*p == '\'' ? "'\\''" : "%c", *p);
        printf("'");
    }
    printf(" --resume_from_checkpoint last\n");
}

/* The recipe's file: the first argument, or --config FILE anywhere, as TRL has it; what is left are flags. */
static const char *recipe_argument(int *argc, char **argv) {
    int at = 1, n = 0;
    if (*argc > 1 && argv[1][0] != '-') n = 1;
    for (int i = 1; !n && i + 1 < *argc; i++)
        if (strcmp(argv[i], "--config") == 0) at = i, n = 2;
    if (!n) return NULL;
    const char *path = argv[at + n - 1];
    memmove(argv + at, argv + at + n, (size_t)(*argc - at - n) * sizeof *argv);
    *argc -= n;
    return path;
}

int cmd_train(int argc, char **argv) {
    char **again = MEM_ARRAY(char *, argc);
    int n_again = argc;
    memcpy(again, argv, (size_t)argc * sizeof *argv);
    const char *path = recipe_argument(&argc, argv);
    Recipe recipe = {0};
    Err err = {0};
    if (!recipe_load(&recipe, path, argc - 1, argv + 1, &err)) die("train: %s", err.msg);
    print_recipe(&recipe);
    watch_signals();
    Trainer *trainer = train_open(&recipe, stdout, &stop_asked, &err);
    if (!trainer) die("train: %s", err.msg);
    bool finished = false, good = train_run(trainer, &finished, &err);
    train_end(trainer, !good ? "failed" : finished ? "finished" : "interrupted");
    if (finished) train_summary(trainer);
    train_close(trainer);
    if (!good) die("train: %s", err.msg);
    if (!finished) print_again(n_again, again);
    free(again);
    recipe_free(&recipe);
    return finished ? 0 : 130;
}
