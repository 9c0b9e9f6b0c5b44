/* math_extract.c: from a whole response (or a gold answer) to the texts that may be the answer, best first.
 *
 * Only the end of a response is read (WINDOW_MAX bytes), and each pattern costs one pass over it. What a text
 * means is not known here. Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_parts.h"

enum {
    THOUGHT_MAX = 1 << 22,
    WINDOW_MAX = 32768,
    BOXES_MAX = 16,
    BOX_MAX = TEXT_MAX + 64,
    CLAUSE_MAX = 400,
    ENVS_MAX = 8
};

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static Span span_of(const char *p, const char *end) { return (Span){p, end > p ? (size_t)(end - p) : 0}; }

static bool starts(const char *p, const char *end, const char *word) {
    size_t n = strlen(word);
    return (size_t)(end - p) >= n && !memcmp(p, word, n);
}

static bool letter_is(char c, char pattern) { return pattern == ' ' ? is_space(c) : lower(c) == pattern; }

/* The last place of a word in a span, ASCII letters compared without case, any blank for a blank; NULL when it is
 * not there. */
static const char *find_last(Span s, const char *word) {
    size_t n = strlen(word);
    char first = lower(word[0]);
    for (size_t i = s.n >= n ? s.n - n + 1 : 0; i-- > 0;) {
        if (!letter_is(s.p[i], first)) continue;
        size_t k = 1;
        while (k < n && letter_is(s.p[i + k], word[k])) k++;
        if (k == n) return s.p + i;
    }
    return NULL;
}

static Span trim(Span s) {
    while (s.n && is_space(s.p[0])) s.p++, s.n--;
    while (s.n && is_space(s.p[s.n - 1])) s.n--;
    return s;
}

/* Takes away what surrounds an answer in prose: stars, quotes, points and commas at the end. */
static Span trim_prose(Span s) {
    for (size_t before = 0; before != s.n;) {
        before = s.n;
        s = trim(s);
        while (s.n && strchr("*`\"_:", s.p[0])) s.p++, s.n--;
        while (s.n && strchr("*`\".,;:", s.p[s.n - 1])) s.n--;
        if (s.n && s.p[s.n - 1] == '\\') s.n--;
        if (s.n > 3 && !memcmp(s.p + s.n - 3, "\xe3\x80\x82", 3)) s.n -= 3; /* the full stop of Chinese */
    }
    return s;
}

static void candidate_add(Arena *arena, Candidates *out, Span s, const char *how) {
    s = trim_prose(s);
    if (!s.n || out->n == (int)(sizeof out->c / sizeof out->c[0])) return;
    char *text = text_plain(arena, s.p, s.n, TEXT_MAX + 1);
    for (int i = 0; i < out->n; i++)
        if (!strcmp(out->c[i].text, text)) return;
    out->c[out->n++] = (Candidate){text, how};
}

/* ---- boxes ---- */

/* The end of the braces that open at p, or NULL when they do not close within the limit. */
static const char *braces_end(const char *p, const char *end) {
    int depth = 0;
    if (end - p > BOX_MAX) end = p + BOX_MAX;
    for (; p < end; p++) {
        if (*p == '\\' && p + 1 < end)
            p++;
        else if (*p == '{')
            depth++;
        else if (*p == '}' && --depth == 0)
            return p;
    }
    return NULL;
}

/* Letters that are no word of mathematics. "1orW(x)": the separator glued between a digit and a name is none
 * either. */
static bool is_word(const char *text, const char *p, size_t n) {
    if (n < 2 || word_find(p, n).kind != WORD_NONE) return false;
    return !(n == 3 && p > text && is_digit(p[-1]) && p[0] == 'o' && p[1] == 'r' && p[2] >= 'A' && p[2] <= 'Z');
}

