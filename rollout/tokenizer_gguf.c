/* tokenizer_gguf.c: a Tokenizer out of a GGUF's metadata.
 *
 * GGUF keeps the split pattern only as a name; the table here says what the name stands for, as tokenizer.json
 * spells it. Names that are not in the table are refused. Tested by tests/test_rollout_tokenizer.c.
 */
#include "rollout/tokens.h"

#include <stdlib.h>
#include <string.h>

#define PATTERN_LLAMA3                                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"      \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN_QWEN2                                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"           \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN_CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"
#define PATTERN_CJK_KANA "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"
#define PATTERN_DEEPSEEK3                                                                                         \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"            \
    " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN_TEKKEN                                                                                            \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"                  \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}|"           \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *name;
    bool digits;             /* single digits: before the patterns, or after them where there are several */
    const char *patterns[6]; /* none: ByteLevel's own, GPT-2's */
    const char *normalizer;
    bool whole_words; /* "ignore_merges" */
    bool add_bos;     /* where the file does not say */
} SPLITS[] = {
    {"gpt-2", false, {NULL}, NULL, false, false},
    {"smollm", true, {NULL}, NULL, false, false},
    {"starcoder", true, {NULL}, NULL, false, false},
    {"refact", true, {NULL}, NULL, false, false},
    {"llama-bpe", false, {PATTERN_LLAMA3}, NULL, true, true},
    {"llama3", false, {PATTERN_LLAMA3}, NULL, true, true},
    {"qwen2", false, {PATTERN_QWEN2}, "NFC", false, false},
    {"deepseek-r1-qwen", false, {PATTERN_QWEN2}, "NFC", false, false},
    {"deepseek-coder", true, {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", PATTERN_CJK}, NULL, false, true},
    {"deepseek-v3", false, {"\\p{N}{1,3}", PATTERN_CJK_KANA, PATTERN_DEEPSEEK3}, NULL, false, true},
    {"tekken", false, {PATTERN_TEKKEN}, NULL, true, true},
};
enum { N_SPLITS = sizeof SPLITS / sizeof *SPLITS };

static int split_find(const char *name, size_t n) {
    for (int i = 0; i < N_SPLITS; i++)
        if (strlen(SPLITS[i].name) == n && memcmp(SPLITS[i].name, name, n) == 0) return i;
    return -1;
}

static json_t *digits_step(void) { return json_pack("{s:s,s:b}", "type", "Digits", "individual_digits", 1); }

json_t *gguf_pre_tokenizer(const char *split_name) {
    int s = split_find(split_name, strlen(split_name));
    CHECK(s >= 0, "%s", split_name);
    json_t *steps = json_array();
    bool several = SPLITS[s].patterns[0] && SPLITS[s].patterns[1];
    if (SPLITS[s].digits && !several) json_array_append_new(steps, digits_step());
    for (int i = 0; SPLITS[s].patterns[i]; i++)
        json_array_append_new(steps, json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", "Regex",
                                               SPLITS[s].patterns[i], "behavior", "Isolated", "invert", 0));
    if (SPLITS[s].digits && several) json_array_append_new(steps, digits_step());
    json_array_append_new(steps, json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                                           "trim_offsets", 1, "use_regex", SPLITS[s].patterns[0] == NULL));
    return json_pack("{s:s,s:o}", "type", "Sequence", "pretokenizers", steps);
}

/* What a pre_tokenizer of tokenizer.json does, without what makes no difference. */
static void steps_spell(const json_t *part, Buf *out) {
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *list = json_object_get(part, "pretokenizers"), *item;
    size_t i;
    json_array_foreach(list, i, item) steps_spell(item, out);
    if (list || !type) return;
    const json_t *pattern = json_object_get(json_object_get(part, "pattern"), "Regex"),
                 *regex = json_object_get(part, "use_regex");
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    buf_format(out, "%s %s %s %d %d %d\n", type, pattern ? json_string_value(pattern) : "",
               behavior ? behavior : "", json_is_true(json_object_get(part, "invert")),
               json_is_true(json_object_get(part, "individual_digits")), regex && !json_is_true(regex));
}

