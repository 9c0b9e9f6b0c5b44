/* jinja.h: runs chat templates, which are programs in Jinja.
 *
 * Knows: the part of Jinja 2 that chat templates are written in, with the settings that transformers gives it
 * (trim_blocks, lstrip_blocks, loop controls, raise_exception): expressions, filters, tests and methods of texts,
 * lists and dictionaries, if, for, set, macro, namespaces. What it does not know is refused by name and line. Must
 * never know: models, tokens. A run is bounded in steps, depth and memory. Ownership: a Jinja owns its parsed
 * template. Tested by tests/test_rl_chat.c against transformers' apply_chat_template.
 */
#ifndef WHET_RL_JINJA_H
#define WHET_RL_JINJA_H

#include "rl/chat.h"

typedef struct Jinja Jinja;
/* NULL and err when it can't be parsed. */
Jinja *jinja_open(const char *source, Err *err);
/* The conversation and the beginning of the next answer, as transformers renders them. False and err when the
 * template raises an exception or does what is not known here. */
bool jinja_render(const Jinja *jinja, const ChatTurn *turns, int n, const char *bos, const char *eos,
                  ChatText *out, Err *err);
void jinja_close(Jinja *jinja); /* NULL is fine */

#endif
