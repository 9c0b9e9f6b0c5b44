/* chat.c: the model's chat template, run by jinja.h, and the checks around it. Tested by tests/test_rl_chat.c. */
#include "rl/chat.h"

#include <stdlib.h>
#include <string.h>

#include "rl/jinja.h"

struct Chat {
    Jinja *jinja;
    char *bos, *eos;
};

/* A template is of use when it writes a conversation of one question with the question in it. */
static bool tried(const Chat *chat, Err *why) {
    static const ChatTurn TURN = {"user", "What is 7 + 8?"};
    ChatText text = {0};
    bool good = chat->jinja && jinja_render(chat->jinja, &TURN, 1, chat->bos, chat->eos, &text, why);
    if (good && !strstr(text.text.p, TURN.text)) good = err_set(why, "it leaves out what the user says");
    chat_text_free(&text);
    return good;
}

Chat *chat_open(const char *jinja, const char *bos, const char *eos, Err *err) {
    Chat *chat = MEM_NEW(Chat);
    Err why = {0};
    *chat = (Chat){jinja_open(jinja, &why), mem_text(bos), mem_text(eos)};
    if (tried(chat, &why)) return chat;
    chat_close(chat);
    jinja += strspn(jinja, " \t\r\n");
    int n = (int)strcspn(jinja, "\r\n");
    err_set(err,
            "the model's chat template (\"%.*s%s\") can't be used: %.200s: give prompt_template, a text with "
            "{problem} in it",
            n > 60 ? 60 : n, jinja, jinja[n > 60 ? 60 : n] ? "..." : "", why.msg);
    return NULL;
}

bool chat_render(const Chat *chat, const ChatTurn *turns, int n, ChatText *out, Err *err) {
    if (!n || strcmp(turns[n - 1].role, "user") != 0)
        return err_set(err, "the last message of a prompt must be the user's");
    Err why = {0};
    if (jinja_render(chat->jinja, turns, n, chat->bos, chat->eos, out, &why)) return true;
    return err_set(err, "the model's chat template can't write the conversation: %s", why.msg);
}

char *chat_prompt_template(const Chat *chat, const char *system, Err *err) {
    ChatText text = {0};
    const ChatTurn turns[] = {{"system", system}, {"user", "{problem}"}};
    bool good = system ? chat_render(chat, turns, 2, &text, err) : chat_render(chat, turns + 1, 1, &text, err);
    char *result = good ? mem_text(text.text.p) : NULL;
    chat_text_free(&text);
    return result;
}

void chat_text_free(ChatText *text) {
    buf_free(&text->text);
    free(text->plain);
    *text = (ChatText){0};
}

void chat_close(Chat *chat) {
    if (!chat) return;
    jinja_close(chat->jinja);
    free(chat->bos);
    free(chat->eos);
    free(chat);
}
