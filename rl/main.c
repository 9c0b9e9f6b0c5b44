/* main.c: the program's commands, one row each; what a command does is in rl/cmd_<name>.c. */
#include <stdio.h>
#include <string.h>

#include "rl/cmd.h"

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
    const char *help;
} Command;

static const Command commands[] = {
    {"train", cmd_train, "train a model from a recipe"},
    {"sample", cmd_sample, "answers of a model to one prompt"},
    {"eval", cmd_eval, "how many problems of a file a model solves"},
    {"logprob", cmd_logprob, "log-probabilities of the tokens of a text"},
    {"score", cmd_score, "judge JSON lines of completions and expected answers"},
    {"sandbox-selftest", cmd_sandbox, "which layers of isolation hold for candidate programs here"},
};

static int usage(FILE *out, int status) {
    fprintf(out, "usage: whet COMMAND [--option value ...]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(out, "  %-18s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n`whet COMMAND --help` says more.\n");
    return status;
}

int main(int argc, char **argv) {
    if (argc < 2) return usage(stderr, 2);
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) return usage(stdout, 0);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "whet: no command \"%s\"; `whet --help` lists them\n", argv[1]);
    return 2;
}
