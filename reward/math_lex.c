/* math_lex.c: the commands, blanks, separators and numbers of LaTeX and plain-text mathematics.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_reader.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* ---- places in the text ---- */

enum { LETTERS_MAX = 40 }; /* letters of a word that are looked at */

Node *reader_fail(Reader *r, const char *fault) {
    if (!r->parse->fault) r->parse->fault = fault;
    r->p = r->end;
    return NULL;
}

static bool starts(const Reader *r, const char *word) {
    size_t n = strlen(word);
    return (size_t)(r->end - r->p) >= n && !memcmp(r->p, word, n);
}

static const char *const hollow[] = {
    "left",     "right", "big",   "Big",   "bigg",   "Bigg",         "bigl",      "bigr",        "Bigl",
    "Bigr",     "biggl", "biggr", "Biggl", "Biggr",  "displaystyle", "textstyle", "scriptstyle", "limits",
    "nolimits", "quad",  "qquad", "hfill", "middle", "mleft",        "mright",    "thinspace",   "nobreak",
    "noindent", "bf",    "rm",    "it",    "sf",     "tt",           "hline",     "strut",       "null",
};

/* \quad may be glued to a letter in sloppy answers: "\quadx". */
static bool take_hollow(Reader *r) {
    if (r->p + 1 >= r->end || *r->p != '\\') return false;
    const char *name = r->p + 1, *stop = name;
    if (strchr(",;!:> ()[]", *name)) {
        if ((*name == '[' || *name == ']') && r->matrix) return false;
        r->p += 2;
        return true;
    }
    while (stop < r->end && is_alpha(*stop)) stop++;
    size_t n = (size_t)(stop - name);
    for (size_t i = 0; n && i < sizeof hollow / sizeof hollow[0]; i++) {
        size_t k = strlen(hollow[i]);
        bool glued = n == k + 1 && (!strcmp(hollow[i], "quad") || !strcmp(hollow[i], "qquad"));
        if ((n != k && !glued) || memcmp(name, hollow[i], k)) continue;
        r->p = name + k;
        if (hollow[i][0] == 'l' || hollow[i][0] == 'r')
            if (r->p < r->end && *r->p == '.' && (k == 4 || k == 5)) r->p++; /* \left. */
        return true;
    }
    return false;
}

static bool take_space_command(Reader *r) {
    static const char *const names[] = {"\\hspace", "\\vspace", "\\phantom", "\\mspace"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!starts(r, names[i])) continue;
        r->p += strlen(names[i]);
        const char *close = r->p < r->end && *r->p == '{' ? memchr(r->p, '}', (size_t)(r->end - r->p)) : NULL;
        if (close) r->p = close + 1;
        return true;
    }
    return false;
}

void skip_blank(Reader *r) {
    while (r->p < r->end) {
        char c = *r->p;
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '~' || c == '$' || c == '\f' || c == '\v')
            r->p++;
        else if (c == '&' && (!r->matrix || r->rows))
            r->p++;
        else if (c == '{' && starts(r, "{}"))
            r->p += 2;
        else if (c != '\\')
            return;
        else if (r->p + 1 < r->end && r->p[1] == '\\' && !r->matrix)
            r->p++; /* a doubled backslash, or a line's end */
        else if (r->p + 1 == r->end)
            r->p++;
        else if (starts(r, "\\$")) {
            r->p += 2;
            while (r->p < r->end && *r->p == ' ') r->p++;
            r->money = r->p;
        } else if (!take_hollow(r) && !take_space_command(r))
            return;
    }
}

char peek(Reader *r) {
    skip_blank(r);
    return r->p < r->end ? *r->p : 0;
}

Span peek_command(Reader *r) {
    skip_blank(r);
    if (r->p + 1 >= r->end || *r->p != '\\') return (Span){r->p, 0};
    const char *stop = r->p + 1;
    while (stop < r->end && is_alpha(*stop)) stop++;
    return (Span){r->p + 1, (size_t)(stop - r->p - 1)};
}

Span peek_word(Reader *r) {
    skip_blank(r);
    const char *stop = r->p;
    while (stop < r->end && is_alpha(*stop) && stop - r->p < LETTERS_MAX) stop++;
    return (Span){r->p, (size_t)(stop - r->p)};
}

