/* math_lex.c: the words, commands, blanks and numbers of LaTeX and plain-text mathematics.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_reader.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* ---- words ---- */

typedef struct {
    const char *text;
    uint8_t kind, value;
} WordRow;

static const WordRow words[] = {
    {"sqrt", WORD_FN, FN_SQRT},
    {"surd", WORD_FN, FN_SQRT},
    {"abs", WORD_FN, FN_ABS},
    {"exp", WORD_FN, FN_EXP},
    {"ln", WORD_FN, FN_LN},
    {"log", WORD_FN, FN_LOG},
    {"lg", WORD_FN, FN_LG},
    {"sin", WORD_FN, FN_SIN},
    {"cos", WORD_FN, FN_COS},
    {"tan", WORD_FN, FN_TAN},
    {"tg", WORD_FN, FN_TAN},
    {"cot", WORD_FN, FN_COT},
    {"ctg", WORD_FN, FN_COT},
    {"sec", WORD_FN, FN_SEC},
    {"csc", WORD_FN, FN_CSC},
    {"cosec", WORD_FN, FN_CSC},
    {"arcsin", WORD_FN, FN_ASIN},
    {"asin", WORD_FN, FN_ASIN},
    {"arccos", WORD_FN, FN_ACOS},
    {"acos", WORD_FN, FN_ACOS},
    {"arctan", WORD_FN, FN_ATAN},
    {"atan", WORD_FN, FN_ATAN},
    {"arctg", WORD_FN, FN_ATAN},
    {"arccot", WORD_FN, FN_ACOT},
    {"acot", WORD_FN, FN_ACOT},
    {"arcsec", WORD_FN, FN_ASEC},
    {"asec", WORD_FN, FN_ASEC},
    {"arccsc", WORD_FN, FN_ACSC},
    {"acsc", WORD_FN, FN_ACSC},
    {"sinh", WORD_FN, FN_SINH},
    {"cosh", WORD_FN, FN_COSH},
    {"tanh", WORD_FN, FN_TANH},
    {"coth", WORD_FN, FN_COTH},
    {"sech", WORD_FN, FN_SECH},
    {"csch", WORD_FN, FN_CSCH},
    {"arcsinh", WORD_FN, FN_ASINH},
    {"arsinh", WORD_FN, FN_ASINH},
    {"asinh", WORD_FN, FN_ASINH},
    {"arccosh", WORD_FN, FN_ACOSH},
    {"arcosh", WORD_FN, FN_ACOSH},
    {"acosh", WORD_FN, FN_ACOSH},
    {"arctanh", WORD_FN, FN_ATANH},
    {"artanh", WORD_FN, FN_ATANH},
    {"atanh", WORD_FN, FN_ATANH},
    {"floor", WORD_FN, FN_FLOOR},
    {"ceil", WORD_FN, FN_CEIL},
    {"gcd", WORD_FN, FN_GCD},
    {"lcm", WORD_FN, FN_LCM},
    {"max", WORD_FN, FN_MAX},
    {"min", WORD_FN, FN_MIN},
    {"Re", WORD_FN, FN_RE},
    {"Im", WORD_FN, FN_IM},
    {"arg", WORD_FN, FN_ARG},
    {"det", WORD_FN, FN_DET},
    {"sgn", WORD_FN, FN_SGN},
    {"sign", WORD_FN, FN_SGN},
    {"binom", WORD_FN, FN_BINOM},
    {"cbrt", WORD_FN, FN_ROOT},
    {"pi", WORD_CONST, CONST_PI},
    {"Pi", WORD_CONST, CONST_PI},
    {"inf", WORD_CONST, CONST_INF},
    {"infty", WORD_CONST, CONST_INF},
    {"infinity", WORD_CONST, CONST_INF},
    {"Infinity", WORD_CONST, CONST_INF},
    {"oo", WORD_CONST, CONST_INF},
    {"and", WORD_SEPARATOR, 0},
    {"or", WORD_SEPARATOR, 0},
    {"And", WORD_SEPARATOR, 0},
    {"Or", WORD_SEPARATOR, 0},
    {"percent", WORD_PERCENT, 0},
    {"percentage", WORD_PERCENT, 0},
    {"pct", WORD_PERCENT, 0},
    {"alpha", WORD_GREEK, 0},
    {"beta", WORD_GREEK, 0},
    {"gamma", WORD_GREEK, 0},
    {"delta", WORD_GREEK, 0},
    {"epsilon", WORD_GREEK, 0},
    {"zeta", WORD_GREEK, 0},
    {"eta", WORD_GREEK, 0},
    {"theta", WORD_GREEK, 0},
    {"Theta", WORD_GREEK, 0},
    {"kappa", WORD_GREEK, 0},
    {"lambda", WORD_GREEK, 0},
    {"mu", WORD_GREEK, 0},
    {"nu", WORD_GREEK, 0},
    {"xi", WORD_GREEK, 0},
    {"rho", WORD_GREEK, 0},
    {"sigma", WORD_GREEK, 0},
    {"Sigma", WORD_GREEK, 0},
    {"tau", WORD_GREEK, 0},
    {"phi", WORD_GREEK, 0},
    {"Phi", WORD_GREEK, 0},
    {"chi", WORD_GREEK, 0},
    {"psi", WORD_GREEK, 0},
    {"Psi", WORD_GREEK, 0},
    {"omega", WORD_GREEK, 0},
    {"Omega", WORD_GREEK, 0},
    {"Gamma", WORD_GREEK, 0},
    {"Delta", WORD_GREEK, 0},
    {"Lambda", WORD_GREEK, 0},
    {"degree", WORD_DEGREE, 0},
    {"degrees", WORD_DEGREE, 0},
    {"deg", WORD_DEGREE, 0},
    {"cm", WORD_UNIT, 0},
    {"mm", WORD_UNIT, 0},
    {"km", WORD_UNIT, 0},
    {"ft", WORD_UNIT, 0},
    {"kg", WORD_UNIT, 0},
    {"mg", WORD_UNIT, 0},
    {"lb", WORD_UNIT, 0},
    {"lbs", WORD_UNIT, 0},
    {"oz", WORD_UNIT, 0},
    {"mi", WORD_UNIT, 0},
    {"ml", WORD_UNIT, 0},
    {"mL", WORD_UNIT, 0},
    {"hr", WORD_UNIT, 0},
    {"hrs", WORD_UNIT, 0},
    {"sec.", WORD_UNIT, 0},
    {"mph", WORD_UNIT, 0},
    {"rad", WORD_UNIT, 0},
    {"units", WORD_UNIT, 0},
    {"unit", WORD_UNIT, 0},
    {"square", WORD_UNIT, 0},
    {"cubic", WORD_UNIT, 0},
    {"meters", WORD_UNIT, 0},
    {"meter", WORD_UNIT, 0},
    {"metres", WORD_UNIT, 0},
    {"centimeters", WORD_UNIT, 0},
    {"inches", WORD_UNIT, 0},
    {"inch", WORD_UNIT, 0},
    {"feet", WORD_UNIT, 0},
    {"foot", WORD_UNIT, 0},
    {"yards", WORD_UNIT, 0},
    {"miles", WORD_UNIT, 0},
    {"mile", WORD_UNIT, 0},
    {"dollars", WORD_UNIT, 0},
    {"dollar", WORD_UNIT, 0},
    {"cents", WORD_UNIT, 0},
    {"hours", WORD_UNIT, 0},
    {"hour", WORD_UNIT, 0},
    {"minutes", WORD_UNIT, 0},
    {"minute", WORD_UNIT, 0},
    {"seconds", WORD_UNIT, 0},
    {"days", WORD_UNIT, 0},
    {"day", WORD_UNIT, 0},
    {"weeks", WORD_UNIT, 0},
    {"months", WORD_UNIT, 0},
    {"years", WORD_UNIT, 0},
    {"pounds", WORD_UNIT, 0},
    {"grams", WORD_UNIT, 0},
    {"people", WORD_UNIT, 0},
    {"students", WORD_UNIT, 0},
};

