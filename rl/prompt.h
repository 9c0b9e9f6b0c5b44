/* prompt.h: from a problem to the tokens that the policy is given.
 *
 * Knows: plain-text templates, chat formats and the tokenizer. Must never know: where problems come from.
 * Ownership: a Prompt owns its text and ids. Zero-initialise; it may be used again and again.
 * Tested by tests/test_rl_eval.c.
 */
#ifndef WHET_RL_PROMPT_H
#define WHET_RL_PROMPT_H

#include "rl/chat.h"
#include "rollout/rollout.h"

typedef struct {
    Buf text; /* the rendered template */
    int *ids;
    int n, room;
} Prompt;

/* How problems become prompts. */
typedef struct {
    const char *text; /* a template with {problem}; NULL: the problem is the prompt */
    /* the model's chat format, where the template is what it makes of one user's message; or NULL */
    const Chat *chat;
    const char *system; /* goes before a conversation that has no system message of its own; NULL: none */
} PromptForm;

/* Has the chat format write the problem, a text or a conversation (datasets.h), or puts a text into the template;
 * and encodes the whole as Hugging Face would, with the tokens that the tokenizer's settings put before every
 * text. Control tokens are recognised in the template, never in the problem: one that spells them is encoded
 * apart, as plain text. */
bool prompt_make(Prompt *prompt, const Tokenizer *tok, const PromptForm *form, const char *problem, Err *err);
/* The text as it is, control tokens and all. */
void prompt_raw(Prompt *prompt, const Tokenizer *tok, const char *text);
void prompt_free(Prompt *prompt);

#endif
