/* cmd.h: the program's commands, as main.c calls them. Each is in rl/cmd_<name>.c. */
#ifndef WHET_RL_CMD_H
#define WHET_RL_CMD_H

int cmd_train(int argc, char **argv);   /* whet train: a training run from a recipe */
int cmd_replay(int argc, char **argv);  /* whet replay: learns a stored step again and says whether it fits */
int cmd_show(int argc, char **argv);    /* whet show: what a run's store holds */
int cmd_rescore(int argc, char **argv); /* whet rescore: a run's samples judged anew by other rewards */
int cmd_diff(int argc, char **argv);    /* whet diff: two runs beside each other */
int cmd_score(int argc, char **argv);   /* whet score: JSON lines in, the same lines with rewards out */
int cmd_sample(int argc, char **argv);  /* whet sample: answers to one prompt */
int cmd_eval(int argc, char **argv);    /* whet eval: accuracy on a file of problems */
int cmd_bench(int argc, char **argv);   /* whet bench: how fast a model is sampled and trained */
int cmd_logprob(int argc, char **argv); /* whet logprob: log-probabilities of a text's tokens */
int cmd_pull(int argc, char **argv);    /* whet pull: a model from a hub into the cache */
int cmd_export(int argc, char **argv);  /* whet export: a model for transformers or llama.cpp */
int cmd_gpu(int argc, char **argv);     /* whet gpu-selftest: compares the GPU with the CPU */
int cmd_sandbox(int argc, char **argv); /* whet sandbox-selftest: which layers of isolation hold here */

int cmd_train_help(int argc, char **argv); /* whet help train: every key of a recipe */

#endif