/* How many words are not mathematics? Such as stand in \text{} or after a backslash don't count. */
static int prose_words(Span s) {
    int words = 0;
    for (const char *p = s.p, *end = s.p + s.n; p < end;) {
        if ((unsigned char)*p == 0xe0 || (unsigned char)*p == 0xe1 ||
            ((unsigned char)*p >= 0xe3 && (unsigned char)*p <= 0xed))
            return 99; /* CJK and neighbours */
        if (*p == '\\' && p + 1 < end && is_alpha(p[1])) {
            bool text = starts(p, end, "\\text") || starts(p, end, "\\mbox");
            for (p++; p < end && is_alpha(*p); p++) {
            }
            const char *close = text && p < end && *p == '{' ? braces_end(p, end) : NULL;
            if (close) p = close;
            continue;
        }
        const char *first = p;
        while (p < end && (unsigned char)*p >= 0xc3 && (unsigned char)*p <= 0xdf && p + 1 < end) p += 2;
        words += p - first >= 6; /* three letters of another alphabet */
        first = p;
        while (p < end && is_alpha(*p)) p++;
        size_t n = (size_t)(p - first);
        if (n >= 2 && is_word(s.p, first, n) && !(p < end && *p == '(' && n < 3)) words++;
        if (n == 0) p++;
    }
    return words;
}

static bool is_prose(Span s) { return prose_words(s) > 2; }

typedef struct {
    const char *start, *end; /* the whole command */
    Span content;
    bool closed;
} Box;

static bool box_read(const char *at, const char *end, Box *box) {
    const char *p = at + (at[1] == 'f' ? 5 : 6);
    while (p < end && is_space(*p)) p++;
    *box = (Box){.start = at, .closed = true};
    if (p < end && *p == '{') {
        const char *close = braces_end(p, end);
        box->closed = close != NULL;
        box->content = span_of(p + 1, close ? close : end);
        box->end = close ? close + 1 : end;
        return true;
    }
    const char *stop = p;
    while (stop < end && (is_digit(*stop) || is_alpha(*stop) || *stop == '.')) stop++;
    box->content = span_of(p, stop);
    box->end = stop;
    return stop > p;
}

/* The last boxes of a text in their order, those inside others left out. */
static int boxes_find(Span s, Box *boxes) {
    const char *ring[BOXES_MAX], *end = s.p + s.n;
    int64_t seen = 0;
    for (const char *p = s.p; (p = memchr(p, '\\', (size_t)(end - p))); p++)
        if (starts(p, end, "\\boxed") || starts(p, end, "\\fbox")) ring[seen++ % BOXES_MAX] = p;
    int n = 0;
    for (int64_t i = seen > BOXES_MAX ? seen - BOXES_MAX : 0; i < seen; i++) {
        Box box;
        const char *at = ring[i % BOXES_MAX];
        if (n && boxes[n - 1].closed && at < boxes[n - 1].end) continue;
        if (!box_read(at, end, &box)) continue;
        if (!box.closed && i + 1 < seen) continue;
        boxes[n++] = box;
    }
    return n;
}

static bool span_ends(Span s, const char *word) {
    size_t n = strlen(word);
    return s.n >= n && !memcmp(s.p + s.n - n, word, n);
}

static Span cut_end(Span s, size_t n) { return (Span){s.p, s.n - n}; }

/* Takes a name and its equal sign from the end: "... y_2 =". */
static Span cut_name(Span s) {
    if (!span_ends(s, "=")) return s;
    Span t = trim(cut_end(s, 1));
    size_t n = t.n;
    while (n && (is_alpha(t.p[n - 1]) || is_digit(t.p[n - 1]) || strchr("_{}'", t.p[n - 1]))) n--;
    return (Span){t.p, n};
}

/* Does the text between two boxes join their contents to one answer? */
static bool gap_joins(Span gap) {
    if (gap.n < 10) return true;
    if (gap.n >= 70) return false;
    static const char *const frames[] = {"$", "\\(",    "\\[",     "\\)",    "\\]", "{",
                                         "}", "\\quad", "\\qquad", "\\text", "\\",  ":"};
    gap = cut_name(trim(gap));
    for (size_t before = 0; before != gap.n;) {
        before = gap.n;
        gap = trim(gap);
        for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++)
            if (span_ends(gap, frames[i])) gap = cut_end(gap, strlen(frames[i]));
    }
    static const char *const joints[] = {" and", "$and", "{and", " or", "$or", "{or", ",", ";"};
    for (size_t i = 0; i < sizeof joints / sizeof joints[0]; i++)
        if (span_ends(gap, joints[i])) return true;
    return (gap.n == 3 && span_ends(gap, "and")) || (gap.n == 2 && span_ends(gap, "or"));
}