const char *gguf_split_name(const Tokenizer *tok) {
    json_t *root = tok->json ? json_loadb(tok->json, tok->json_n, 0, NULL) : NULL;
    Buf own = {0}, other = {0};
    const char *name = NULL;
    steps_spell(json_object_get(root, "pre_tokenizer"), &own);
    for (int i = 0; own.n && i < N_SPLITS && !name; i++) {
        const char *normal = SPLITS[i].normalizer ? SPLITS[i].normalizer : "";
        if (strcmp(normal, tok->normal_name ? tok->normal_name : "") != 0 ||
            SPLITS[i].whole_words != tok->whole_words)
            continue;
        json_t *steps = gguf_pre_tokenizer(SPLITS[i].name);
        buf_clear(&other);
        steps_spell(steps, &other);
        json_decref(steps);
        if (strcmp(own.p, other.p) == 0) name = SPLITS[i].name;
    }
    json_decref(root);
    buf_free(&own);
    buf_free(&other);
    return name;
}

static bool read_tokens(Builder *b, const View *texts, const int32_t *types, int n, Err *err) {
    for (int id = 0; id < n; id++) {
        if (types && types[id] == TYPE_UNUSED) continue;
        if (!builder_piece(b, id, texts[id].p, texts[id].n, err)) return false;
        bool control = types && (types[id] == TYPE_CONTROL || (b->tok->chars && types[id] == TYPE_UNKNOWN));
        if (control && types[id] == TYPE_UNKNOWN) b->tok->unk = id;
        if (!control && !(types && types[id] == TYPE_USER)) continue;
        Added added = {.id = id, .p = texts[id].p, .n = texts[id].n, .special = control};
        if (!builder_added(b, &added, err)) return false;
    }
    return true;
}

/* "a b"; a piece never holds a blank, but its first byte may be skipped to be sure of a left part. */
static bool read_merges(Builder *b, const View *merges, int n, Err *err) {
    for (int i = 0; i < n; i++) {
        const char *blank = merges[i].n > 1 ? memchr(merges[i].p + 1, ' ', merges[i].n - 1) : NULL;
        if (!blank)
            return err_set(err, "%s: merge number %d is no pair of texts: fetch the file again", b->where, i + 1);
        size_t left = (size_t)(blank - merges[i].p);
        if (!builder_merge(b, (View){merges[i].p, left}, (View){blank + 1, merges[i].n - left - 1}, err))
            return false;
    }
    return true;
}

/* Tokens before and after every text, where the file (or the kind of tokenizer) wants them. */
static bool read_frame(Tokenizer *tok, const Gguf *gguf, bool add_bos, const char *where, Err *err) {
    int64_t before = add_bos, after = 0, bos = -1, eos = -1;
    gguf_int(gguf, "tokenizer.ggml.add_bos_token", &before);
    gguf_int(gguf, "tokenizer.ggml.add_eos_token", &after);
    gguf_int(gguf, "tokenizer.ggml.bos_token_id", &bos);
    gguf_int(gguf, "tokenizer.ggml.eos_token_id", &eos);
    if ((before && (bos < 0 || bos >= tok->n_ids)) || (after && (eos < 0 || eos >= tok->n_ids)))
        return err_set(err,
                       "%s: the tokenizer wants a BOS or EOS that is not in the vocabulary: fetch the file again",
                       where);
    if (before) tok->before[tok->n_before++] = (int)bos;
    if (after) tok->after[tok->n_after++] = (int)eos;
    return true;
}

