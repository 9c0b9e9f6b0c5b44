/* test_rollout_tokenizer.c: ids equal to Hugging Face's on the goldens, bytes back, long words in good time, saved
 * tokenizers that open to the same ids, and broken tokenizer files that cost one clear line.
 *
 * Goldens: tests/goldens/make_tokenizer_goldens.py. The real model: test_rollout_model.c.
 */
#include "rollout/rollout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define GOLDENS "tests/goldens/"
static const char *const NAMES[] = {"smollm", "llama3", "qwen2"};

typedef struct {
    int *ids, n, room;
} Ids;

static Ids encode(const Tokenizer *tok, const char *text, size_t n, bool special) {
    Ids ids = {0};
    tokenizer_encode(tok, text, n, special, &ids.ids, &ids.n, &ids.room);
    return ids;
}

static Tokenizer *open_json(const char *path) {
    Err err = {0};
    Tokenizer *tok = tokenizer_open_json(path, &err);
    if (!tok) fail_msg("%s", err.msg);
    return tok;
}

static bool same_ids(const Ids *ids, const json_t *wanted) {
    if ((size_t)ids->n != json_array_size(wanted)) return false;
    for (int i = 0; i < ids->n; i++)
        if (ids->ids[i] != json_integer_value(json_array_get(wanted, (size_t)i))) return false;
    return true;
}

/* ---- goldens ---- */

/* Calls `see` for every line of the goldens; returns how many there were. */
static int each_line(const char *path, void (*see)(void *self, const json_t *row), void *self) {
    gzFile file = gzopen(path, "rb");
    assert_non_null(file);
    size_t room = 1 << 20;
    char *line = malloc(room);
    int n = 0;
    while (gzgets(file, line, (int)room)) {
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        if (n++ > 0) see(self, row);
        json_decref(row);
    }
    free(line);
    gzclose(file);
    return n - 1;
}

static int each_golden(void (*see)(void *self, const json_t *row), void *self) {
    return each_line(GOLDENS "tokenizer-goldens.jsonl.gz", see, self);
}

typedef struct {
    Tokenizer *tok;
    const char *name;
    int wrong, wrong_back;
} Golden;

static void see_golden(void *self, const json_t *row) {
    Golden *g = self;
    const json_t *text = json_object_get(row, "text"), *wanted = json_object_get(row, g->name);
    char key[32];
    snprintf(key, sizeof key, "%s_back", g->name);
    const json_t *back = json_object_get(row, key); /* where it is not the text: stripped blanks, NFC */
    if (!back) back = text;
    Ids ids = encode(g->tok, json_string_value(text), json_string_length(text), true);
    if (!same_ids(&ids, wanted) && g->wrong++ < 3)
        print_error("%s: ids of %s differ\n", g->name, json_string_value(text));
    Buf out = {0};
    tokenizer_decode(g->tok, ids.ids, ids.n, false, &out);
    if ((out.n != json_string_length(back) || memcmp(out.n ? out.p : "", json_string_value(back), out.n) != 0) &&
        g->wrong_back++ < 3)
        print_error("%s: %s comes back as %s\n", g->name, json_string_value(text), out.p);
    buf_free(&out);
    free(ids.ids);
}

static void test_goldens(void **state) {
    (void)state;
    static const char *const PATHS[] = {GOLDENS "tiny-llama/tokenizer.json", GOLDENS "tokenizer-llama3.json",
                                        GOLDENS "tokenizer-qwen2.json"};
    for (int i = 0; i < 3; i++) {
        Golden g = {.tok = open_json(PATHS[i]), .name = NAMES[i]};
        int n = each_golden(see_golden, &g);
        assert_true(n >= 2000);
        assert_int_equal(g.wrong, 0);
        assert_int_equal(g.wrong_back, 0);
        tokenizer_close(g.tok);
    }
}