static bool span_same(Span a, Span b) { return a.n == b.n && !memcmp(a.p, b.p, a.n); }

/* A sentence in a box with a box of its own: the inner one counts. */
static Span box_inner(Span content) {
    Box boxes[BOXES_MAX];
    for (int depth = 0; depth < 4; depth++) {
        const char *inner = memmem(content.p, content.n, "\\boxed", 6);
        if (!inner || !prose_words(span_of(content.p, inner))) break;
        int n = boxes_find(content, boxes);
        if (!n) break;
        content = boxes[n - 1].content;
    }
    return content;
}

static void sentence_extract(Arena *arena, Span s, Candidates *out);

/* False when there is no box at all. */
static bool boxes_extract(Arena *arena, Span s, bool strict, Candidates *out) {
    Box boxes[BOXES_MAX];
    int n = boxes_find(s, boxes);
    if (!n) return false;
    for (int i = 0; i < n; i++) boxes[i].content = box_inner(boxes[i].content);
    Box last = boxes[n - 1];
    if (is_prose(last.content) && last.content.n <= TEXT_MAX) sentence_extract(arena, last.content, out);
    if (strict) {
        if (last.closed) candidate_add(arena, out, last.content, "last box");
        return true;
    }
    int first = n - 1;
    while (first > 0) {
        Span gap = span_of(boxes[first - 1].end, boxes[first].start);
        bool same = span_same(trim(boxes[first - 1].content), trim(boxes[first].content));
        if (!same && !gap_joins(gap)) break;
        if (same && gap.n > 1000) break;
        first--;
    }
    Buf joined = {0};
    for (int i = first; i < n; i++) {
        bool again = false;
        for (int k = first; k < i; k++) again |= span_same(trim(boxes[k].content), trim(boxes[i].content));
        if (again || joined.n > TEXT_MAX) continue;
        if (joined.n) buf_text(&joined, ", ");
        buf_add(&joined, boxes[i].content.p, boxes[i].content.n < BOX_MAX ? boxes[i].content.n : BOX_MAX);
    }
    if (joined.n) candidate_add(arena, out, (Span){joined.p, joined.n}, last.closed ? "box" : "unclosed box");
    buf_free(&joined);
    const char *after = last.end, *end = s.p + s.n;
    while (after < end && (is_space(*after) || strchr("$)\\", *after))) after++;
    if (last.closed && starts(after, end, "%")) { /* \boxed{28}\% */
        Buf percent = {0};
        buf_add(&percent, last.content.p, last.content.n);
        buf_text(&percent, "\\%");
        out->n = out->n ? out->n - 1 : 0;
        candidate_add(arena, out, (Span){percent.p, percent.n}, "box");
        buf_free(&percent);
    }
    return true;
}

/* ---- mathematical environments ---- */

static bool escaped(const char *text, const char *p) { return p > text && p[-1] == '\\'; }

/* The end of the environment that opens at p, after its closing mark; its content in *in. NULL when there is none.
 */
static const char *env_read(Span s, const char *p, Span *in) {
    const char *end = s.p + s.n, *open = p, *close;
    const char *mark;
    if (starts(p, end, "$$"))
        mark = "$$";
    else if (*p == '$')
        mark = "$";
    else if (starts(p, end, "\\["))
        mark = "\\]";
    else if (starts(p, end, "\\("))
        mark = "\\)";
    else
        return NULL;
    open += strlen(mark);
    for (close = open; close < end; close++) {
        if (*close == '\\' && !starts(close, end, mark))
            close++;
        else if (starts(close, end, mark)) {
            *in = span_of(open, close);
            return close + strlen(mark);
        } else if (mark[0] == '$' && mark[1] == 0 && starts(close, end, "\n\n"))
            return NULL;
    }
    return NULL;
}

