/* main.c: the program's commands, one row each; what a command does is in rl/cmd_<name>.c. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "rl/cmd.h"

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
    const char *help;
    int (*explain)(int argc, char **argv); /* what --help does; NULL: run itself knows */
} Command;

static const Command commands[] = {
    {"train", cmd_train, "train a model from a recipe", cmd_train_help},
    {"show", cmd_show, "what a run holds: a step, an answer and all about it", NULL},
    {"rescore", cmd_rescore, "judge a run's answers anew by other rewards: what would have changed?", NULL},
    {"diff", cmd_diff, "two runs beside each other: is one better?", NULL},
    {"replay", cmd_replay, "learn a stored step again: does the store fit?", NULL},
    {"sample", cmd_sample, "answers of a model to one prompt", NULL},
    {"eval", cmd_eval, "how many problems of a file a model solves", NULL},
    {"bench", cmd_bench, "how fast a model is sampled and trained here", NULL},
    {"logprob", cmd_logprob, "log-probabilities of the tokens of a text", NULL},
    {"pull", cmd_pull, "fetch a model from a hub into the cache", NULL},
    {"export", cmd_export, "write a model for transformers or llama.cpp", NULL},
    {"score", cmd_score, "judge JSON lines of completions and expected answers", NULL},
    {"gpu-selftest", cmd_gpu, "whether this machine's GPU computes what the CPU does, and how fast", NULL},
    {"sandbox-selftest", cmd_sandbox, "which layers of isolation hold for candidate programs here", NULL},
};

static int usage(FILE *out, int status) {
    fprintf(out, "usage: whet COMMAND [--option value ...]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(out, "  %-18s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n`whet help COMMAND` says more.\n");
    return status;
}

static int command_run(const char *name, int argc, char **argv) {
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const Command *command = &commands[i];
        if (strcmp(name, command->name) != 0) continue;
        for (int a = 1; a < argc && command->explain; a++)
            if (!strcmp(argv[a], "--help")) return command->explain(argc, argv);
        return command->run(argc, argv);
    }
    fprintf(stderr, "whet: no command \"%s\"; `whet help` lists them\n", name);
    return 2;
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of write, not the end */
    if (argc < 2) return usage(stderr, 2);
    if (strcmp(argv[1], "--help") && strcmp(argv[1], "help")) return command_run(argv[1], argc - 1, argv + 1);
    if (argc == 2) return usage(stdout, 0);
    char *explain[] = {argv[2], "--help", NULL};
    return command_run(argv[2], 2, explain);
}