static Tokenizer *open_model(const char *path, ModelFile **file) {
    Err err = {0};
    *file = model_file_open(path, &err);
    if (!*file) fail_msg("%s", err.msg);
    Tokenizer *tok = tokenizer_open(*file, &err);
    if (!tok) fail_msg("%s", err.msg);
    return tok;
}

/* ---- SentencePiece's way, and other pipelines ---- */

/* Writes the tokenizer.json of a variant: the parts of tokenizer-variants.json around one of two models. */
static void variant_write(const char *path, const json_t *file, const char *name, const json_t *parts) {
    json_t *whole = json_object_get(parts, "decoder") ? json_deep_copy(json_object_get(file, "spm"))
                                                      : json_load_file(GOLDENS "tokenizer-llama3.json", 0, NULL);
    assert_non_null(whole);
    json_object_update(whole, (json_t *)parts);
    if (json_dump_file(whole, path, 0) != 0) fail_msg("%s: %s can't be written", name, path);
    json_decref(whole);
}

static void test_variants(void **state) {
    (void)state;
    json_t *file = json_load_file(GOLDENS "tokenizer-variants.json", 0, NULL), *parts;
    const char *name;
    char path[] = "/tmp/whet-test-XXXXXX";
    close(mkstemp(path));
    int n = 0;
    json_object_foreach(json_object_get(file, "variants"), name, parts) {
        variant_write(path, file, name, parts);
        Golden g = {.tok = open_json(path), .name = name};
        assert_true(each_line(GOLDENS "variants-goldens.jsonl.gz", see_golden, &g) > 800);
        if (g.wrong + g.wrong_back) fail_msg("%s: %d and %d wrong", name, g.wrong, g.wrong_back);
        tokenizer_close(g.tok);
        n++;
    }
    assert_int_equal(n, 6);
    unlink(path);
    json_decref(file);
}

/* Scores in a GGUF stand for the merges that Hugging Face lists; what is saved of it says the same again. */
static void test_scores(void **state) {
    (void)state;
    Err err = {0};
    ModelFile *file = model_file_open(GOLDENS "tiny-spm.gguf", &err);
    if (!file) fail_msg("%s", err.msg);
    Golden g = {.tok = tokenizer_open(file, &err), .name = "llama2"};
    if (!g.tok) fail_msg("%s", err.msg);
    each_line(GOLDENS "variants-goldens.jsonl.gz", see_golden, &g);
    assert_int_equal(g.wrong + g.wrong_back, 0);
    int before[4], after[4], n_before, n_after;
    tokenizer_frame(g.tok, before, &n_before, after, &n_after);
    assert_true(n_before == 1 && before[0] == 1 && n_after == 0);
    char folder[] = "/tmp/whet-test-XXXXXX", path[64], gguf[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    snprintf(gguf, sizeof gguf, "%s/x.gguf", folder);
    if (!tokenizer_save(g.tok, model_file_conf(file), NULL, folder, &err)) fail_msg("%s", err.msg);
    if (!model_export_gguf(file, g.tok, "q8_0", gguf, &err)) fail_msg("%s", err.msg);
    tokenizer_close(g.tok);
    g.tok = open_json(path);
    each_line(GOLDENS "variants-goldens.jsonl.gz", see_golden, &g);
    assert_int_equal(g.wrong + g.wrong_back, 0);
    tokenizer_close(g.tok);
    model_file_close(file);
    g.tok = open_model(gguf, &file);
    each_line(GOLDENS "variants-goldens.jsonl.gz", see_golden, &g);
    assert_int_equal(g.wrong + g.wrong_back, 0);
    tokenizer_close(g.tok);
    model_file_close(file);
    char config[64];
    snprintf(config, sizeof config, "%s/tokenizer_config.json", folder);
    unlink(path), unlink(config), unlink(gguf), rmdir(folder);
}

/* A GGUF says the same as the tokenizer.json that it was made from, and so does what is saved of it. */
static void test_gguf_and_saved(void **state) {
    (void)state;
    Err err = {0};
    ModelFile *file;
    Golden g = {.tok = open_model(GOLDENS "tiny.gguf", &file), .name = "smollm"};
    each_golden(see_golden, &g);
    assert_int_equal(g.wrong + g.wrong_back, 0);
    char folder[] = "/tmp/whet-test-XXXXXX", path[64], config[64];
    assert_non_null(mkdtemp(folder));
    const char *chat = model_file_chat_template(file);
    assert_non_null(strstr(chat, "add_generation_prompt"));
    if (!tokenizer_save(g.tok, model_file_conf(file), chat, folder, &err)) fail_msg("%s", err.msg);
    tokenizer_close(g.tok);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    snprintf(config, sizeof config, "%s/tokenizer_config.json", folder);
    g.tok = open_json(path);
    each_golden(see_golden, &g);
    assert_int_equal(g.wrong + g.wrong_back, 0);
    assert_int_equal(tokenizer_find(g.tok, "<|im_end|>"), 2);
    assert_true(tokenizer_is_special(g.tok, 2));
    json_t *saved = json_load_file(config, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(saved, "chat_template")), chat);
    assert_string_equal(json_string_value(json_object_get(saved, "eos_token")), "<|im_end|>");
    json_decref(saved);
    tokenizer_close(g.tok);
    model_file_close(file);
    unlink(path), unlink(config), rmdir(folder);
}