typedef struct {
    const char *start, *end;
    Span content;
} Env;

/* " [ ... ] " with blanks inside: what is left of \\[ ... \\] where backslashes were lost. */
static const char *bracket_env(Span s, const char *p, Span *in) {
    const char *end = s.p + s.n;
    if ((p > s.p && !is_space(p[-1])) || p + 2 >= end || !is_space(p[1])) return NULL;
    const char *limit = end - p > 300 ? p + 300 : end;
    for (const char *q = p + 2; q + 1 < limit; q++)
        if (is_space(*q) && q[1] == ']') {
            *in = span_of(p + 1, q);
            return q + 2;
        }
    return NULL;
}

static int envs_find(Span s, Env *envs) {
    const char *end = s.p + s.n;
    int n = 0;
    for (const char *p = s.p; p < end;) {
        Span in;
        bool opens = (*p == '$' && !escaped(s.p, p)) ||
                     (*p == '\\' && p + 1 < end && strchr("[(", p[1]) && !escaped(s.p, p));
        const char *after = opens ? env_read(s, p, &in) : *p == '[' ? bracket_env(s, p, &in) : NULL;
        if (!after || (in.n == 0)) {
            p += after ? after - p : 1;
            continue;
        }
        if (n == ENVS_MAX) memmove(envs, envs + 1, sizeof *envs * (ENVS_MAX - 1)), n--;
        envs[n++] = (Env){p, after, in};
        p = after;
    }
    return n;
}

/* After an environment: a percent sign or word belongs to it. */
static bool percent_follows(const char *p, const char *end) {
    while (p < end && *p == ' ') p++;
    return starts(p, end, "%") || starts(p, end, "\\%") || starts(p, end, "percent") || starts(p, end, "pct");
}

static bool env_joins(Span gap) {
    gap = trim(gap);
    if (gap.n && gap.p[0] == ',') gap = trim((Span){gap.p + 1, gap.n - 1});
    return gap.n == 0 || (gap.n == 3 && !memcmp(gap.p, "and", 3)) || (gap.n == 2 && !memcmp(gap.p, "or", 2));
}

/* The environments i.. joined, first one at i. */
static void env_group_add(Arena *arena, const Env *envs, int first, int last, const char *end, const char *how,
                          Candidates *out) {
    Buf joined = {0};
    for (int i = first; i <= last; i++) {
        if (i > first) buf_text(&joined, ", ");
        if (joined.n + envs[i].content.n > 2 * TEXT_MAX) break;
        buf_add(&joined, envs[i].content.p, envs[i].content.n);
        if (percent_follows(envs[i].end, end)) buf_text(&joined, "\\%");
    }
    candidate_add(arena, out, (Span){joined.p, joined.n}, how);
    buf_free(&joined);
}

/* The first group of environments of a clause, or the last one of a text. */
static void envs_extract(Arena *arena, Span s, bool from_end, const char *how, Candidates *out) {
    Env envs[ENVS_MAX];
    int n = envs_find(s, envs);
    if (!n) return;
    const char *end = s.p + s.n;
    int first = from_end ? n - 1 : 0, last = first;
    if (from_end)
        while (first > 0 && env_joins(span_of(envs[first - 1].end, envs[first].start))) first--;
    else
        while (last + 1 < n && env_joins(span_of(envs[last].end, envs[last + 1].start))) last++;
    env_group_add(arena, envs, first, last, end, how, out);
    if (!from_end) return;
    for (int i = first - 1; i >= 0 && i >= first - 3; i--) env_group_add(arena, envs, i, i, end, how, out);
}

/* ---- plain numbers ---- */

static bool number_char(char c) { return is_digit(c) || c == '.' || c == ',' || c == '/'; }

/* A number may not be glued to a letter, an underscore or a caret on its left. */
static bool number_starts(const char *text, const char *p) {
    if (p - text >= 2 && p[-1] == '{' && strchr("_^", p[-2])) return false;
    return p == text || !(is_alpha(p[-1]) || strchr("_^.\\", p[-1]));
}

