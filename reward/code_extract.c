/* code_extract.c: finds the program in a response: the last fenced block of the language, the whole text, or the
 * continuation of a prompt. Runs nothing, parses no language. Tested by tests/test_reward_code.c. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "reward/code.h"

typedef struct {
    const char *p;
    size_t n;
} Span;

static const char *line_end(const char *p) {
    const char *end = strchr(p, '\n');
    return end ? end : p + strlen(p);
}

static const char *skip_blanks(const char *p) {
    while (*p == ' ' || *p == '\t') p++;
    return p;
}

/* The number of backquotes or tildes that open or close a block at this line, or 0. */
static int fence_length(const char *line) {
    const char *p = skip_blanks(line);
    int n = 0;
    while ((*p == '`' || *p == '~') && p[n] == *p) n++;
    return n >= 3 ? n : 0;
}

/* The word after an opening fence. "python", "python3 title=x", "{.python}" all count as python. */
static Span fence_tag(const char *line) {
    const char *p = skip_blanks(line);
    p = skip_blanks(p + fence_length(line));
    while (*p == '{' || *p == '.') p++;
    size_t n = strcspn(p, " \t\r\n,{}:");
    return (Span){p, n};
}

/* The last block whose tag names the language; the last one without a tag when there is none; an unclosed block
 * goes to the end. *any tells whether there was any block at all. */
static bool last_block(const char *text, const Language *language, Span *found, bool *any) {
    Span plain = {0};
    bool got = false;
    *any = false;
    for (const char *line = text; *line;) {
        const char *end = line_end(line), *body = *end ? end + 1 : end;
        int fence = fence_length(line);
        if (fence) {
            char mark = *skip_blanks(line);
            const char *close = body;
            while (*close && !(fence_length(close) >= fence && *skip_blanks(close) == mark)) {
                const char *next = line_end(close);
                close = *next ? next + 1 : next;
            }
            Span tag = fence_tag(line), block = {body, (size_t)(close - body)};
            *any = true;
            if (tag.n && language_has_name(language, tag.p, tag.n))
                *found = block, got = true;
            else if (!tag.n)
                plain = block;
            const char *after = line_end(close);
            line = *after ? after + 1 : after;
        } else {
            line = body;
        }
    }
    if (!got && plain.p) *found = plain, got = true;
    return got;
}

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Where a line defines the entry point (`def name(`, `class name`, in C any line that begins with a type and has
 * `name(`), or NULL. */
static const char *definition_of(const char *text, const char *name) {
    size_t n = name ? strlen(name) : 0;
    if (!n) return NULL;
    for (const char *at = text; (at = strstr(at, name)); at += n) {
        if ((at > text && is_word(at[-1])) || is_word(at[n])) continue;
        const char *line = at;
        while (line > text && line[-1] != '\n') line--;
        if (!strncmp(line, "def ", 4) || !strncmp(line, "class ", 6) || !strncmp(line, "async def ", 10))
            return line;
    }
    return NULL;
}

static bool is_blank(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isspace((unsigned char)p[i])) return false;
    return true;
}

/* Joins the parts of a program, each on lines of its own unless the first ends in the middle of one. */
static char *joined(const char *head, size_t n_head, const char *tail, size_t n_tail, bool newline) {
    Buf buf = {0};
    buf_add(&buf, head, n_head);
    if (newline && n_head && head[n_head - 1] != '\n') buf_char(&buf, '\n');
    buf_add(&buf, tail, n_tail);
    buf_char(&buf, '\0');
    return buf.p;
}

char *code_extract(const char *completion, const char *prompt, const char *entry_point, const Language *language) {
    for (const char *think; (think = strstr(completion, "</think>"));) completion = think + 8;
    Span block = {completion, strlen(completion)};
    bool any = false, fenced = last_block(completion, language, &block, &any);
    if (any && !fenced) return NULL;
    if (is_blank(block.p, block.n)) return NULL;
    /* A prompt that opens the entry point's definition is to be continued; one in words is only the problem. */
    const char *opened = prompt && !language->suffix ? definition_of(prompt, entry_point) : NULL;
    if (!opened) {
        bool begun = prompt && language->main_mark && !strstr(block.p, language->main_mark) &&
                     strstr(prompt, language->main_mark);
        return begun ? joined(prompt, strlen(prompt), block.p, block.n, fenced) : mem_text_n(block.p, block.n);
    }
    char *text = mem_text_n(block.p, block.n);
    bool whole = definition_of(text, entry_point) != NULL;
    free(text);
    /* A whole program may still lean on the imports and helpers before the definition. */
    size_t n_head = whole ? (size_t)(opened - prompt) : strlen(prompt);
    return joined(prompt, n_head, block.p, block.n, whole || fenced);
}