/* ---- special tokens ---- */

static void test_special(void **state) {
    (void)state;
    Tokenizer *tok = open_json(GOLDENS "tiny-llama/tokenizer.json");
    const char *text = "<|im_start|>user";
    Ids with = encode(tok, text, strlen(text), true), without = encode(tok, text, strlen(text), false);
    assert_int_equal(with.ids[0], 1);
    for (int i = 0; i < without.n; i++) assert_false(tokenizer_is_special(tok, without.ids[i]));
    Buf out = {0};
    tokenizer_decode(tok, with.ids, with.n, true, &out);
    assert_string_equal(out.p, "user");
    buf_clear(&out);
    tokenizer_decode(tok, without.ids, without.n, true, &out);
    assert_string_equal(out.p, text);
    size_t n;
    assert_memory_equal(tokenizer_piece(tok, 1, &n), "<|im_start|>", 12);
    assert_int_equal(n, 12);
    assert_int_equal(tokenizer_find(tok, "<|im_end|>"), 2);
    assert_int_equal(tokenizer_find(tok, "user"), -1);
    assert_int_equal(tokenizer_vocab(tok), 384);
    int out_of_range[] = {-1, 384, 1 << 30};
    buf_clear(&out);
    tokenizer_decode(tok, out_of_range, 3, false, &out);
    assert_int_equal(out.n, 0);
    buf_free(&out);
    free(with.ids);
    free(without.ids);
    tokenizer_close(tok);
}

static void write_text(const char *path, const char *text, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    fclose(file);
}

static char *read_text(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    Buf buf = {0};
    char part[4096];
    for (size_t k; (k = fread(part, 1, sizeof part, file)) > 0;) buf_add(&buf, part, k);
    fclose(file);
    *n = buf.n;
    return buf.p;
}