/* "1 234 567": groups of three digits before `first` belong to its number. */
static const char *groups_before(Span s, const char *first) {
    for (;;) {
        const char *stop = first;
        while (stop < s.p + s.n && is_digit(*stop)) stop++;
        if (stop - first != 3 || first - s.p < 2 || first[-1] != ' ' || !is_digit(first[-2])) return first;
        const char *group = first - 1;
        while (group > s.p && is_digit(group[-1])) group--;
        if (first - 1 - group > 3 || !number_starts(s.p, group) || (group > s.p && strchr(",/", group[-1])))
            return first;
        first = group;
    }
}

static Span number_at(Span s, const char *first) {
    const char *end = s.p + s.n, *p = first;
    while (p < end && number_char(*p)) p++;
    while (p > first && !is_digit(p[-1])) p--;
    if (starts(p, end, "%") || starts(p, end, "\\%")) p += *p == '%' ? 1 : 2;
    const char *start = groups_before(s, first);
    if (start > s.p && start[-1] == '.' && (start == s.p + 1 || !is_digit(start[-2]))) start--;
    const char *sign = start;
    if (sign > s.p && sign[-1] == '$') sign--;
    if (sign > s.p && sign[-1] == '-' && (sign - 1 == s.p || is_space(sign[-2]) || strchr("=(:$*", sign[-2])))
        start = sign - 1;
    return span_of(start, p);
}

static bool number_last(Span s, Span *out) {
    const char *p = s.p + s.n;
    while (p > s.p) {
        while (p > s.p && !is_digit(p[-1])) p--;
        if (p == s.p) return false;
        const char *first = p;
        while (first > s.p && number_char(first[-1])) first--;
        while (first < p && !is_digit(*first)) first++;
        if (number_starts(s.p, first) ||
            (first > s.p && first[-1] == '.' && first - 1 > s.p && !is_digit(first[-2]))) {
            *out = number_at(s, first);
            return true;
        }
        p = first;
    }
    return false;
}

static bool number_first(Span s, Span *out) {
    for (const char *p = s.p; p < s.p + s.n; p++) {
        if (!is_digit(*p)) continue;
        if (number_starts(s.p, p)) {
            *out = number_at(s, p);
            return true;
        }
        while (p + 1 < s.p + s.n && number_char(p[1])) p++;
    }
    return false;
}

/* ---- anchors: "the answer is", "####" ---- */

static Span clause_after(Span s, const char *p) {
    const char *end = s.p + s.n, *stop = p;
    if (end - p > CLAUSE_MAX) end = p + CLAUSE_MAX;
    for (; stop < end; stop++) {
        if (starts(stop, end, "\n") && trim(span_of(p, stop)).n > 8) break;
        bool point = *stop == '.' || starts(stop, end, "\xe3\x80\x82");
        if (point && stop + 1 < end && is_space(stop[1]) && stop + 2 < end &&
            (is_alpha(stop[2]) || is_space(stop[2])))
            break;
        if (starts(stop, end, "<|")) break;
    }
    return span_of(p, stop);
}

/* May this text be an answer as a whole (where words alone are no answer, unless asked for)? Mathematics, a few
 * words, or a value with words (its unit) behind it. */
static bool is_answer(Span s, bool words_too) {
    Env envs[ENVS_MAX];
    int words = prose_words(s);
    if (words == 0) return true;
    if (words > 3 || envs_find(s, envs)) return false;
    size_t first = s.n, last_digit = 0; /* of the first word that is none of mathematics */
    for (size_t i = 0, n; i < s.n; i += n ? n : 1) {
        for (n = 0; i + n < s.n && (is_alpha(s.p[i + n]) || (unsigned char)s.p[i + n] >= 0x80); n++) {
        }
        bool command = i && s.p[i - 1] == '\\';
        if (n >= 2 && !command && first == s.n && is_word(s.p, s.p + i, n)) first = i;
        if (is_digit(s.p[i]) && !(i && s.p[i - 1] == '^')) last_digit = i + 1;
    }
    if (!last_digit) return words_too;
    return last_digit <= first && first > 0;
}

