/* language.c: the judge of language consistency: the share of the thought's words that are in the asked language
 * (DeepSeek-R1, Nature 2025, eq. 7).
 *
 * A word's language is told by its script, which is what mixing looks like (English with Chinese, Russian, ...);
 * languages of one script are not told apart. Words are runs of letters; of Han, Hiragana, Katakana and Thai,
 * which are written without blanks, each letter counts. Single Latin letters (variables), what follows a backslash
 * (LaTeX) and tags say nothing. The thought is what stands before </think>, or all where there is none. The row's
 * `lang` goes before the configured language. Tested by tests/test_reward_shape.c.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "reward/shape.h"

typedef enum {
    NO_SCRIPT,
    LATIN = 1,
    HAN = 2,
    KANA = 4,
    HANGUL = 8,
    CYRILLIC = 16,
    ARABIC = 32,
    DEVANAGARI = 64,
    GREEK = 128,
    HEBREW = 256,
    THAI = 512,
    OTHER = 1024
} Script;

static const struct {
    utf8proc_int32_t first, last;
    Script script;
} blocks[] = {
    {0x41, 0x24f, LATIN},       {0x250, 0x2af, LATIN},    {0x300, 0x36f, NO_SCRIPT}, {0x370, 0x3ff, GREEK},
    {0x400, 0x52f, CYRILLIC},   {0x590, 0x5ff, HEBREW},   {0x600, 0x6ff, ARABIC},    {0x750, 0x77f, ARABIC},
    {0x900, 0x97f, DEVANAGARI}, {0xe00, 0xe7f, THAI},     {0x1100, 0x11ff, HANGUL},  {0x1c80, 0x1c8f, CYRILLIC},
    {0x1e00, 0x1eff, LATIN},    {0x1f00, 0x1fff, GREEK},  {0x3040, 0x30ff, KANA},    {0x3130, 0x318f, HANGUL},
    {0x31f0, 0x31ff, KANA},     {0x3400, 0x4dbf, HAN},    {0x4e00, 0x9fff, HAN},     {0xac00, 0xd7af, HANGUL},
    {0xf900, 0xfaff, HAN},      {0xfb1d, 0xfb4f, HEBREW}, {0xfb50, 0xfdff, ARABIC},  {0xfe70, 0xfeff, ARABIC},
    {0xff21, 0xff5a, LATIN},    {0xff66, 0xff9d, KANA},   {0x20000, 0x3ffff, HAN},
};

static const struct {
    const char *name;
    int scripts;
} languages[] = {
    {"en", LATIN},    {"de", LATIN},  {"fr", LATIN},      {"es", LATIN},  {"it", LATIN},      {"pt", LATIN},
    {"nl", LATIN},    {"pl", LATIN},  {"cs", LATIN},      {"sv", LATIN},  {"tr", LATIN},      {"vi", LATIN},
    {"id", LATIN},    {"zh", HAN},    {"ja", HAN | KANA}, {"ko", HANGUL}, {"ru", CYRILLIC},   {"uk", CYRILLIC},
    {"bg", CYRILLIC}, {"ar", ARABIC}, {"fa", ARABIC},     {"ur", ARABIC}, {"hi", DEVANAGARI}, {"mr", DEVANAGARI},
    {"el", GREEK},    {"he", HEBREW}, {"th", THAI},
};

static Script script_of(utf8proc_int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    bool letter = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
    if (!letter) return NO_SCRIPT;
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i].first && c <= blocks[i].last) return blocks[i].script;
    return OTHER;
}

static bool is_mark(utf8proc_int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

/* A tag, such as <think> or </answer>: its length, or 0. */
static size_t tag_at(const char *p) {
    if (*p != '<') return 0;
    size_t i = 1 + (p[1] == '/'), start = i;
    while ((p[i] >= 'a' && p[i] <= 'z') || p[i] == '_') i++;
    return i > start && p[i] == '>' ? i + 1 : 0;
}

typedef struct {
    long words, in;
    int scripts;
    Script word; /* of the word that runs; NO_SCRIPT: none */
    long letters;
    bool command; /* it follows a backslash */
} Counter;

static void word_end(Counter *c) {
    bool counts = c->word != NO_SCRIPT && !c->command && !(c->word == LATIN && c->letters == 1);
    if (counts) c->words++, c->in += (c->word & c->scripts) != 0;
    c->word = NO_SCRIPT, c->letters = 0, c->command = false;
}

static void text_count(Counter *c, const char *text, const char *end) {
    for (const char *p = text; p < end;) {
        utf8proc_int32_t letter = 0;
        utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)p, end - p, &letter);
        size_t tag = tag_at(p);
        if (bytes <= 0) bytes = 1, letter = ' ';
        if (tag) bytes = (utf8proc_ssize_t)tag, letter = ' ';
        Script script = script_of(letter);
        bool inside = c->word != NO_SCRIPT && (is_mark(letter) || letter == '\'' || letter == 0x2019);
        if (!inside && script != c->word) word_end(c);
        if (script != NO_SCRIPT) {
            if (c->word == NO_SCRIPT && p > text && p[-1] == '\\') c->command = true;
            c->word = script, c->letters++;
            if (script == HAN || script == KANA || script == THAI) word_end(c);
        }
        p += bytes;
    }
    word_end(c);
}

static void language_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    json_t *row = item->fields ? json_loads(item->fields, JSON_ALLOW_NUL, NULL) : NULL;
    const char *name = json_string_value(json_object_get(row, "lang"));
    if (!name) name = shape_of(conf)->language;
    size_t i = 0, n = sizeof languages / sizeof *languages;
    while (i < n && strncmp(languages[i].name, name, 2)) i++;
    if (i == n) {
        score_unjudged(score, "unknown-language",
                       "the language asked for is not known; en, zh, ja, ko, ru, ar, ... are");
    } else {
        const char *thought = strstr(item->completion, "</think>");
        Counter c = {.scripts = languages[i].scripts};
        text_count(&c, item->completion, thought ? thought : item->completion + strlen(item->completion));
        double share = c.words ? (double)c.in / (double)c.words : 0;
        score_set(score, share, share == 1,
                  !c.words     ? "no-words"
                  : share == 1 ? "one-language"
                               : "mixed-languages",
                  text_format("%ld of %ld words are in the letters of %s", c.in, c.words, languages[i].name));
    }
    json_decref(row);
}

const JudgeKind judge_language = {.name = "language", .judge = language_judge};