static bool read_split_name(Tokenizer *tok, const Gguf *gguf, int *split, const char *where, Err *err) {
    View model, name;
    if (!gguf_text(gguf, "tokenizer.ggml.model", &model))
        return err_set(err, "%s: the tokenizer is missing (no tokenizer.ggml.model): fetch a complete file",
                       where);
    if (model.n == 5 && memcmp(model.p, "llama", 5) == 0) {
        tok->chars = true;
        return true;
    }
    if (model.n != 4 || memcmp(model.p, "gpt2", 4) != 0)
        return err_set(
            err,
            "%s: the tokenizer \"%.*s\" is not supported (gpt2, which is byte-level BPE, and llama, which "
            "is SentencePiece's, are)",
            where, model.n > 60 ? 60 : (int)model.n, model.p);
    if (!gguf_text(gguf, "tokenizer.ggml.pre", &name))
        return err_set(err,
                       "%s: tokenizer.ggml.pre, the name of the split pattern, is missing: convert the model anew",
                       where);
    *split = split_find(name.p, name.n);
    if (*split < 0)
        return err_set(
            err,
            "%s: the split pattern \"%.*s\" (tokenizer.ggml.pre) is not known: give the Hugging Face folder "
            "of the model",
            where, name.n > 60 ? 60 : (int)name.n, name.p);
    tok->split_name = SPLITS[*split].name;
    return true;
}

static bool read_all(Tokenizer *tok, const Gguf *gguf, const View *texts, int n, const int32_t *types,
                     const char *where, Err *err) {
    View *merges = NULL;
    float *scores = NULL;
    int n_merges = 0, n_scores = 0;
    if (tok->chars ? !types || !gguf_floats(gguf, "tokenizer.ggml.scores", &scores, &n_scores) || n_scores != n
                   : !gguf_texts(gguf, "tokenizer.ggml.merges", &merges, &n_merges)) {
        free(scores);
        return err_set(err, "%s: the tokenizer's %s are missing: fetch a complete file", where,
                       tok->chars ? "scores or types" : "merges");
    }
    Builder builder;
    builder_open(&builder, tok, n, where);
    bool ok = read_tokens(&builder, texts, types, n, err) &&
              (tok->chars ? merges_from_scores(&builder, scores, types, n, err)
                          : read_merges(&builder, merges, n_merges, err)) &&
              builder_finish(&builder, err);
    builder_close(&builder);
    free(merges);
    free(scores);
    return ok;
}

/* SentencePiece's blanks: written as marks, and usually one before every piece of text. */
static void read_marks(Tokenizer *tok, const Gguf *gguf) {
    int64_t before = 1;
    gguf_int(gguf, "tokenizer.ggml.add_space_prefix", &before);
    tok->marks = true;
    tok->mark = before ? MARK_ALWAYS : MARK_NEVER;
    tok->strip = before != 0;
}

/* The steps and the normaliser go the way of tokenizer.json, so that what is saved is what ran. */
static bool read_pipeline(Tokenizer *tok, int split, const char *where, Err *err) {
    json_t *pre = gguf_pre_tokenizer(SPLITS[split].name);
    json_t *normal = SPLITS[split].normalizer ? json_pack("{s:s}", "type", SPLITS[split].normalizer) : NULL;
    bool ok = tokenizer_read_pipeline(tok, pre, normal, where, err);
    json_decref(pre);
    json_decref(normal);
    return ok;
}

bool tokenizer_from_gguf(Tokenizer *tok, const Gguf *gguf, const char *where, Err *err) {
    int split = 0, n, n_types;
    View *texts = NULL;
    int32_t *types = NULL;
    if (!read_split_name(tok, gguf, &split, where, err)) return false;
    if (tok->chars)
        read_marks(tok, gguf);
    else if (!read_pipeline(tok, split, where, err))
        return false;
    tok->whole_words = !tok->chars && SPLITS[split].whole_words;
    bool ok = gguf_texts(gguf, "tokenizer.ggml.tokens", &texts, &n) ||
              err_set(err, "%s: the tokenizer's tokens are missing: fetch a complete file", where);
    if (ok && n > MOST_TOKENS)
        ok = err_set(err, "%s: %d tokens are more than can be right: fetch the file again", where, n);
    if (ok && gguf_has(gguf, "tokenizer.ggml.token_type")) {
        ok = gguf_ints(gguf, "tokenizer.ggml.token_type", &types, &n_types) && n_types == n;
        if (!ok)
            err_set(err, "%s: tokenizer.ggml.token_type does not fit the tokens: fetch the file again", where);
    }
    ok = ok && read_all(tok, gguf, texts, n, types, where, err) &&
         read_frame(tok, gguf, tok->chars || SPLITS[split].add_bos, where, err);
    free(texts);
    free(types);
    return ok;
}
