/* chat.h: a model's own way of writing a conversation: its chat template, run as transformers runs it.
 *
 * Knows: turns, and the texts that a template makes of them. Must never know: tokens, problems. Ownership: a Chat
 * owns its template; a ChatText is the caller's, to be zero-initialised. Tested by tests/test_rl_chat.c against
 * transformers' apply_chat_template.
 */
#ifndef WHET_RL_CHAT_H
#define WHET_RL_CHAT_H

#include "kernels/base.h"

typedef struct {
    const char *role; /* system, user, assistant */
    const char *text;
} ChatTurn;

typedef struct {
    size_t begin, end;
} ChatRange;

typedef struct {
    Buf text;
    ChatRange *plain; /* what came out of turns: control tokens are not to be recognised in it */
    int n, room;
} ChatText;

typedef struct Chat Chat;
/* Parses and tries a template; bos and eos are the texts of those tokens ("" for none). One that asks for what is
 * not known here is refused with a line that names it and the setting that overrides it. */
Chat *chat_open(const char *jinja, const char *bos, const char *eos, Err *err);
/* The conversation and the beginning of the assistant's next turn. False and err when the template refuses it (a
 * system message where the model knows none, roles out of turn) or the last turn is not the user's. */
bool chat_render(const Chat *chat, const ChatTurn *turns, int n, ChatText *out, Err *err);
/* A prompt template with {problem} as the one user turn, after a system message (NULL: none); the caller frees it.
 */
char *chat_prompt_template(const Chat *chat, const char *system, Err *err);
void chat_text_free(ChatText *text);
void chat_close(Chat *chat);

#endif