/* What follows the last word of being in the clause, or its colon; the whole clause when it has neither. */
static Span clause_value(Span clause) {
    static const char *const verbs[] = {" is ",       " is:",       " are ",        " be ",
                                        " est ",      " ist ",      " es ",         " = ",
                                        " \xc3\xa8 ", " \xc3\xa9 ", "\xe6\x98\xaf", "\xe4\xb8\xba"};
    const char *best = NULL;
    size_t skip = 0;
    size_t limit = clause.n < 160 ? clause.n : 160;
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        const char *at = find_last((Span){clause.p, limit}, verbs[i]);
        bool inside = false;
        for (const char *q = clause.p; at && q < at; q++) inside ^= *q == '$';
        if (at && !inside && (!best || at > best)) best = at, skip = strlen(verbs[i]);
    }
    if (!best) {
        best = memchr(clause.p, ':', clause.n < 40 ? clause.n : 40);
        skip = 1;
    }
    return best ? span_of(best + skip, clause.p + clause.n) : clause;
}

static void clause_extract(Arena *arena, Span s, const char *from, const char *how, Candidates *out) {
    Span value = trim_prose(clause_value(clause_after(s, from)));
    int before = out->n;
    envs_extract(arena, value, false, how, out);
    if (out->n > before) return;
    if (is_answer(value, out->words)) candidate_add(arena, out, value, how);
    Span number;
    if (number_first(value, &number)) candidate_add(arena, out, number, how);
}

/* Words that announce an answer, in several languages. */
static const char *const anchors[] = {
    "final answer",
    "answer",
    "r\xc3\xa9ponse",
    "respuesta",
    "antwort",
    "risposta",
    "resposta",
    "\xe7\xad\x94\xe6\xa1\x88",
    "\xe7\xad\x94\xe3\x81\x88",
    "\xd0\xbe\xd1\x82\xd0\xb2\xd0\xb5\xd1\x82",
    "\xd0\x9e\xd1\x82\xd0\xb2\xd0\xb5\xd1\x82",
    "odpowied\xc5\xba",
    "cevap",
    "antwoord",
    "\xc4\x91\xc3\xa1p \xc3\xa1n",
    "\xd8\xa7\xd9\x84\xd8\xac\xd9\x88\xd8\xa7\xd8\xa8",
    "\xec\xa0\x95\xeb\x8b\xb5",
    "\xe0\xa4\x89\xe0\xa4\xa4\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa4\xb0",
};

static void anchors_extract(Arena *arena, Span s, Candidates *out) {
    const char *hash = find_last(s, "####");
    if (hash) {
        const char *end = memchr(hash, '\n', (size_t)(s.p + s.n - hash));
        candidate_add(arena, out, span_of(hash + 4, end ? end : s.p + s.n), "####");
    }
    const char *best = NULL;
    size_t skip = 0;
    for (size_t i = 0; i < sizeof anchors / sizeof anchors[0]; i++) {
        const char *at = find_last(s, anchors[i]);
        if (at && (i < 1 || !best || at > best + skip)) best = at, skip = strlen(anchors[i]);
        if (i == 0 && best) break;
    }
    if (best) clause_extract(arena, s, best + skip, "after \"answer\"", out);
}

/* ---- whole texts ---- */

static void whole_extract(Arena *arena, Span s, Candidates *out) {
    Span t = trim_prose(s);
    if (t.n > 400) return;
    if (is_answer(t, out->words)) candidate_add(arena, out, t, "whole text");
}

/* The last \frac{a}{b} that stands in no environment, with its sign. */
static bool fraction_last(Span s, Span *out) {
    for (const char *p = s.p + s.n; p-- > s.p;) {
        if (*p != '\\') continue;
        bool fraction = starts(p, s.p + s.n, "\\frac{") || starts(p, s.p + s.n, "\\dfrac{") ||
                        starts(p, s.p + s.n, "\\tfrac{");
        if (!fraction) continue;
        const char *top = braces_end(memchr(p, '{', 8), s.p + s.n);
        const char *bottom = top && top[1] == '{' ? braces_end(top + 1, s.p + s.n) : NULL;
        if (!bottom) return false;
        const char *first = p;
        while (first > s.p && is_digit(first[-1])) first--;
        if (first > s.p && first[-1] == '-') first--;
        *out = span_of(first, bottom + 1);
        return true;
    }
    return false;
}

