/* prompt.c: renders prompts and encodes them. Tested by tests/test_rl_eval.c. */
#include "rl/prompt.h"

#include "datasets/datasets.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void encode(Prompt *prompt, const Tokenizer *tok, const char *text, size_t n, bool special) {
    tokenizer_encode(tok, text, n, special, &prompt->ids, &prompt->n, &prompt->room);
}

/* What the tokenizer's settings put before a text, unless the text itself begins with it. */
static void frame(Prompt *prompt, const Tokenizer *tok) {
    int before[4], after[4], n_before, n_after;
    tokenizer_frame(tok, before, &n_before, after, &n_after);
    if (!n_before || (prompt->n >= n_before && !memcmp(prompt->ids, before, (size_t)n_before * sizeof(int))))
        return;
    if (prompt->n + n_before > prompt->room) {
        prompt->room = prompt->n + n_before;
        prompt->ids = mem_grow(prompt->ids, (size_t)prompt->room, sizeof(int));
    }
    memmove(prompt->ids + n_before, prompt->ids, (size_t)prompt->n * sizeof(int));
    memcpy(prompt->ids, before, (size_t)n_before * sizeof(int));
    prompt->n += n_before;
}

/* Whether the plain text spells a control token. */
static bool spells_special(const Tokenizer *tok, const char *text, size_t n) {
    Prompt plain = {0}, special = {0};
    encode(&plain, tok, text, n, false);
    encode(&special, tok, text, n, true);
    bool same =
        plain.n == special.n && (!plain.n || !memcmp(plain.ids, special.ids, (size_t)plain.n * sizeof(int)));
    prompt_free(&plain);
    prompt_free(&special);
    return !same;
}

/* Encodes pieces as one text, or apart where a plain one spells a control token. */
static void encode_spans(Prompt *prompt, const Tokenizer *tok, const Span *spans, int n) {
    prompt->n = 0;
    buf_clear(&prompt->text);
    buf_text(&prompt->text, "");
    bool apart = false;
    for (int i = 0; i < n; i++) {
        buf_add(&prompt->text, spans[i].text, spans[i].n);
        apart = apart || (!spans[i].special && spells_special(tok, spans[i].text, spans[i].n));
    }
    for (int i = 0; apart && i < n; i++) encode(prompt, tok, spans[i].text, spans[i].n, spans[i].special);
    if (!apart) encode(prompt, tok, prompt->text.p, prompt->text.n, true);
    frame(prompt, tok);
}

/* ---- conversations ---- */

/* The messages of a problem that is a conversation; NULL: it is a text. */
static json_t *messages_of(const char *problem) {
    static const char BEGIN[] = "[{\"role\":\"";
    json_t *list = strncmp(problem, BEGIN, sizeof BEGIN - 1) == 0 ? json_loads(problem, 0, NULL) : NULL, *one;
    size_t i;
    bool good = json_array_size(list) > 0;
    json_array_foreach(list, i, one) {
        good = good && json_object_size(one) == 2 && json_is_string(json_object_get(one, "role")) &&
               json_is_string(json_object_get(one, "content"));
    }
    if (good) return list;
    json_decref(list);
    return NULL;
}

/* Has the chat format write the turns, after the form's system message where they have none. */
static bool turns_make(Prompt *prompt, const Tokenizer *tok, const PromptForm *form, const ChatTurn *turns, int n,
                       Err *err) {
    ChatTurn *all = MEM_ARRAY(ChatTurn, n + 1);
    ChatText text = {0};
    int count = 0, more = form->system && strcmp(turns[0].role, "system") != 0;
    all[0] = (ChatTurn){"system", form->system};
    memcpy(all + more, turns, (size_t)n * sizeof *turns);
    bool good = chat_render(form->chat, all, more + n, &text, err);
    if (good) {
        Span *spans = MEM_ARRAY(Span, 2 * text.n + 1);
        size_t at = 0;
        for (int i = 0; i < text.n; i++) {
            spans[count++] = (Span){text.text.p + at, text.plain[i].begin - at, true};
            spans[count++] =
                (Span){text.text.p + text.plain[i].begin, text.plain[i].end - text.plain[i].begin, false};
            at = text.plain[i].end;
        }
        spans[count++] = (Span){text.text.p + at, text.text.n - at, true};
        encode_spans(prompt, tok, spans, count);
        free(spans);
    }
    chat_text_free(&text);
    free(all);
    return good;
}

static bool conversation_make(Prompt *prompt, const Tokenizer *tok, const PromptForm *form, const json_t *messages,
                              Err *err) {
    int n = (int)json_array_size(messages);
    if (!form->chat)
        return err_set(
            err,
            "a problem is a conversation of %d messages, for which %s: leave prompt_template out and take "
            "a model with a chat template",
            n, form->text ? "prompt_template has no place" : "the model has no chat template");
    ChatTurn *turns = MEM_ARRAY(ChatTurn, n);
    for (int i = 0; i < n; i++) {
        const json_t *one = json_array_get(messages, (size_t)i);
        turns[i] = (ChatTurn){json_string_value(json_object_get(one, "role")),
                              json_string_value(json_object_get(one, "content"))};
    }
    bool good = turns_make(prompt, tok, form, turns, n, err);
    free(turns);
    return good;
}

bool prompt_make(Prompt *prompt, const Tokenizer *tok, const PromptForm *form, const char *problem, Err *err) {
    json_t *messages = messages_of(problem);
    if (messages) {
        bool good = conversation_make(prompt, tok, form, messages, err);
        json_decref(messages);
        return good;
    }
    if (form->chat) return turns_make(prompt, tok, form, &(ChatTurn){"user", problem}, 1, err);
    Span spans[TEMPLATE_SPANS_MAX];
    int n = template_render(spans, form->text ? form->text : "{problem}", problem, err);
    if (n < 0) return false;
    encode_spans(prompt, tok, spans, n);
    return true;
}

void prompt_raw(Prompt *prompt, const Tokenizer *tok, const char *text) {
    prompt->n = 0;
    buf_clear(&prompt->text);
    buf_text(&prompt->text, text);
    encode(prompt, tok, text, strlen(text), true);
    frame(prompt, tok);
}

void prompt_free(Prompt *prompt) {
    buf_free(&prompt->text);
    free(prompt->ids);
    *prompt = (Prompt){0};
}
