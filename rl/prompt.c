/* prompt.c: renders prompts and encodes them. Tested by tests/test_rl_eval.c. */
#include "rl/prompt.h"

#include "datasets/datasets.h"

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
static bool spells_special(const Tokenizer *tok, const char *text) {
    Prompt plain = {0}, special = {0};
    encode(&plain, tok, text, strlen(text), false);
    encode(&special, tok, text, strlen(text), true);
    bool same =
        plain.n == special.n && (!plain.n || !memcmp(plain.ids, special.ids, (size_t)plain.n * sizeof(int)));
    prompt_free(&plain);
    prompt_free(&special);
    return !same;
}

bool prompt_make(Prompt *prompt, const Tokenizer *tok, const char *template_text, const char *problem, Err *err) {
    Span spans[TEMPLATE_SPANS_MAX];
    int n = template_render(spans, template_text ? template_text : "{problem}", problem, err);
    if (n < 0) return false;
    prompt->n = 0;
    buf_clear(&prompt->text);
    buf_text(&prompt->text, "");
    bool apart = spells_special(tok, problem);
    for (int i = 0; i < n; i++) {
        buf_add(&prompt->text, spans[i].text, spans[i].n);
        if (apart) encode(prompt, tok, spans[i].text, spans[i].n, spans[i].special);
    }
    if (!apart) encode(prompt, tok, prompt->text.p, prompt->text.n, true);
    frame(prompt, tok);
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