/* What follows the text's last "is", when it goes to the end: "The coordinates are (3, 4)." */
static void statement_extract(Arena *arena, Span s, Candidates *out) {
    static const char *const verbs[] = {" is ", " are ", " equals ", " be ", " est ", " ist ", " es "};
    const char *best = NULL;
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        const char *at = find_last(s, verbs[i]);
        if (at && (!best || at + strlen(verbs[i]) > best)) best = at + strlen(verbs[i]);
    }
    if (!best) return;
    Span value = trim_prose(span_of(best, s.p + s.n));
    if (value.n && value.n < 200 && !memchr(value.p, '\n', value.n) && is_answer(value, out->words))
        candidate_add(arena, out, value, "last statement");
}

static void last_extract(Arena *arena, Span s, Candidates *out) {
    Env envs[ENVS_MAX];
    Span number = {0}, fraction = {0};
    int n = envs_find(s, envs);
    Span rest = n ? span_of(envs[n - 1].end, s.p + s.n) : s;
    bool fractional = fraction_last(rest, &fraction);
    bool numbered = number_last(s, &number);
    if (!n) statement_extract(arena, s, out);
    if (fractional && (!numbered || number.p < fraction.p + fraction.n))
        candidate_add(arena, out, fraction, "last fraction");
    if (numbered && (!n || number.p >= envs[n - 1].end)) candidate_add(arena, out, number, "last number");
    envs_extract(arena, s, true, "last formula", out);
    if (numbered) candidate_add(arena, out, number, "last number");
}

/* A sentence in a box: its formula or number, if it has one. */
static void sentence_extract(Arena *arena, Span s, Candidates *out) {
    anchors_extract(arena, s, out);
    Env envs[ENVS_MAX];
    if (envs_find(s, envs)) envs_extract(arena, s, true, "formula in a boxed sentence", out);
}

/* ---- responses ---- */

static Span text_end(const char *text) {
    size_t n = strlen(text);
    return n > WINDOW_MAX ? (Span){text + n - WINDOW_MAX, WINDOW_MAX} : (Span){text, n};
}

/* What follows the last thought. A thought that never ends leaves nothing of what comes after it, however long ago
 * it began (within THOUGHT_MAX bytes). */
static bool thought_cut(const char *completion, Span *s) {
    size_t n = strlen(completion);
    Span all = n > THOUGHT_MAX ? (Span){completion + n - THOUGHT_MAX, THOUGHT_MAX} : (Span){completion, n};
    const char *close = find_last(all, "</think>"), *open = find_last(all, "<think>");
    const char *start = close ? close + 8 : all.p, *end = completion + n;
    if (open && (!close || open > close)) end = open;
    if (open && !close) return false;
    if (start < end && (size_t)(end - start) > WINDOW_MAX) start = end - WINDOW_MAX;
    *s = span_of(start, end);
    return true;
}

static Span marks_cut(Span s) {
    static const char *const marks[] = {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        const char *at = memmem(s.p, s.n, marks[i], strlen(marks[i]));
        if (at) s.n = (size_t)(at - s.p);
    }
    return s;
}

static void tag_cut(Span *s) {
    const char *open = find_last(*s, "<answer>");
    if (!open) return;
    Span rest = span_of(open + 8, s->p + s->n);
    const char *close = memmem(rest.p, rest.n, "</answer>", 9);
    *s = close ? span_of(rest.p, close) : rest;
}

/* Signs and digits of other scripts as LaTeX and ASCII; letters stay. */
static Span text_ascii(Arena *arena, Span s) {
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80) {
            const char *text = text_plain(arena, s.p, s.n, 2 * WINDOW_MAX);
            return (Span){text, strlen(text)};
        }
    return s;
}

