/* open.h: what every command needs first: the device, the model's file, its tokenizer, its weights.
 *
 * Knows: flags and recipe keys about model and machine; how much memory the machine has. Must never know: what the
 * command is. Structs: OpenConf, Model (owns all that it opened; model_close frees it).
 * Tested by tests/cmd_run.sh.
 */
#ifndef WHET_RL_OPEN_H
#define WHET_RL_OPEN_H

#include "rl/options.h"
#include "rl/prompt.h"
#include "rollout/rollout.h"

typedef struct {
    const char *model; /* a Hugging Face folder or a .gguf file */
    const char *dtype; /* float32, bfloat16 */
    const char *device, *cpu_path;
    const char *sampling_weights; /* exact, int8; NULL: exact */
    long threads;       /* 0: as many as cores */
    int64_t max_memory; /* bytes of the device; 0: what it has free */
} OpenConf;

typedef struct {
    Dev *dev;
    ModelFile *file;
    Tokenizer *tok;
    Policy *policy; /* NULL before model_load */
    DType type;
    bool int8;         /* answers are sampled with weights of int8 */
    int64_t memory;    /* bytes that may be taken */
    Chat *chat;        /* the model's chat format; NULL: none, or not asked for */
    char *chat_prompt; /* what it makes of {problem} as the user's message */
} Model;

/* The rows of a command's table that fill an OpenConf (which holds the defaults). */
enum { OPEN_OPTIONS = 6 };
void open_options(OpenConf *conf, Option options[OPEN_OPTIONS]);

/* Opens a file or folder, or the model of that name which `whet pull` left in the cache. A folder of adapters is
 * its base model with these. */
ModelFile *model_file_named(const char *name, Err *err);
/* Whether weights of int8 are asked for; false and err where the device can't, or nobody knows what is asked. */
bool model_int8(const OpenConf *conf, const Dev *dev, bool *int8, Err *err);
/* Opens device, file and tokenizer: headers are checked, no weight is read. On failure nothing stays open. */
bool model_open(Model *model, const OpenConf *conf, Err *err);
/* Reads the weights. `more` bytes will be asked of the device beside them: when both are more than there is,
 * nothing is read and err says what each needs. conf->type is set here. */
bool model_load(Model *model, PolicyConf *conf, size_t more, Err *err);
void model_close(Model *model);
/* What is asked of prompts; NULL: what lies with the model, and no system message. `text` goes alone. */
typedef struct {
    const char *text, *chat_template, *system;
} PromptAsk;
/* How prompts are made: by the template that is asked for, or the one that lies with the model, or what its chat
 * template makes of one user's message; out->text is NULL where there is none of them. A chat template of an
 * unknown format is an error where it is needed. What out points to is the model's. */
bool model_prompt_form(Model *model, const PromptAsk *ask, PromptForm *out, Err *err);

/* Reads the weights and opens an engine for prompts and answers of these lengths, cut to what the model can take.
 * conf->max_tokens is set here, and conf->slots lowered where memory is short (it changes no result). */
Engine *model_engine(Model *model, long n_prompt, long max_new, EngineConf *conf, Err *err);

/* Bytes that this process could still take: the machine's or the control group's, whichever is less. */
int64_t memory_free(void);

#endif