bool at_command(Reader *r, const char *name) {
    Span command = peek_command(r);
    return command.n == strlen(name) && !memcmp(command.p, name, command.n) && command.n > 0;
}

bool take_command(Reader *r, const char *name) {
    if (!at_command(r, name)) return false;
    r->p += 1 + strlen(name);
    return true;
}

bool take_char(Reader *r, char c) {
    if (peek(r) != c) return false;
    r->p++;
    return true;
}

bool take_braces(Reader *r, Span *in) {
    if (peek(r) != '{') return false;
    int depth = 0;
    for (const char *p = r->p; p < r->end; p++) {
        if (*p == '\\' && p + 1 < r->end)
            p++;
        else if (*p == '{')
            depth++;
        else if (*p == '}' && --depth == 0) {
            *in = (Span){r->p + 1, (size_t)(p - r->p - 1)};
            r->p = p + 1;
            return true;
        }
    }
    return false;
}

/* ---- separators ---- */

static bool word_separates(Span s) {
    while (s.n && strchr(" ,;~$\\", s.p[0])) s.p++, s.n--;
    while (s.n && strchr(" ,;~$\\", s.p[s.n - 1])) s.n--;
    return s.n == 0 || (s.n <= 3 && word_find(s.p, s.n).kind == WORD_SEPARATOR);
}

/* \text{ and }, \text{,}: separators; \text{} and \text{ } are not. */
static bool text_separates(Reader *r, bool take) {
    const char *before = r->p;
    Span in;
    bool is = (take_command(r, "text") || take_command(r, "mbox") || take_command(r, "textrm") ||
               take_command(r, "mathrm")) &&
              take_braces(r, &in) && word_separates(in) && in.n > 0;
    if (is) {
        bool any = false;
        for (size_t i = 0; i < in.n; i++) any |= in.p[i] != ' ' && in.p[i] != '\\';
        is = any;
    }
    if (!is || !take) r->p = before;
    return is;
}

bool at_separator(Reader *r, bool take) {
    char c = peek(r);
    if (c == ',' || c == ';') {
        r->p += take;
        return true;
    }
    if (c == '\\') {
        static const char *const marks[] = {"wedge", "land", "vee", "lor"};
        for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
            if (at_command(r, marks[i])) return take ? take_command(r, marks[i]) : true;
        return text_separates(r, take);
    }
    if (!is_alpha(c)) return false;
    Span word = peek_word(r);
    if (word_find(word.p, word.n).kind == WORD_SEPARATOR) {
        if (take) r->p += word.n;
        return true;
    }
    /* "1orW(x)=2" */
    if (word.n == 3 && word.p[0] == 'o' && word.p[1] == 'r' && word.p[2] >= 'A' && word.p[2] <= 'Z' &&
        word.p > r->start && is_digit(word.p[-1])) {
        if (take) r->p += 2;
        return true;
    }
    return false;
}

/* ---- numbers ---- */

static const char *digits_end(const Reader *r, const char *p) {
    while (p < r->end && is_digit(*p)) p++;
    return p;
}

static bool three_digits(const Reader *r, const char *p) { return digits_end(r, p) - p == 3; }

/* The length of a separator of thousands at p, or 0. */
static size_t thousands_at(const Reader *r, const char *p) {
    static const char *const sure[] = {",\\!", "{,}", "{, }", " {, }", " {,}", "\\,", ",\\,"};
    for (size_t i = 0; i < sizeof sure / sizeof sure[0]; i++) {
        size_t n = strlen(sure[i]);
        if ((size_t)(r->end - p) > n && !memcmp(p, sure[i], n) && three_digits(r, p + n)) return n;
    }
    if (*p == ',' && r->commas && three_digits(r, p + 1)) return 1;
    if (*p == ' ' && !r->brackets && three_digits(r, p + 1)) return 1;
    return 0;
}