void answer_extract(Arena *arena, const char *completion, bool strict, bool words, Candidates *out) {
    *out = (Candidates){.words = words};
    Span s;
    if (!thought_cut(completion, &s)) {
        out->thought_only = true;
        return;
    }
    s = text_ascii(arena, marks_cut(s));
    Span inside = s;
    tag_cut(&inside);
    if (boxes_extract(arena, inside, strict, out) || strict) return;
    anchors_extract(arena, inside, out);
    if (inside.p != s.p && is_answer(trim_prose(inside), true))
        candidate_add(arena, out, inside, "answer tag");
    else
        whole_extract(arena, inside, out);
    last_extract(arena, inside, out);
}

void gold_extract(Arena *arena, const char *gold, Candidates *out) {
    *out = (Candidates){.words = true};
    Span s = text_end(gold);
    boxes_extract(arena, s, false, out);
    if (out->n) return;
    if (!is_prose(s)) {
        candidate_add(arena, out, s, "gold");
        return;
    }
    const char *formula = memchr(s.p, '$', s.n);
    anchors_extract(arena, s, out);
    if (!formula && !memmem(s.p, s.n, "\\(", 2) && s.n < 200) candidate_add(arena, out, s, "gold");
    last_extract(arena, s, out);
}

/* ---- options ---- */

char option_letter(const char *text) {
    static const char *const frames[] = {"\\text", "\\textbf", "\\mathbf", "\\mathrm", "\\mbox", "\\bf", "\\rm"};
    char flat[64];
    size_t n = 0;
    for (const char *p = text; *p && n + 1 < sizeof flat;) {
        bool skipped = false;
        for (size_t i = 0; i < sizeof frames / sizeof frames[0] && !skipped; i++) {
            size_t k = strlen(frames[i]);
            if (!strncmp(p, frames[i], k) && !is_alpha(p[k])) p += k, skipped = true;
        }
        if (skipped) continue;
        if (!strchr("{}$*\\", *p)) flat[n++] = *p;
        p++;
    }
    flat[n] = 0;
    const char *p = flat;
    while (is_space(*p)) p++;
    bool round = *p == '(';
    p += round;
    char letter = *p;
    if (letter < 'A' || letter > 'J') return 0;
    p++;
    if (round) return *p == ')' ? letter : 0;
    if (*p && strchr(").:", *p)) return letter;
    while (is_space(*p)) p++;
    if (!*p) return letter;
    /* "C Cecile", but not "A rhombus", "B + 1" or "C, D" */
    return p > flat + 1 && p[-1] == ' ' && letter > 'A' && *p >= 'A' && *p <= 'Z' && is_alpha(p[1]) ? letter : 0;
}

static bool letter_alone(Span s, const char *p) {
    bool left =
        p == s.p || !(is_alpha(p[-1]) || is_digit(p[-1]) || strchr("_'\\", p[-1]) || (unsigned char)p[-1] >= 0xc3);
    const char *after = p + 1, *end = s.p + s.n;
    bool right = after == end || !(is_alpha(*after) || is_digit(*after) || strchr("_'^=", *after));
    return left && right;
}

static char letter_first(Span s) {
    for (const char *p = s.p; p < s.p + s.n; p++)
        if (*p >= 'A' && *p <= 'J' && letter_alone(s, p)) return *p;
    return 0;
}

char option_settled(Arena *arena, const char *completion) {
    Span s;
    if (!thought_cut(completion, &s)) return 0;
    s = text_ascii(arena, marks_cut(s));
    tag_cut(&s);
    s = trim_prose(s);
    const char *best = NULL;
    size_t skip = 0;
    for (size_t i = 0; i < sizeof anchors / sizeof anchors[0]; i++) {
        const char *at = find_last(s, anchors[i]);
        if (at && (!best || at > best)) best = at, skip = strlen(anchors[i]);
    }
    char letter = best ? letter_first(clause_after(s, best + skip)) : 0;
    if (letter) return letter;
    if (s.n && s.p[0] >= 'A' && s.p[0] <= 'J' && (s.n == 1 || strchr(").:\n", s.p[1]))) return s.p[0];
    for (const char *p = s.p + s.n; p > s.p; p--)
        if (p[-1] >= 'A' && p[-1] <= 'J' && letter_alone(s, p - 1)) return p[-1];
    return 0;
}
