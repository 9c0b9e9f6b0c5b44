/* split.c: cuts text into the words that BPE works on: a list of steps, each a PCRE2 pattern run over every part
 * that the step before it left.
 *
 * It reproduces Hugging Face's Split, Digits and ByteLevel pre-tokenizers, whose patterns are written for
 * Oniguruma. It knows nothing of tokens. Tested by tests/test_rollout_tokenizer.c.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "rollout/tokens.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 16 };

typedef struct {
    pcre2_code *code;
    Keep keep;
    bool invert;
} Step;

struct Splitter {
    Step steps[MOST_STEPS];
    int n;
};

/* ---- UTF-8 ---- */

/* Length of the valid character at p, or 0. */
static size_t char_valid(const unsigned char *p, size_t n) {
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4) return 0;
    size_t length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0; /* longer than needed */
    if (p[0] == 0xed && p[1] > 0x9f) return 0; /* surrogates */
    if (p[0] == 0xf0 && p[1] < 0x90) return 0;
    if (p[0] == 0xf4 && p[1] > 0x8f) return 0; /* above U+10FFFF */
    return length;
}

size_t utf8_valid(const char *text, size_t n) {
    size_t at = 0;
    while (at < n) {
        uint64_t eight;
        while (n - at >= 8 && (memcpy(&eight, text + at, 8), (eight & 0x8080808080808080u) == 0)) at += 8;
        if (at == n) break;
        size_t length = char_valid((const unsigned char *)text + at, n - at);
        if (!length) break;
        at += length;
    }
    return at;
}

/* ---- patterns ---- */

/* PCRE2's \s holds U+180E, which is no white space since Unicode 6.3; the class is spelled out instead. Inside
 * brackets \S can't be spelled out and stays. */
static void pattern_translate(Buf *out, const char *pattern, size_t n) {
    static const char SPACE[] = "\\t-\\r\\x{85}\\p{Z}";
    bool in_class = false;
    for (size_t i = 0; i < n; i++) {
        char c = pattern[i], next = i + 1 < n ? pattern[i + 1] : 0;
        if (c == '\\' && next) {
            i++;
            if (next == 's')
                buf_format(out, in_class ? "%s" : "[%s]", SPACE);
            else if (next == 'S' && !in_class)
                buf_format(out, "[^%s]", SPACE);
            else
                buf_add(out, pattern + i - 1, 2);
            continue;
        }
        if (c == '[') in_class = true;
        if (c == ']') in_class = false;
        buf_char(out, c);
    }
}

Splitter *splitter_new(void) { return MEM_NEW(Splitter); }

bool splitter_add(Splitter *splitter, const char *pattern, size_t n, bool literal, Keep keep, bool invert,
                  const char *where, Err *err) {
    if (splitter->n == MOST_STEPS)
        return err_set(err, "%s: the pre-tokenizer has more than %d steps", where, MOST_STEPS);
    if (n == 0) return err_set(err, "%s: the pre-tokenizer has an empty pattern", where);
    Buf text = {0};
    if (literal)
        buf_add(&text, pattern, n);
    else
        pattern_translate(&text, pattern, n);
    int code;
    PCRE2_SIZE at;
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP);
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)text.p, text.n, options, &code, &at, NULL);
    buf_free(&text);
    if (!compiled) {
        char why[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return err_set(err, "%s: the pre-tokenizer's pattern \"%.*s\" is not supported (%s)", where,
                       n > 120 ? 120 : (int)n, pattern, why);
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* without JIT the interpreter gives the same matches */
    splitter->steps[splitter->n++] = (Step){compiled, keep, invert};
    return true;
}

void splitter_free(Splitter *splitter) {
    if (!splitter) return;
    for (int i = 0; i < splitter->n; i++) pcre2_code_free(splitter->steps[i].code);
    free(splitter);
}

/* ---- running ---- */

typedef struct {
    const Splitter *splitter;
    pcre2_match_data *match;
    pcre2_match_context *context; /* made when a match needs more than the default stack */
    pcre2_jit_stack *stack;
    WordSink *sink;
    void *self;
} Run;

/* The first match at or after `at`; a pattern that runs out of stack or patience matches nothing more, so that the
 * rest of the part is one word. */
static bool match_next(Run *run, const Step *step, const char *text, size_t n, size_t at, size_t *begin,
                       size_t *end) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int found = pcre2_match(step->code, subject, n, at, PCRE2_NO_UTF_CHECK, run->match, run->context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && !run->context) {
        run->context = pcre2_match_context_create(NULL);
        run->stack = pcre2_jit_stack_create(32 << 10, 256 << 20, NULL);
        if (run->context && run->stack) pcre2_jit_stack_assign(run->context, NULL, run->stack);
        found = pcre2_match(step->code, subject, n, at, PCRE2_NO_UTF_CHECK, run->match, run->context);
    }
    if (found < 0) return false;
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(run->match);
    *begin = place[0];
    *end = place[1];
    return *end > *begin; /* an empty match ends the search: the patterns in use have none */
}

static void run_step(Run *run, int at_step, const char *text, size_t n);

static void run_part(Run *run, int at_step, const char *text, size_t begin, size_t end) {
    if (end > begin) run_step(run, at_step + 1, text + begin, end - begin);
}

/* Matches and the gaps between them, in order, as the step keeps them. */
static void run_step(Run *run, int at_step, const char *text, size_t n) {
    if (at_step == run->splitter->n) {
        run->sink(run->self, text, n);
        return;
    }
    const Step *step = &run->splitter->steps[at_step];
    size_t at = 0, begin, end, held = 0; /* contiguous: matches from `held` up to `at` wait to be one part */
    while (at < n && match_next(run, step, text, n, at, &begin, &end)) {
        if (step->keep == KEEP_ISOLATED) {
            run_part(run, at_step, text, at, begin);
            run_part(run, at_step, text, begin, end);
        } else if (step->keep == KEEP_REMOVED) {
            if (step->invert)
                run_part(run, at_step, text, begin, end);
            else
                run_part(run, at_step, text, at, begin);
        } else if (begin > at) {
            run_part(run, at_step, text, held, at);
            run_part(run, at_step, text, at, begin);
            held = begin;
        }
        at = end;
    }
    if (step->keep == KEEP_CONTIGUOUS) run_part(run, at_step, text, held, at);
    if (step->keep != KEEP_REMOVED || !step->invert) run_part(run, at_step, text, at, n);
}

void splitter_run(const Splitter *splitter, const char *text, size_t n, WordSink *sink, void *self) {
    Run run = {.splitter = splitter, .sink = sink, .self = self};
    run.match = pcre2_match_data_create(1, NULL);
    CHECK(run.match, "no memory for a match");
    run_step(&run, 0, text, n);
    pcre2_match_data_free(run.match);
    if (run.context) pcre2_match_context_free(run.context);
    if (run.stack) pcre2_jit_stack_free(run.stack);
}