Word word_find(const char *p, size_t n) {
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (words[i].text[0] == p[0] && !strncmp(words[i].text, p, n) && !words[i].text[n])
            return (Word){(WordKind)words[i].kind, words[i].value};
    return (Word){WORD_NONE, 0};
}

/* ---- plain text ---- */

typedef struct {
    uint32_t from;
    const char *to;
} SignRow;

/* Sorted by code point. */
static const SignRow signs[] = {
    {0xa0, " "},
    {0xa3, "\\$"},
    {0xa5, "\\$"},
    {0xb0, "^\\circ "},
    {0xb1, "\\pm "},
    {0xb4, "'"},
    {0xb7, "\\cdot "},
    {0xbc, "\\frac{1}{4}"},
    {0xbd, "\\frac{1}{2}"},
    {0xbe, "\\frac{3}{4}"},
    {0xd7, "\\times "},
    {0xf7, "\\div "},
    {0x391, "A"},
    {0x392, "B"},
    {0x393, "\\Gamma "},
    {0x394, "\\Delta "},
    {0x398, "\\Theta "},
    {0x39b, "\\Lambda "},
    {0x3a0, "\\Pi "},
    {0x3a3, "\\Sigma "},
    {0x3a6, "\\Phi "},
    {0x3a8, "\\Psi "},
    {0x3a9, "\\Omega "},
    {0x3b1, "\\alpha "},
    {0x3b2, "\\beta "},
    {0x3b3, "\\gamma "},
    {0x3b4, "\\delta "},
    {0x3b5, "\\epsilon "},
    {0x3b6, "\\zeta "},
    {0x3b7, "\\eta "},
    {0x3b8, "\\theta "},
    {0x3ba, "\\kappa "},
    {0x3bb, "\\lambda "},
    {0x3bc, "\\mu "},
    {0x3bd, "\\nu "},
    {0x3be, "\\xi "},
    {0x3c0, "\\pi "},
    {0x3c1, "\\rho "},
    {0x3c3, "\\sigma "},
    {0x3c4, "\\tau "},
    {0x3c6, "\\phi "},
    {0x3c7, "\\chi "},
    {0x3c8, "\\psi "},
    {0x3c9, "\\omega "},
    {0x3d5, "\\phi "},
    {0x2010, "-"},
    {0x2011, "-"},
    {0x2012, "-"},
    {0x2013, "-"},
    {0x2014, "-"},
    {0x2016, "\\|"},
    {0x2018, "'"},
    {0x2019, "'"},
    {0x201c, ""},
    {0x201d, ""},
    {0x2026, "\\ldots "},
    {0x202f, " "},
    {0x2032, "'"},
    {0x2044, "/"},
    {0x205f, " "},
    {0x20ac, "\\$"},
    {0x20b9, "\\$"},
    {0x2102, "\\mathbb{C}"},
    {0x2115, "\\mathbb{N}"},
    {0x211a, "\\mathbb{Q}"},
    {0x211d, "\\mathbb{R}"},
    {0x2124, "\\mathbb{Z}"},
    {0x2153, "\\frac{1}{3}"},
    {0x2154, "\\frac{2}{3}"},
    {0x215b, "\\frac{1}{8}"},
    {0x2190, "\\leftarrow "},
    {0x2192, "\\to "},
    {0x21d2, "\\implies "},
    {0x2205, "\\emptyset "},
    {0x2208, "\\in "},
    {0x2211, "\\sum "},
    {0x2212, "-"},
    {0x2213, "\\mp "},
    {0x2215, "/"},
    {0x2216, "\\setminus "},
    {0x2217, "*"},
    {0x2219, "\\cdot "},
    {0x221a, "\\surd "},
    {0x221e, "\\infty "},
    {0x2220, "\\angle "},
    {0x2223, "\\mid "},
    {0x2227, ","},
    {0x2228, ","},
    {0x2229, "\\cap "},
    {0x222a, "\\cup "},
    {0x222b, "\\int "},
    {0x2236, ":"},
    {0x2248, "\\approx "},
    {0x2260, "\\ne "},
    {0x2261, "\\equiv "},
    {0x2264, "\\le "},
    {0x2265, "\\ge "},
    {0x2282, "\\subset "},
    {0x2286, "\\subseteq "},
    {0x2287, "\\supseteq "},
    {0x22c5, "\\cdot "},
    {0x2308, "\\lceil "},
    {0x2309, "\\rceil "},
    {0x230a, "\\lfloor "},
    {0x230b, "\\rfloor "},
    {0x25b3, "\\triangle "},
    {0x2a7d, "\\le "},
    {0x2a7e, "\\ge "},
    {0x3000, " "},
    {0x3001, ","},
    {0x3002, "."},
};

