/* math_words.c: the words that mathematics uses, and plain text: Unicode signs as LaTeX, what can't be seen
 * dropped. Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_parts.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

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
    {"arccoth", WORD_FN, FN_ACOTH},
    {"arcoth", WORD_FN, FN_ACOTH},
    {"acoth", WORD_FN, FN_ACOTH},
    {"arcsech", WORD_FN, FN_ASECH},
    {"arsech", WORD_FN, FN_ASECH},
    {"asech", WORD_FN, FN_ASECH},
    {"arccsch", WORD_FN, FN_ACSCH},
    {"arcsch", WORD_FN, FN_ACSCH},
    {"acsch", WORD_FN, FN_ACSCH},
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
    {"cup", WORD_UNIT, 0},
    {"cups", WORD_UNIT, 0},
    {"ways", WORD_UNIT, 0},
    {"ton", WORD_UNIT, 0},
    {"tons", WORD_UNIT, 0},
    {"USD", WORD_UNIT, 0},
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
    {0x66a, "\\%"},
    {0x66b, "."},
    {0x66c, ","},
    {0x964, ". "},
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
    {0x3002, ". "},
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
    static const uint32_t zeros[] = {0x660, 0x6f0, 0x966, 0x9e6, 0xa66, 0xae6,  0xb66, 0xbe6,
                                     0xc66, 0xce6, 0xd66, 0xe50, 0xed0, 0x1040, 0x17e0};
    for (size_t i = 0; i < sizeof zeros / sizeof zeros[0]; i++)
        if (code >= zeros[i] && code < zeros[i] + 10) return (int)(code - zeros[i]);
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