/* Is a comma at p a decimal one? "0,25" always, others when this reading is asked for. */
static bool decimal_comma(Reader *r, const char *first, const char *p) {
    if (*p != ',' || p + 1 >= r->end || !is_digit(p[1]) || r->brackets) return false;
    const char *stop = digits_end(r, p + 1);
    bool other = memchr(r->start, ',', (size_t)(p - r->start)) || memchr(stop, ',', (size_t)(r->end - stop));
    if (other) return false;
    if (p - first == 1 && *first == '0' && stop - p > 2) return true;
    r->parse->could |= READ_DECIMAL_COMMA;
    return r->parse->reading & READ_DECIMAL_COMMA;
}

typedef struct {
    Buf digits;
    int32_t scale;
    int32_t decimals;
} Number;

/* 1.234.567,89 as much of Europe writes it: points in threes, then a comma. */
static bool number_european(Reader *r, Number *number) {
    const char *p = digits_end(r, r->p);
    int groups = 0;
    if (p - r->p > 3) return false;
    while (p < r->end && *p == '.' && three_digits(r, p + 1)) p += 4, groups++;
    if (!groups || p + 1 >= r->end || *p != ',' || !is_digit(p[1]) || r->brackets) return false;
    const char *stop = digits_end(r, p + 1);
    if (stop < r->end && *stop == ',') return false;
    for (const char *q = r->p; q < stop; q++)
        if (is_digit(*q)) buf_char(&number->digits, *q);
    number->decimals = (int32_t)(stop - p - 1);
    number->scale = -number->decimals;
    r->p = stop;
    return true;
}

static void number_whole(Reader *r, Number *number) {
    if (number_european(r, number)) return;
    const char *first = r->p, *stop = digits_end(r, r->p);
    buf_add(&number->digits, first, (size_t)(stop - first));
    bool grouped = stop - first >= 1 && stop - first <= 3 && *first != '0';
    r->p = stop;
    for (size_t n; grouped && r->p < r->end && (n = thousands_at(r, r->p)); r->p += n + 3)
        buf_add(&number->digits, r->p + n, 3);
    if (r->p >= r->end) return;
    bool point = *r->p == '.' && r->p + 1 < r->end && (is_digit(r->p[1]) || r->p[1] == '\\');
    if (!point && !decimal_comma(r, first, r->p)) return;
    stop = digits_end(r, r->p + 1);
    if (point && r->p[1] == '\\' && !(r->end - r->p > 10 && !memcmp(r->p + 1, "\\overline", 9))) return;
    number->decimals = (int32_t)(stop - r->p - 1);
    buf_add(&number->digits, r->p + 1, (size_t)number->decimals);
    number->scale = -number->decimals;
    r->p = stop;
}

/* The exponent of 1.5E-3. A small e needs a point in the number or digits right after it. */
static void number_exponent(Reader *r, Number *number) {
    if (r->p + 1 >= r->end || (*r->p != 'E' && *r->p != 'e')) return;
    const char *p = r->p + 1;
    bool negative = *p == '-';
    bool sign = *p == '-' || *p == '+';
    if (sign && *r->p == 'e' && number->decimals <= 0) { /* 2e-3 may be twice e, less 3 */
        r->parse->could |= READ_SCIENTIFIC;
        if (!(r->parse->reading & READ_SCIENTIFIC)) return;
    }
    p += sign;
    const char *stop = digits_end(r, p);
    if (stop == p || stop - p > 6) return;
    int32_t value = 0;
    for (; p < stop; p++) value = 10 * value + (*p - '0');
    number->scale += negative ? -value : value;
    r->p = stop;
}

static Node *number_repeating(Reader *r, const Number *number) {
    Span in;
    const char *before = r->p;
    if (number->decimals < 0 || !take_command(r, "overline") || !take_braces(r, &in) || !in.n || in.n > 100) {
        r->p = before;
        return NULL;
    }
    for (size_t i = 0; i < in.n; i++)
        if (!is_digit(in.p[i])) {
            r->p = before;
            return NULL;
        }
    /* a.b(c) = (abc - ab) / (10^k - 1) / 10^decimals */
    Node *whole = node_text(r->arena, NODE_NUMBER, number->digits.p, number->digits.n);
    char *all = arena_format(r->arena, "%s%.*s", number->digits.p, (int)in.n, in.p);
    Node *longer = node_text(r->arena, NODE_NUMBER, all, strlen(all));
    longer->scale = whole->scale = number->scale;
    char nines[101];
    memset(nines, '9', in.n);
    Node *difference = node_two(r->arena, NODE_ADD, longer, node_one(r->arena, NODE_NEG, whole));
    return node_two(r->arena, NODE_DIV, difference, node_text(r->arena, NODE_NUMBER, nines, in.n));
}