static const char *sign_find(uint32_t code) {
    size_t low = 0, high = sizeof signs / sizeof signs[0];
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (signs[mid].from < code)
            low = mid + 1;
        else
            high = mid;
    }
    return low < sizeof signs / sizeof signs[0] && signs[low].from == code ? signs[low].to : NULL;
}

/* One code point of UTF-8; its length in *n; 0xfffd for bytes that are none. */
static uint32_t code_read(const unsigned char *p, size_t left, size_t *n) {
    size_t need = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    *n = 1;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < need) return 0xfffd;
    uint32_t code = p[0] & (0x7fu >> need);
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0xfffd;
        code = code << 6 | (p[i] & 0x3f);
    }
    *n = need;
    return code;
}

/* The digit that a code point stands for in another script or style, or -1. */
static int digit_of(uint32_t code) {
    if (code >= 0x660 && code <= 0x669) return (int)(code - 0x660);
    if (code >= 0x6f0 && code <= 0x6f9) return (int)(code - 0x6f0);
    if (code >= 0x966 && code <= 0x96f) return (int)(code - 0x966);
    if (code >= 0x1d7ce && code <= 0x1d7ff) return (int)(code - 0x1d7ce) % 10;
    return -1;
}

static int raised_of(uint32_t code) {
    if (code == 0xb9) return 1;
    if (code == 0xb2 || code == 0xb3) return (int)(code - 0xb0);
    if (code == 0x2070 || (code >= 0x2074 && code <= 0x2079)) return (int)(code - 0x2070);
    return -1;
}