/* A GGUF that wants a BOS gets one, and so does what is saved of it. */
static void check_gguf_frame(void) {
    static const char KEY[] = "tokenizer.ggml.add_bos_token";
    size_t n;
    char *gguf = read_text(GOLDENS "tiny.gguf", &n), folder[] = "/tmp/whet-test-XXXXXX", path[64];
    char *place = memmem(gguf, n, KEY, strlen(KEY));
    assert_non_null(place);
    place[strlen(KEY) + 4] = 1;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/bos.gguf", folder);
    write_text(path, gguf, n);
    ModelFile *file;
    Tokenizer *tok = open_model(path, &file);
    Err err = {0};
    assert_true(tokenizer_save(tok, model_file_conf(file), NULL, folder, &err));
    unlink(path);
    for (int round = 0; round < 2; round++) {
        int before[4], after[4], n_before, n_after;
        tokenizer_frame(tok, before, &n_before, after, &n_after);
        assert_true(n_before == 1 && before[0] == 1 && n_after == 0);
        tokenizer_close(tok);
        snprintf(path, sizeof path, "%s/tokenizer.json", folder);
        if (round == 0) tok = open_json(path);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    unlink(path);
    rmdir(folder);
    model_file_close(file);
    free(gguf);
}

static void test_frame(void **state) {
    (void)state;
    check_gguf_frame();
    int before[4], after[4], n_before, n_after;
    Tokenizer *tok = open_json(GOLDENS "tokenizer-llama3.json");
    tokenizer_frame(tok, before, &n_before, after, &n_after);
    assert_int_equal(n_before, 1);
    assert_int_equal(before[0], 0);
    assert_int_equal(n_after, 0);
    tokenizer_close(tok);
    tok = open_json(GOLDENS "tiny-llama/tokenizer.json");
    tokenizer_frame(tok, before, &n_before, after, &n_after);
    assert_int_equal(n_before + n_after, 0);
    tokenizer_close(tok);
}

/* ---- bytes ---- */

static void assert_back(const Tokenizer *tok, const char *text, size_t n, bool special) {
    Ids ids = encode(tok, text, n, special);
    Buf out = {0};
    tokenizer_decode(tok, ids.ids, ids.n, false, &out);
    assert_int_equal(out.n, n);
    if (n) assert_memory_equal(out.p, text, n);
    buf_free(&out);
    free(ids.ids);
}

/* Any bytes come back, valid UTF-8 or not. */
static void test_any_bytes(void **state) {
    (void)state;
    static const char *const PARTS[] = {
        "\xf0\x9f\x98\x80", "\xe4\xbd", "\xed\xa0\x80",     "\xc0\x80", "\xff",         "\xf5\x80\x80\x80",
        "<|im_start|>",     " the",     "\xf4\x90\x80\x80", "\x80",     "\xe2\x80\xa8", "12"};
    Rng rng = {.key = 5};
    Tokenizer *toks[] = {open_json(GOLDENS "tiny-llama/tokenizer.json"),
                         open_json(GOLDENS "tokenizer-llama3.json")};
    for (int round = 0; round < 2000; round++) {
        char text[256];
        size_t n = 0;
        int parts = (int)rng_below(&rng, 12);
        for (int i = 0; i < parts; i++) {
            const char *part = PARTS[rng_below(&rng, 12)];
            if (rng_below(&rng, 3))
                text[n++] = (char)rng_below(&rng, 256);
            else
                memcpy(text + n, part, strlen(part)), n += strlen(part);
        }
        assert_back(toks[round % 2], text, n, round % 4 < 2);
    }
    tokenizer_close(toks[0]);
    tokenizer_close(toks[1]);
}

/* ---- long words: nothing is quadratic: that would be many minutes, which run.sh does not wait ---- */

static void test_long(void **state) {
    (void)state;
    static const char *const UNITS[] = {"a",  "theanswer", " ",    "0",        "\xe4\xbd\xa0",
                                        "\n", "!",         "\xff", "e\xcc\x81"};
    static const char *const PATHS[] = {GOLDENS "tiny-llama/tokenizer.json", GOLDENS "tokenizer-llama3.json",
                                        GOLDENS "tokenizer-qwen2.json"};
    size_t n = 1 << 18;
    char *text = malloc(n + 16);
    for (int t = 0; t < 3; t++) {
        Tokenizer *tok = open_json(PATHS[t]);
        for (size_t u = 0; u < sizeof UNITS / sizeof *UNITS; u++) {
            size_t length = strlen(UNITS[u]), at = 0;
            while (at + length <= n) memcpy(text + at, UNITS[u], length), at += length;
            text[at] = 'x';
            if (t < 2)
                assert_back(tok, text, at + 1, true);
            else
                free(encode(tok, text, at + 1, true).ids);
        }
        tokenizer_close(tok);
    }
    free(text);
}

/* ---- broken files ---- */

/* A new file, in memory where there is such a place. */
static char *file_new(void) {
    char *path = mem_text(access("/dev/shm", W_OK) == 0 ? "/dev/shm/whet-test-XXXXXX" : "/tmp/whet-test-XXXXXX");
    close(mkstemp(path));
    return path;
}

/* One change to a good tokenizer.json and what the message has to say. */
static const struct {
    const char *from, *to, *says;
} CHANGES[] = {
    {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", "\"Unigram\" is not supported"},
    {"\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback"},
    {"\"continuing_subword_prefix\": null", "\"continuing_subword_prefix\": \"##\"", "continuing_subword_prefix"},
    {"\"dropout\": null", "\"dropout\": 0.1", "dropout"},
    {"\"normalizer\": null", "\"normalizer\": {\"type\": \"Lowercase\"}", "\"Lowercase\" is not supported"},
    {"\"type\": \"Digits\"", "\"type\": \"Whitespace\"", "\"Whitespace\" is not supported"},
    {"\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space"},
    {"\"post_processor\": null", "\"post_processor\": {\"type\": \"BertProcessing\"}",
     "\"BertProcessing\" is not supported"},
    {"\"decoder\": {\n    \"type\": \"ByteLevel\"", "\"decoder\": {\n    \"type\": \"Metaspace\"",
     "\"Metaspace\" is not supported"},
    {"\"merges\":", "\"murges\":", "merges are missing"},
    {"\"vocab\":", "\"vocal\":", "vocabulary is missing"},
    {"\"id\": 2,", "\"id\": 99999999999,", "an id that is no number from 0"},
    {"\"id\": 2,", "\"id\": -2,", "an id that is no number from 0"},
    {"\"<|im_end|>\": 2", "\"<|im_end|>\": 3", "the token id 3 is there twice"},
    {"\"<|im_end|>\": 2", "\"<|im_start|>\": 2", "not valid JSON"},
    {"\"content\": \"<|im_end|>\"", "\"content\": \"<|im_start|>\"", "is there twice"},
    {"\"merges\": [\n", "\"merges\": [\n [\"zzzz\", \"yyyy\"],", "names a token that is not in the vocabulary"},
    {"\"merges\": [\n", "\"merges\": [\n [\"a\"],", "is no pair of texts"},
    {"\"model\": {", "\"modal\": {", "has no model"},
};

static void test_changes(void **state) {
    (void)state;
    size_t n;
    char *good = read_text(GOLDENS "tiny-llama/tokenizer.json", &n), *path = file_new();
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        char *place = strstr(good, CHANGES[i].from);
        if (!place) fail_msg("the golden has no %s", CHANGES[i].from);
        Buf bad = {0};
        buf_add(&bad, good, (size_t)(place - good));
        buf_text(&bad, CHANGES[i].to);
        buf_text(&bad, place + strlen(CHANGES[i].from));
        write_text(path, bad.p, bad.n);
        Err err = {0};
        Tokenizer *tok = tokenizer_open_json(path, &err);
        if (tok || !strstr(err.msg, CHANGES[i].says) || !strstr(err.msg, path) || strchr(err.msg, '\n'))
            fail_msg("%s: expected \"%s\", got \"%s\"", CHANGES[i].to, CHANGES[i].says, err.msg);
        buf_free(&bad);
    }
    Err err = {0};
    write_text(path, "", 0);
    assert_null(tokenizer_open_json(path, &err));
    assert_non_null(strstr(err.msg, "empty"));
    unlink(path);
    assert_null(tokenizer_open_json(path, &err));
    assert_non_null(strstr(err.msg, path));
    free(good), free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),        cmocka_unit_test(test_variants), cmocka_unit_test(test_scores),
        cmocka_unit_test(test_gguf_and_saved), cmocka_unit_test(test_special),  cmocka_unit_test(test_frame),
        cmocka_unit_test(test_any_bytes),      cmocka_unit_test(test_long),     cmocka_unit_test(test_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
