/* tokenizer_json.c: a Tokenizer out of Hugging Face's tokenizer.json.
 *
 * BPE on bytes (ByteLevel), and on characters with a fallback to bytes (SentencePiece models as Hugging Face
 * converts them). Every part of the pipeline that would change ids is either honoured or refused by name; nothing
 * is guessed. Tested by tests/test_rollout_tokenizer.c.
 */
#include "rollout/tokens.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const char *type_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "?";
}

static bool is(const json_t *part, const char *type) { return strcmp(type_of(part), type) == 0; }

static bool refuse(const char *where, const char *what, const json_t *part, const char *supported, Err *err) {
    return err_set(err,
                   "%s: the %s \"%.60s\" is not supported (%s): whet reads BPE tokenizers on bytes, or with "
                   "byte_fallback",
                   where, what, type_of(part), supported);
}

static bool flag(const json_t *object, const char *key, bool otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

/* ---- normaliser ---- */

static bool text_is(const json_t *part, const char *key, const char *text) {
    const char *value = json_string_value(json_object_get(part, key));
    return value && strcmp(value, text) == 0;
}

/* Whether a part is SentencePiece's way of writing blanks. */
static bool is_marking(const json_t *part) {
    return is(part, "Replace") && text_is(json_object_get(part, "pattern"), "String", " ") &&
           text_is(part, "content", BLANK_MARK);
}

static bool read_normalizer(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    static const struct {
        const char *name;
        int form;
    } FORMS[] = {
        {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
        {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
        {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
        {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    if (!part || json_is_null(part)) return true;
    if (is(part, "Sequence")) {
        const json_t *list = json_object_get(part, "normalizers"), *item;
        size_t i;
        json_array_foreach(list, i, item) {
            if (is(item, "Sequence"))
                return refuse(where, "normalizer inside a Sequence", item, "one level is", err);
            if (!read_normalizer(tok, item, where, err)) return false;
        }
        return true;
    }
    if (tok->chars && is(part, "Prepend") && text_is(part, "prepend", BLANK_MARK) && !tok->mark) {
        tok->mark = MARK_ALWAYS;
        return true;
    }
    if (tok->chars && is_marking(part)) {
        tok->marks = true;
        return true;
    }
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        if (!is(part, FORMS[i].name)) continue;
        if (tok->normal_name || tok->marks || tok->mark)
            return err_set(err, "%s: more than one normalizer is not supported", where);
        tok->normal_name = FORMS[i].name;
        tok->normal_form = FORMS[i].form;
        return true;
    }
    return refuse(where, "normalizer", part, "NFC, NFD, NFKC, NFKD, and Prepend and Replace for blanks are", err);
}

/* ---- pre-tokenizer ---- */

static bool read_split(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    static const struct {
        const char *name;
        Keep keep;
    } KEEPS[] = {{"Isolated", KEEP_ISOLATED}, {"Removed", KEEP_REMOVED}, {"Contiguous", KEEP_CONTIGUOUS}};
    const json_t *pattern = json_object_get(part, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *string = json_object_get(pattern, "String");
    const json_t *text = regex ? regex : string;
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    if (!json_is_string(text))
        return err_set(err, "%s: a Split of the pre_tokenizer has no pattern: fetch it again", where);
    for (size_t i = 0; behavior && i < sizeof KEEPS / sizeof *KEEPS; i++)
        if (strcmp(behavior, KEEPS[i].name) == 0)
            return splitter_add(tok->splitter, json_string_value(text), json_string_length(text), text == string,
                                KEEPS[i].keep, flag(part, "invert", false), where, err);
    return err_set(err, "%s: the Split behavior \"%.60s\" is not supported (Isolated, Removed and Contiguous are)",
                   where, behavior ? behavior : "?");
}

/* One step; *bytes is set by the ByteLevel step, which has to come last. */
static bool read_step(Tokenizer *tok, const json_t *part, bool *bytes, const char *where, Err *err) {
    if (*bytes) return err_set(err, "%s: a pre_tokenizer step after ByteLevel is not supported", where);
    if (is(part, "Digits")) {
        bool single = flag(part, "individual_digits", false);
        return splitter_add(tok->splitter, single ? "\\p{N}" : "\\p{N}+", single ? 5 : 6, false, KEEP_ISOLATED,
                            false, where, err);
    }
    if (is(part, "Split")) return read_split(tok, part, where, err);
    if (!is(part, "ByteLevel"))
        return refuse(where, "pre_tokenizer", part, "Sequence, Digits, Split and ByteLevel are", err);
    if (flag(part, "add_prefix_space", true))
        return err_set(err, "%s: ByteLevel with add_prefix_space is not supported", where);
    *bytes = true;
    return !flag(part, "use_regex", true) || splitter_add(tok->splitter, PATTERN_GPT2, strlen(PATTERN_GPT2), false,
                                                          KEEP_ISOLATED, false, where, err);
}

/* SentencePiece's blanks as a step: [marked] blanks, a mark in front, and words cut before the marks. */
static bool read_metaspace(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    static const struct {
        const char *name;
        Mark mark;
    } SCHEMES[] = {{"always", MARK_UNLESS}, {"first", MARK_FIRST}, {"never", MARK_NEVER}};
    const char *scheme = json_string_value(json_object_get(part, "prepend_scheme"));
    if (!scheme) scheme = flag(part, "add_prefix_space", true) ? "always" : "never";
    if (tok->meta || tok->marks || tok->mark || !text_is(part, "replacement", BLANK_MARK))
        return err_set(err, "%s: blanks are written as marks twice, or with another mark: not supported", where);
    tok->meta = true;
    for (size_t i = 0; i < 3; i++)
        if (strcmp(scheme, SCHEMES[i].name) == 0) {
            static const char CUT[] = BLANK_MARK "[^" BLANK_MARK "]*";
            tok->mark = SCHEMES[i].mark;
            return !flag(part, "split", true) ||
                   splitter_add(tok->splitter, CUT, strlen(CUT), false, KEEP_ISOLATED, false, where, err);
        }
    return err_set(err, "%s: the prepend_scheme \"%.40s\" is not supported (always, first and never are)", where,
                   scheme);
}

/* Steps of a tokenizer with byte_fallback. A Split at blanks, which marks have replaced, finds none. */
static bool read_char_steps(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    const json_t *item;
    size_t i;
    if (!part || json_is_null(part)) return true;
    if (is(part, "Metaspace")) return read_metaspace(tok, part, where, err);
    if (is(part, "Split") && tok->marks && text_is(json_object_get(part, "pattern"), "String", " ")) return true;
    if (!is(part, "Sequence"))
        return refuse(where, "pre_tokenizer", part, "beside byte_fallback Metaspace and Split at blanks are", err);
    json_array_foreach(json_object_get(part, "pretokenizers"), i, item) {
        if (is(item, "Sequence"))
            return refuse(where, "pre_tokenizer inside a Sequence", item, "one level is", err);
        if (!read_char_steps(tok, item, where, err)) return false;
    }
    return true;
}

static bool read_pre_tokenizer(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    bool bytes = false;
    if (tok->chars) return read_char_steps(tok, part, where, err);
    if (!is(part, "Sequence")) {
        if (!read_step(tok, part, &bytes, where, err)) return false;
    } else {
        const json_t *item;
        size_t i;
        json_array_foreach(json_object_get(part, "pretokenizers"), i,
                           item) if (!read_step(tok, item, &bytes, where, err)) return false;
    }
    return bytes ||
           err_set(err, "%s: the pre_tokenizer has no ByteLevel step: whet reads byte-level BPE tokenizers",
                   where);
}

/* ---- decoder ---- */

/* Marks back to blanks, bytes put together, and the blank in front dropped. */
static bool read_char_decoder(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    const json_t *list = json_object_get(part, "decoders"), *item;
    size_t i;
    if (is(part, "Metaspace")) {
        tok->strip = !text_is(part, "prepend_scheme", "never") && flag(part, "add_prefix_space", true);
        return true;
    }
    if (!is(part, "Sequence")) return refuse(where, "decoder", part, "Metaspace and a Sequence are", err);
    json_array_foreach(list, i, item) {
        bool replace = is(item, "Replace") && text_is(json_object_get(item, "pattern"), "String", BLANK_MARK) &&
                       text_is(item, "content", " ");
        bool strip = is(item, "Strip") && text_is(item, "content", " ") &&
                     json_integer_value(json_object_get(item, "start")) == 1 &&
                     json_integer_value(json_object_get(item, "stop")) == 0;
        if (strip) tok->strip = true;
        if (is(item, "Metaspace") && !read_char_decoder(tok, item, where, err)) return false;
        if (!replace && !strip && !is(item, "Metaspace") && !is(item, "ByteFallback") && !is(item, "Fuse"))
            return refuse(where, "decoder", item, "Replace of marks, ByteFallback, Fuse and Strip of a blank are",
                          err);
    }
    return true;
}

static bool read_decoder(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    if (tok->chars) return read_char_decoder(tok, part, where, err);
    const json_t *list = json_object_get(part, "decoders");
    if (is(part, "Sequence") && json_array_size(list) == 1) part = json_array_get(list, 0);
    return is(part, "ByteLevel") || refuse(where, "decoder", part, "ByteLevel is", err);
}

/* ---- post-processor: the tokens around every text ---- */

static bool frame_add(Tokenizer *tok, bool after, const json_t *ids, const char *where, Err *err) {
    int *list = after ? tok->after : tok->before, *n = after ? &tok->n_after : &tok->n_before;
    const json_t *id;
    size_t i;
    json_array_foreach(ids, i, id) {
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= tok->n_ids || !tok->pieces[value].p || *n == 4)
            return err_set(
                err, "%s: the post_processor names a token that is not there, or more than 4: fetch it again",
                where);
        list[(*n)++] = (int)value;
    }
    return i > 0 || err_set(err, "%s: the post_processor names a token without ids: fetch it again", where);
}

static bool read_template(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    const json_t *specials = json_object_get(part, "special_tokens"), *item;
    bool after = false;
    size_t i;
    json_array_foreach(json_object_get(part, "single"), i, item) {
        const json_t *token = json_object_get(item, "SpecialToken");
        if (json_object_get(item, "Sequence"))
            after = true;
        else {
            const char *name = json_string_value(json_object_get(token, "id"));
            const json_t *entry = name ? json_object_get(specials, name) : NULL;
            if (!frame_add(tok, after, json_object_get(entry, "ids"), where, err)) return false;
        }
    }
    return after || err_set(err, "%s: the post_processor's template has no text in it: fetch it again", where);
}

static bool read_post_processor(Tokenizer *tok, const json_t *part, const char *where, Err *err) {
    if (!part || json_is_null(part) || is(part, "ByteLevel")) return true;
    if (is(part, "TemplateProcessing")) {
        if (tok->n_before + tok->n_after) return err_set(err, "%s: two templates are not supported", where);
        return read_template(tok, part, where, err);
    }
    if (!is(part, "Sequence"))
        return refuse(where, "post_processor", part, "TemplateProcessing and ByteLevel are", err);
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(part, "processors"), i, item) {
        if (is(item, "Sequence"))
            return refuse(where, "post_processor inside a Sequence", item, "one level is", err);
        if (!read_post_processor(tok, item, where, err)) return false;
    }
    return true;
}

/* ---- model ---- */

/* Features of the model that byte-level BPE tokenizers leave off. */
static bool model_refusals(const json_t *model, const char *where, Err *err) {
    static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *type = json_object_get(model, "type");
    if (type ? !is(model, "BPE") : !json_object_get(model, "merges"))
        return refuse(where, "model", model, "BPE is", err);
    for (int i = 0; i < 2; i++)
        if (json_string_length(json_object_get(model, AFFIXES[i])) > 0)
            return err_set(err, "%s: a BPE model with %s is not supported", where, AFFIXES[i]);
    if (flag(model, "byte_fallback", false) && flag(model, "ignore_merges", false))
        return err_set(err, "%s: a BPE model with byte_fallback and ignore_merges is not supported", where);
    if (json_number_value(json_object_get(model, "dropout")) > 0)
        return err_set(err, "%s: a BPE model with dropout is not supported: set it to null", where);
    return true;
}

/* The largest id + 1 over vocabulary and added tokens; -1 and err when an id is absurd. */
static int count_ids(const json_t *vocab, const json_t *added, const char *where, Err *err) {
    const char *text;
    json_t *value;
    json_int_t most = -1;
    size_t i;
    bool ok = json_object_size(vocab) > 0;
    json_object_foreach((json_t *)vocab, text, value) {
        ok = ok && json_is_integer(value) && json_integer_value(value) >= 0;
        if (json_integer_value(value) > most) most = json_integer_value(value);
    }
    json_array_foreach(added, i, value) {
        const json_t *id = json_object_get(value, "id");
        ok = ok && json_is_integer(id) && json_integer_value(id) >= 0;
        if (json_integer_value(id) > most) most = json_integer_value(id);
    }
    if (ok && most < MOST_TOKENS) return (int)most + 1;
    err_set(err, "%s: the vocabulary is missing, or holds an id that is no number from 0 to %d: fetch it again",
            where, MOST_TOKENS - 1);
    return -1;
}

/* A merge is ["a", "b"], or "a b" in older files. */
static bool read_merges(Builder *b, const json_t *merges, Err *err) {
    const json_t *item;
    size_t i;
    if (!json_is_array(merges)) return err_set(err, "%s: the merges are missing: fetch it again", b->where);
    json_array_foreach(merges, i, item) {
        const json_t *l = json_array_get(item, 0), *r = json_array_get(item, 1);
        View left = {json_string_value(l), json_string_length(l)},
             right = {json_string_value(r), json_string_length(r)};
        const char *blank = json_is_string(item) ? strchr(json_string_value(item), ' ') : NULL;
        if (blank) {
            left = (View){json_string_value(item), (size_t)(blank - json_string_value(item))};
            right = (View){blank + 1, json_string_length(item) - left.n - 1};
        }
        if (!left.p || !right.p || json_array_size(item) > 2 || (blank && strchr(right.p, ' ')))
            return err_set(err, "%s: merge number %zu is no pair of texts: fetch it again", b->where, i + 1);
        if (!builder_merge(b, left, right, err)) return false;
    }
    return true;
}

static bool read_added(Builder *b, const json_t *list, Err *err) {
    const json_t *item;
    size_t i;
    json_array_foreach(list, i, item) {
        const json_t *text = json_object_get(item, "content");
        Added added = {.id = (int)json_integer_value(json_object_get(item, "id")),
                       .p = json_string_value(text),
                       .n = json_string_length(text),
                       .single_word = flag(item, "single_word", false),
                       .lstrip = flag(item, "lstrip", false),
                       .rstrip = flag(item, "rstrip", false),
                       .special = flag(item, "special", false)};
        added.normalized = flag(item, "normalized", !added.special);
        if (!added.p)
            return err_set(err, "%s: added token number %zu has no content: fetch it again", b->where, i + 1);
        Buf normal = {0};
        if (added.normalized && added.n) {
            added.text = (View){added.p, added.n};
            tokenizer_normalize(b->tok, added.p, added.n, true, &normal);
            added.p = normal.p, added.n = normal.n;
        }
        bool ok = builder_added(b, &added, err);
        buf_free(&normal);
        if (!ok) return false;
    }
    return true;
}

static bool read_model(Builder *b, const json_t *model, const json_t *added, Err *err) {
    const char *text;
    json_t *id;
    json_object_foreach(
        json_object_get(model, "vocab"), text,
        id) if (!builder_piece(b, (int)json_integer_value(id), text, strlen(text), err)) return false;
    if (!read_merges(b, json_object_get(model, "merges"), err)) return false;
    const json_t *unk = json_object_get(model, "unk_token");
    if (json_is_string(unk)) {
        b->tok->unk = builder_find(b, json_string_value(unk), json_string_length(unk));
        b->tok->fuse_unk = flag(model, "fuse_unk", false);
    }
    b->tok->whole_words = flag(model, "ignore_merges", false);
    return read_added(b, added, err) && builder_finish(b, err);
}

bool tokenizer_read_pipeline(Tokenizer *tok, const json_t *pre_tokenizer, const json_t *normalizer,
                             const char *where, Err *err) {
    if (!read_normalizer(tok, normalizer, where, err) || !read_pre_tokenizer(tok, pre_tokenizer, where, err))
        return false;
    return tok->marks || tok->meta || !tok->mark ||
           err_set(err, "%s: a mark before the text but none for blanks is not supported", where);
}

bool tokenizer_from_json(Tokenizer *tok, const json_t *root, const char *where, Err *err) {
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    if (!json_is_object(model))
        return err_set(err, "%s: has no model: not a tokenizer.json, fetch it again", where);
    if (!model_refusals(model, where, err)) return false;
    tok->chars = flag(model, "byte_fallback", false);
    int n = count_ids(json_object_get(model, "vocab"), added, where, err);
    if (n < 0) return false;
    Builder builder;
    builder_open(&builder, tok, n, where);
    bool ok = tokenizer_read_pipeline(tok, json_object_get(root, "pre_tokenizer"),
                                      json_object_get(root, "normalizer"), where, err) &&
              read_model(&builder, model, added, err);
    builder_close(&builder);
    return ok && read_decoder(tok, json_object_get(root, "decoder"), where, err) &&
           read_post_processor(tok, json_object_get(root, "post_processor"), where, err);
}