/* 1011_2 or 1011_{2}: a number in another base. */
static Node *number_based(Reader *r, const Number *number) {
    if (r->p + 1 >= r->end || *r->p != '_' || number->decimals >= 0) return NULL;
    const char *p = r->p + 1;
    bool braces = *p == '{';
    if (p + 6 < r->end && !memcmp(p, "{\\text{", 7)) return NULL;
    p += braces;
    const char *stop = digits_end(r, p);
    if (stop == p || stop - p > 2 || (braces && (stop == r->end || *stop != '}'))) return NULL;
    Node *node = node_text(r->arena, NODE_BASE, number->digits.p, number->digits.n);
    node->scale = *p - '0';
    if (stop - p == 2) node->scale = 10 * node->scale + (p[1] - '0');
    if (node->scale < 2 || node->scale > 36) return NULL;
    r->p = stop + braces;
    return node;
}

/* a.m. or p.m. after a time, plain or in \text{}: 'a', 'p' or 0. */
static char take_half_day(Reader *r) {
    const char *before = r->p;
    Span in;
    bool framed =
        (take_command(r, "text") || take_command(r, "mathrm") || take_command(r, "mbox")) && take_braces(r, &in);
    if (!framed) {
        r->p = before;
        skip_blank(r);
        in = (Span){r->p, (size_t)(r->end - r->p)};
    }
    const char *p = in.p, *end = in.p + in.n;
    while (p < end && *p == ' ') p++;
    char half = p < end ? (char)(*p | 32) : 0;
    if ((half != 'a' && half != 'p') || ++p >= end) return r->p = before, 0;
    if (*p == '.') p++;
    if (p >= end || (*p | 32) != 'm' || (p + 1 < end && is_alpha(p[1]))) return r->p = before, 0;
    if (!framed) r->p = p + 1 < end && p[1] == '.' ? p + 2 : p + 1;
    return half;
}

static const char *skip_thin(const Reader *r, const char *p) {
    while (r->end - p >= 2 && p[0] == '\\' && p[1] == '!') p += 2;
    return p;
}

/* 12:00, 4:51:06 or 1:30 p.m.: a time of day, kept as text; 3:2 is a ratio. */
static Node *number_time(Reader *r, const char *first) {
    const char *p = r->p, *before = r->p;
    if (p - first > 2 || r->brackets) return NULL;
    char text[16] = {0};
    size_t n = 0;
    bool zero = *first == '0' && p - first == 2;
    for (const char *q = zero ? first + 1 : first; q < p; q++) text[n++] = *q;
    int groups = 0;
    while (groups < 2) {
        const char *q = skip_thin(r, p);
        if (q >= r->end || *q != ':') break;
        q = skip_thin(r, q + 1);
        if (digits_end(r, q) - q != 2) break;
        zero |= *q == '0';
        text[n++] = ':', text[n++] = q[0], text[n++] = q[1];
        p = q + 2;
        groups++;
    }
    if (!groups) return NULL;
    r->p = p;
    char half = take_half_day(r);
    if (half) text[n++] = half;
    if (half || zero) return node_text(r->arena, NODE_TEXT, text, n);
    r->p = before;
    return NULL;
}

Node *read_number(Reader *r) {
    const char *first = r->p;
    Number number = {.decimals = -1};
    buf_text(&number.digits, "");
    number_whole(r, &number);
    Node *node = number_repeating(r, &number);
    if (!node) node = number_based(r, &number);
    if (!node) node = number_time(r, first);
    if (!node) {
        number_exponent(r, &number);
        const char *digits = number.digits.p;
        while (digits[0] == '0' && digits[1]) digits++; /* 004 is 4 */
        node = node_text(r->arena, NODE_NUMBER, digits, strlen(digits));
        node->scale = number.scale;
        node->decimals = number.decimals;
    }
    buf_free(&number.digits);
    return node;
}