static int lowered_of(uint32_t code) { return code >= 0x2080 && code <= 0x2089 ? (int)(code - 0x2080) : -1; }

static bool code_hidden(uint32_t code) {
    return (code >= 0x200b && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
           (code >= 0x2060 && code <= 0x2064) || code == 0xfeff || code == 0xad ||
           (code >= 0xfe00 && code <= 0xfe0f);
}

/* Digits above or below the line: "x²³" becomes "x^{23}". */
static void script_add(Buf *out, char mark, int digit) {
    char close[3] = {'}', 0, 0};
    bool goes_on = out->n > 3 && out->p[out->n - 1] == '}' && is_digit(out->p[out->n - 2]);
    size_t i = out->n;
    if (goes_on)
        for (i = out->n - 2; i > 1 && is_digit(out->p[i]); i--) {
        }
    if (goes_on && out->p[i] == '{' && out->p[i - 1] == mark)
        out->n--;
    else
        buf_format(out, "%c{", mark);
    buf_char(out, (char)('0' + digit));
    buf_text(out, close);
}

static void code_add(Buf *out, uint32_t code, const char *bytes, size_t n) {
    const char *sign;
    int digit;
    if (code_hidden(code)) return;
    if ((sign = sign_find(code)))
        buf_text(out, sign);
    else if (code >= 0xff01 && code <= 0xff5e)
        buf_char(out, (char)(code - 0xff01 + '!'));
    else if (code >= 0x2000 && code <= 0x200a)
        buf_char(out, ' ');
    else if ((digit = digit_of(code)) >= 0)
        buf_char(out, (char)('0' + digit));
    else if ((digit = raised_of(code)) >= 0)
        script_add(out, '^', digit);
    else if ((digit = lowered_of(code)) >= 0)
        script_add(out, '_', digit);
    else if (code == 0xfffd)
        buf_text(out, "\xef\xbf\xbd");
    else
        buf_add(out, bytes, n);
}

char *text_plain(Arena *arena, const char *p, size_t n, size_t max) {
    bool ascii = true;
    for (size_t i = 0; i < n && ascii; i++) ascii = (unsigned char)p[i] < 0x80;
    if (ascii) return arena_text(arena, p, n < max ? n : max);
    Buf out = {0};
    for (size_t i = 0, step; i < n && out.n < max; i += step) {
        step = 1;
        if ((unsigned char)p[i] < 0x80)
            buf_char(&out, p[i]);
        else {
            uint32_t code = code_read((const unsigned char *)p + i, n - i, &step);
            code_add(&out, code, p + i, step);
        }
    }
    char *text = arena_text(arena, out.p ? out.p : "", out.n);
    buf_free(&out);
    return text;
}

/* ---- places in the text ---- */

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
        else if (starts(r, "\\$"))
            r->p += 2;
        else if (!take_hollow(r) && !take_space_command(r))
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
    while (stop < r->end && is_alpha(*stop)) stop++;
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
    if (c == '\\') return text_separates(r, take);
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

static void number_whole(Reader *r, Number *number) {
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
    if ((*p == '-' || *p == '+') && (*r->p == 'E' || number->decimals > 0)) p++;
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
