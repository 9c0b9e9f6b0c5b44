/* test_rollout_files.c: model files read to the bit (GGUF in every number format, Hugging Face folders in the
 * spelling of transformers 4 and 5), written and read back, and broken ones refused with one clear line each.
 *
 * Goldens: tests/goldens/make_tiny_models.py and make_file_goldens.py.
 */
#include "rollout/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define GOLDENS "tests/goldens/"

static ModelFile *open_good(const char *path) {
    Err err = {0};
    ModelFile *file = model_file_open(path, &err);
    if (!file) fail_msg("%s", err.msg);
    return file;
}

static float *read_good(const ModelFile *file, const char *name, int *rows, int *cols) {
    Err err = {0};
    if (!model_file_has(file, name, rows, cols)) fail_msg("%s is missing", name);
    float *values = MEM_ARRAY(float, (size_t)*rows *(size_t)*cols);
    if (!model_file_read(file, name, *rows, *cols, values, &err)) fail_msg("%s", err.msg);
    return values;
}

/* ---- reading ---- */

static void test_tensors(void **state) {
    (void)state;
    static const char *const MODELS[] = {
        "tiny.gguf", "tiny-split-00001-of-00003.gguf", "tiny-llama", "tiny-untied", "tiny-biased", "tiny-fp8"};
    json_t *goldens = json_load_file(GOLDENS "files-goldens.json", 0, NULL);
    assert_non_null(goldens);
    for (int m = 0; m < 6; m++) {
        char path[64];
        snprintf(path, sizeof path, GOLDENS "%s", MODELS[m]);
        ModelFile *file = open_good(path);
        TensorSpec *specs;
        const json_t *tensors = json_object_get(goldens, MODELS[m]), *golden;
        int n = conf_tensors(model_file_conf(file), &specs), rows, cols;
        assert_int_equal(n, json_object_size(tensors));
        for (int i = 0; i < n; i++) {
            golden = json_object_get(tensors, specs[i].name);
            float *values = read_good(file, specs[i].name, &rows, &cols);
            assert_int_equal(rows, json_integer_value(json_array_get(golden, 0)));
            assert_int_equal(cols, json_integer_value(json_array_get(golden, 1)));
            uint32_t sum = (uint32_t)crc32(0, (const Bytef *)values, (uInt)((size_t)rows * (size_t)cols * 4));
            if (sum != json_integer_value(json_array_get(golden, 2)))
                fail_msg("%s: %s differs", path, specs[i].name);
            free(values);
        }
        assert_false(model_file_has(file, "model.layers.2.input_layernorm.weight", &rows, &cols));
        free(specs);
        model_file_close(file);
    }
    json_decref(goldens);
}

static void same_speeds(const Conf *a, const Conf *b) {
    float x[128], y[128];
    assert_true(a->n_ropes == b->n_ropes && a->ropes[0].turned == b->ropes[0].turned);
    for (int r = 0; r < a->n_ropes; r++) {
        assert_true(rope_speeds(a, &a->ropes[r], 100, x) == rope_speeds(b, &b->ropes[r], 100, y));
        assert_memory_equal(x, y, (size_t)a->ropes[r].turned / 2 * sizeof *x);
    }
}

static void test_confs(void **state) {
    (void)state;
    ModelFile *gguf = open_good(GOLDENS "tiny.gguf"), *tied = open_good(GOLDENS "tiny-llama"),
              *untied = open_good(GOLDENS "tiny-untied"), *biased = open_good(GOLDENS "tiny-biased");
    const Conf *g = model_file_conf(gguf), *t = model_file_conf(tied), *u = model_file_conf(untied),
               *b = model_file_conf(biased);
    assert_string_equal(t->architecture, "LlamaForCausalLM");
    assert_true(t->dim == 64 && t->hidden == 96 && t->n_layers == 2 && t->n_heads == 4 && t->n_kv_heads == 2);
    assert_true(t->head_dim == 16 && t->vocab == 384 && t->max_positions == 512 && t->tied &&
                t->norm_eps == 1e-5f);
    assert_true(t->bos == 1 && t->n_eos == 1 && t->eos[0] == 2 && t->pad == 2 && t->ropes[0].theta == 10000);
    assert_true(g->dim == t->dim && g->hidden == t->hidden && g->head_dim == t->head_dim && g->vocab == t->vocab &&
                g->tied);
    assert_true(g->bos == 1 && g->eos[0] == 2 && g->pad == 2 && g->norm_eps == t->norm_eps);
    same_speeds(g, t);
    assert_true(!u->tied && u->n_eos == 2 && u->eos[1] == 0 && u->ropes[0].theta == 100000 &&
                u->norm_eps == 1e-6f);
    assert_true(b->layers[1].qkv_bias && b->layers[1].out_bias && b->layers[1].mlp_bias && b->head_dim == 16 &&
                b->dim == 32);
    assert_true(!t->layers[0].qkv_bias && t->layers[0].rope == 0 && t->layers[0].window == 0);
    assert_true(b->ropes[0].kind == ROPE_LLAMA3);
    assert_non_null(strstr(model_file_chat_template(tied), "<|im_start|>assistant"));
    assert_null(model_file_prompt_template(tied));
    Conf copy = conf_copy(b);
    same_speeds(&copy, b);
    conf_free(&copy);
    model_file_close(gguf), model_file_close(tied), model_file_close(untied), model_file_close(biased);
}

/* Rotary speeds have the bits of transformers', but for the last one of its vectorised pow, here and there. */
static void test_speeds(void **state) {
    (void)state;
    json_t *goldens = json_load_file(GOLDENS "files-goldens.json", 0, NULL), *row;
    json_t *base = json_load_file(GOLDENS "tiny-llama/config.json", 0, NULL);
    size_t i, all = 0, off = 0;
    json_array_foreach(json_object_get(goldens, "speeds"), i, row) {
        json_object_set(base, "head_dim", json_object_get(row, "head_dim"));
        json_object_set(base, "rope_parameters", json_object_get(row, "rope"));
        Conf conf;
        Err err = {0};
        if (!conf_from_json(&conf, base, NULL, "golden", &err)) fail_msg("%s", err.msg);
        float speeds[128];
        rope_speeds(&conf, &conf.ropes[0], 100, speeds);
        for (int k = 0; k < conf.head_dim / 2; k++) {
            int32_t bits;
            memcpy(&bits, &speeds[k], 4);
            long gap = labs((long)bits -
                            (long)json_integer_value(json_array_get(json_object_get(row, "bits"), (size_t)k)));
            if (gap > 2) fail_msg("speed %d of row %zu is %ld steps off", k, i, gap);
            all++;
            off += gap != 0;
        }
        conf_free(&conf);
    }
    print_message("%zu of %zu rotary speeds differ from transformers' in the last bits\n", off, all);
    assert_true(all > 2000 && off * 20 < all);
    json_decref(base);
    json_decref(goldens);
}

/* ---- writing ---- */

/* In memory where there is such a place: syncing to a busy disk takes seconds and shows nothing here. */
static char *folder_new(void) {
    char *folder = mem_text(access("/dev/shm", W_OK) == 0 ? "/dev/shm/whet-test-XXXXXX" : "/tmp/whet-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void folder_remove(char *folder) {
    Buf command = {0};
    buf_format(&command, "rm -r '%s'", folder);
    assert_int_equal(system(command.p), 0);
    buf_free(&command);
    free(folder);
}

static const float VALUES[] = {1.0f, -0.0f, 1.00390625f, 1.01171875f, 3.0e38f, 1.0e-40f, -2.5f, 0.333333343f};

static bool give_values(void *self, int index, float *out, Err *err) {
    if (index == *(int *)self) return err_set(err, "asked to stop");
    memcpy(out, VALUES, (index ? 2 : 8) * sizeof(float));
    return true;
}

static void test_safetensors(void **state) {
    (void)state;
    static const TensorEntry ENTRIES[] = {{"a.matrix", 2, 4, false}, {"b.vector", 1, 2, true}};
    static const char *const METADATA[] = {"step", "17", "note", "a \"quoted\" word", NULL};
    char *folder = folder_new();
    Arena arena = {0};
    char *path = arena_format(&arena, "%s/x.safetensors", folder);
    float out[8];
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Err err = {0};
        int never = -1;
        if (!safetensors_write(path, ENTRIES, 2, bf16, give_values, &never, METADATA, &err))
            fail_msg("%s", err.msg);
        Safetensors *file = safetensors_open(path, &err);
        if (!file) fail_msg("%s", err.msg);
        assert_string_equal(safetensors_metadata(file, "step"), "17");
        assert_string_equal(safetensors_metadata(file, "note"), "a \"quoted\" word");
        assert_null(safetensors_metadata(file, "nothing"));
        assert_true(safetensors_read(file, "a.matrix", 2, 4, out, &err));
        if (!bf16)
            assert_memory_equal(out, VALUES, sizeof VALUES);
        else { /* ties go to even: 1 + 1/256 down, 1 + 3/256 up */
            assert_true(out[0] == 1 && out[2] == 1.0f && out[3] == 1.015625f && out[6] == -2.5f &&
                        out[7] == 0.333984375f);
            assert_true(signbit(out[1]) && out[1] == 0);
        }
        assert_false(safetensors_read(file, "a.matrix", 4, 2, out, &err));
        assert_non_null(strstr(err.msg, "is 2 x 4"));
        assert_false(safetensors_read(file, "c", 1, 1, out, &err));
        assert_non_null(strstr(err.msg, "missing"));
        safetensors_close(file);
    }
    Err err = {0};
    int second = 1;
    assert_false(safetensors_write(path, ENTRIES, 2, false, give_values, &second, NULL, &err));
    assert_string_equal(err.msg, "asked to stop");
    assert_false(safetensors_write("/nowhere/x", ENTRIES, 2, false, give_values, &second, NULL, &err));
    assert_non_null(strstr(err.msg, "/nowhere/x"));
    if (access("/dev/full", W_OK) == 0) {
        assert_false(safetensors_write("/dev/full", ENTRIES, 2, false, give_values, &(int){-1}, NULL, &err));
        assert_non_null(strstr(err.msg, "No space left"));
    }
    arena_free(&arena);
    folder_remove(folder);
}

typedef struct {
    ModelFile *file;
    TensorSpec *specs;
} Source;

static bool give_tensor(void *self, int index, float *out, Err *err) {
    Source *source = self;
    const TensorSpec *spec = &source->specs[index];
    return model_file_read(source->file, spec->name, spec->rows, spec->cols, out, err);
}

/* Saves a model whole and opens it again: the same numbers (bf16 where they were bf16), settings and templates. */
static void save_and_compare(const char *path, bool bf16) {
    Err err = {0};
    Source from = {.file = open_good(path)};
    const Conf *conf = model_file_conf(from.file);
    Tokenizer *tok = tokenizer_open(from.file, &err);
    int n = conf_tensors(conf, &from.specs), rows, cols;
    TensorEntry *entries = MEM_ARRAY(TensorEntry, n);
    for (int i = 0; i < n; i++)
        entries[i] =
            (TensorEntry){from.specs[i].name, from.specs[i].rows, from.specs[i].cols, from.specs[i].is_vector};
    char *folder = folder_new();
    if (!model_save(folder, conf, tok, model_file_chat_template(from.file), "Q: {problem}\nA:", entries, n, bf16,
                    give_tensor, &from, &err))
        fail_msg("%s", err.msg);
    ModelFile *again = open_good(folder);
    const Conf *c = model_file_conf(again);
    assert_string_equal(c->architecture, conf->architecture);
    assert_true(c->dim == conf->dim && c->hidden == conf->hidden && c->n_layers == conf->n_layers &&
                c->vocab == conf->vocab && c->n_heads == conf->n_heads && c->n_kv_heads == conf->n_kv_heads &&
                c->head_dim == conf->head_dim && c->tied == conf->tied && c->norm_eps == conf->norm_eps &&
                c->bos == conf->bos && c->pad == conf->pad && c->n_eos == conf->n_eos &&
                c->max_positions == conf->max_positions && c->layers[0].mlp_bias == conf->layers[0].mlp_bias);
    assert_memory_equal(c->eos, conf->eos, (size_t)c->n_eos * sizeof(int));
    same_speeds(c, conf);
    assert_string_equal(model_file_chat_template(again), model_file_chat_template(from.file));
    assert_string_equal(model_file_prompt_template(again), "Q: {problem}\nA:");
    for (int i = 0; i < n; i++) {
        float *a = read_good(from.file, from.specs[i].name, &rows, &cols);
        float *b = read_good(again, from.specs[i].name, &rows, &cols);
        assert_memory_equal(a, b, (size_t)rows * (size_t)cols * sizeof(float));
        free(a), free(b);
    }
    Tokenizer *tok2 = tokenizer_open(again, &err);
    assert_non_null(tok2);
    assert_int_equal(tokenizer_vocab(tok2), tokenizer_vocab(tok));
    tokenizer_close(tok), tokenizer_close(tok2);
    model_file_close(from.file), model_file_close(again);
    free(from.specs), free(entries);
    folder_remove(folder);
}

static void test_save(void **state) {
    (void)state;
    save_and_compare(GOLDENS "tiny.gguf", false);
    save_and_compare(GOLDENS "tiny-llama", false);
    save_and_compare(GOLDENS "tiny-untied", true);
    save_and_compare(GOLDENS "tiny-biased", false);
}

/* ---- broken files ---- */

typedef struct {
    char *p;
    size_t n;
} Bytes;

static Bytes read_bytes(const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    Buf buf = {0};
    char part[4096];
    for (size_t k; (k = fread(part, 1, sizeof part, file)) > 0;) buf_add(&buf, part, k);
    fclose(file);
    return (Bytes){buf.p, buf.n};
}

static void write_bytes(const char *path, const void *p, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(p, 1, n, file), n);
    fclose(file);
}

/* Opening, reading and the tokenizer together fail with one line that says `says` and names the file. With `says`
 * NULL they may also work, and true is returned. */
static bool refused(const char *path, const char *says) {
    Err err = {0};
    ModelFile *file = model_file_open(path, &err);
    bool ok = file != NULL;
    if (ok) {
        Tokenizer *tok = tokenizer_open(file, &err);
        ok = tok != NULL;
        tokenizer_close(tok);
        TensorSpec *specs;
        int n = conf_tensors(model_file_conf(file), &specs);
        for (int i = 0; ok && i < n; i++) {
            float *out = MEM_ARRAY(float, (size_t)specs[i].rows *(size_t)specs[i].cols);
            ok = model_file_read(file, specs[i].name, specs[i].rows, specs[i].cols, out, &err);
            free(out);
        }
        free(specs);
        model_file_close(file);
    }
    if (ok && !says) return true;
    if (ok) fail_msg("%s opens, expected \"%s\"", path, says);
    if (!err.msg[0] || strchr(err.msg, '\n') || (says && (!strstr(err.msg, says) || !strstr(err.msg, "/"))))
        fail_msg("expected \"%s\", got \"%s\"", says ? says : "one line", err.msg);
    return false;
}

/* Where `what` lies in the bytes, for the n-th time (from 0). */
static char *place_of(Bytes bytes, const char *what, size_t length, int nth) {
    char *at = bytes.p;
    for (;; at++) {
        at = memmem(at, bytes.n - (size_t)(at - bytes.p), what, length);
        if (!at) fail_msg("%s is not in the file", what);
        if (nth-- == 0) return at;
    }
}

static void with_patch(const char *path, Bytes good, char *at, const void *patch, size_t n, const char *says) {
    char *bad = mem_text_n(good.p, good.n);
    memcpy(bad + (at - good.p), patch, n);
    write_bytes(path, bad, good.n);
    refused(path, says);
    free(bad);
}

#define AFTER(key, skip) (place_of(g, key, strlen(key), 0) + strlen(key) + (skip))
#define U32(x) (&(uint32_t){x}), 4
#define U64(x) (&(uint64_t){x}), 8

static void test_bad_gguf(void **state) {
    (void)state;
    Bytes g = read_bytes(GOLDENS "tiny.gguf");
    char *folder = folder_new();
    Arena arena = {0};
    char *path = arena_format(&arena, "%s/bad.gguf", folder);
    refused(path, "no such model file");
    write_bytes(path, "", 0);
    refused(path, "empty");
    write_bytes(path, "GGU", 3);
    refused(path, "not a GGUF file");
    write_bytes(path, "GGUF\3\0\0", 7);
    refused(path, "cut off");
    with_patch(path, g, g.p, "GGML", 4, "not a GGUF file");
    with_patch(path, g, g.p + 4, U32(9), "version 9");
    with_patch(path, g, g.p + 8, U64(1ull << 60), "tensors, more than the file can hold");
    with_patch(path, g, g.p + 16, U64(1ull << 60), "keys, more than the file can hold");
    with_patch(path, g, g.p + 16, U64(3), "");
    with_patch(path, g, AFTER("general.architecture", 12), "mamba", 5, "\"mamba\" is not supported");
    with_patch(path, g, AFTER("general.architecture", 4), U64(1ull << 63), "broken or cut off");
    with_patch(path, g, AFTER("llama.block_count", 4), U32(3), "blk.2.attn_norm.weight is missing");
    with_patch(path, g, AFTER("llama.block_count", 4), U32(4000000000u), "block_count");
    with_patch(path, g, AFTER("llama.block_count", 4), U32(1000000000u), "number of layers");
    with_patch(path, g, AFTER("llama.embedding_length", 4), U32(128), "rotary positions on 16 of 32");
    with_patch(path, g, AFTER("llama.attention.head_count", 4), U32(0), "number of heads");
    with_patch(path, g, AFTER("llama.attention.head_count", 4), U32(3), "rotary positions on 16 of 21");
    with_patch(path, g, AFTER("llama.attention.head_count_kv", 4), U32(3), "no multiple");
    with_patch(path, g, AFTER("llama.rope.dimension_count", 4), U32(8), "rotary positions on 8 of 16");
    with_patch(path, g, AFTER("llama.vocab_size", 4), U32(385), "384 x 64");
    with_patch(path, g, AFTER("llama.rope.freq_base", 4), U32(0x7fc00000), "rope_theta");
    with_patch(path, g, AFTER("tokenizer.ggml.bos_token_id", 4), U32(99999), "bos_token_id");
    with_patch(path, g, AFTER("tokenizer.ggml.model", 12), "bert", 4, "\"bert\" is not supported");
    with_patch(path, g, AFTER("tokenizer.ggml.pre", 12), "smollx", 6,
               "\"smollx\" (tokenizer.ggml.pre) is not known");
    with_patch(path, g, place_of(g, "tokenizer.ggml.model", 20, 0), "tokenizer.ggml.nodel", 20,
               "tokenizer is missing");
    with_patch(path, g, place_of(g, "tokenizer.ggml.merges", 21, 0), "tokenizer.ggml.murges", 21,
               "merges are missing");
    with_patch(path, g, AFTER("tokenizer.ggml.tokens", 8), U64(1ull << 61), "broken or cut off");
    with_patch(path, g, place_of(g, "llama.context_length", 20, 0), "llama.context_xxxxxx", 20, NULL);
    with_patch(path, g, place_of(g, "blk.1.attn_q.weight", 19, 0), "blk.0.attn_q.weight", 19, "there twice");
    with_patch(path, g, place_of(g, "blk.1.attn_q.weight", 19, 0), "blk.7.attn_q.weight", 19,
               "blk.1.attn_q.weight is missing");
    char *q = AFTER("blk.1.attn_q.weight", 0); /* axes, 64, 64, type, offset */
    with_patch(path, g, q, U32(77), "broken or cut off");
    with_patch(path, g, q + 4, U64(1ull << 40), "absurd shape");
    with_patch(path, g, q + 4, U64(65), "not whole blocks");
    with_patch(path, g, q + 12, U64(32), "the settings ask for 64 x 64");
    with_patch(path, g, q + 20, U32(16), "type IQ2_XXS, which is not supported");
    with_patch(path, g, q + 20, U32(12), "not whole blocks of Q4_K");
    with_patch(path, g, q + 20, U32(250), "not supported");
    with_patch(path, g, q + 24, U64(1ull << 50), "after the end of the file");
    with_patch(path, g, q + 24, U64(0), "overlap");
    for (size_t n = 1; n < g.n; n += g.n / 97) {
        write_bytes(path, g.p, n);
        refused(path, "");
    }
    arena_free(&arena);
    folder_remove(folder);
    free(g.p);
}

/* A split model: any part but the first, a missing part, parts of something else; a folder that holds one. */
static void test_split(void **state) {
    (void)state;
    char *folder = folder_new();
    Arena arena = {0};
    assert_int_equal(system(arena_format(&arena, "cp " GOLDENS "tiny-split-* %s/", folder)), 0);
    char *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = arena_format(&arena, "%s/tiny-split-0000%d-of-00003.gguf", folder, i + 1);
    assert_true(refused(folder, NULL) && refused(part[0], NULL));
    refused(part[1], "");
    Bytes g = read_bytes(part[2]), first = read_bytes(part[0]);
    with_patch(part[2], g, AFTER("split.no", 4), "\5", 1, "");
    refused(part[0], "says that it is part 6 of 3, not 3 of 3");
    write_bytes(part[2], g.p, g.n / 2);
    refused(part[0], "cut off");
    unlink(part[2]);
    refused(part[0], "tiny-split-00003-of-00003.gguf: can't be opened");
    write_bytes(part[2], g.p, g.n);
    free(g.p);
    g = first;
    with_patch(part[0], g, AFTER("split.count", 4), "\4", 1, "is part of a model in 4 files");
    with_patch(part[0], g, AFTER("split.tensors.count", 4), "\7", 1, "should hold 7");
    char *other = arena_format(&arena, "%s/x.gguf", folder);
    write_bytes(other, g.p, g.n);
    refused(other, "give the first of them");
    free(g.p);
    arena_free(&arena);
    folder_remove(folder);
}

/* NaN in each number format: the exponent of a value or of a block's scale. */
static void test_nan(void **state) {
    (void)state;
    static const char *const TENSORS[] = {"blk.0.attn_norm.weight",   "blk.0.attn_q.weight",
                                          "blk.0.attn_k.weight",      "blk.0.attn_v.weight",
                                          "blk.0.attn_output.weight", "blk.0.ffn_gate.weight"};
    Bytes g = read_bytes(GOLDENS "tiny.gguf");
    char *folder = folder_new();
    Arena arena = {0};
    char *path = arena_format(&arena, "%s/nan.gguf", folder);
    for (int i = 0; i < 6; i++) {
        Err err = {0};
        Gguf *gguf = gguf_open(GOLDENS "tiny.gguf", &err);
        const StoredTensor *t = gguf_tensor(gguf, TENSORS[i]), *first = gguf_tensor(gguf, "token_embd.weight");
        assert_non_null(t);
        char *data = place_of(g, (const char *)first->bytes, 64, 0); /* where the data of the first tensor lies */
        char *at = data + (t->bytes - first->bytes);
        assert_memory_equal(at, t->bytes, 16);
        with_patch(path, g, at, "\xff\xff\xff\xff", 4, "NaN or infinity");
        gguf_close(gguf);
    }
    arena_free(&arena);
    folder_remove(folder);
    free(g.p);
}

/* One change to a file of a good folder. `to` NULL: the file is removed. */
static const struct {
    const char *model, *file, *from, *to, *says;
} FOLDER_CHANGES[] = {
    {"tiny-llama", "config.json", "LlamaForCausalLM", "FooForCausalLM", "\"FooForCausalLM\" is not supported"},
    {"tiny-llama", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
     "model.layers.2.input_layernorm.weight is missing"},
    {"tiny-llama", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 99999999",
     "number of layers"},
    {"tiny-llama", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": \"2\"", "is no integer"},
    {"tiny-llama", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1e400", "not valid JSON"},
    {"tiny-llama", "config.json", "\"hidden_size\": 64", "\"hidden_size\": 65", "the settings ask for"},
    {"tiny-llama", "config.json", "\"hidden_size\": 64", "\"hidden_size\": -64", "makes no sense"},
    {"tiny-llama", "config.json", "\"hidden_size\": 64,", "", "width of the model is 0"},
    {"tiny-llama", "config.json", "\"vocab_size\": 384", "\"vocab_size\": 383", "the settings ask for 383 x 64"},
    {"tiny-llama", "config.json", "\"silu\"", "\"gelu\"", "\"gelu\" is not supported"},
    {"tiny-llama", "config.json", "\"rope_type\": \"default\"", "\"rope_type\": \"spiral\"",
     "rope scaling \"spiral\" is not supported"},
    {"tiny-llama", "config.json", "\"rope_type\": \"default\"", "\"rope_type\": \"linear\"", "factor is 0"},
    {"tiny-llama", "config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
     "lm_head.weight is missing"},
    {"tiny-llama", "config.json", "\"attention_bias\": false", "\"attention_bias\": true",
     "q_proj.bias is missing"},
    {"tiny-llama", "config.json", "\"use_cache\"",
     "\"quantization_config\": {\"quant_method\": \"awq\"}, \"use_cache\"",
     "quantising (\"awq\") is not supported"},
    {"tiny-fp8", "config.json", "weight_block_size", "weight_block_sise", "quantising (\"fp8\") is not supported"},
    {"tiny-fp8", "config.json", "\"quantization_config\"", "\"quantisation_config\"", "has no weight_block_size"},
    {"tiny-fp8", "model.safetensors", "v_proj.weight_scale_inv", "v_proj.weight_scale_inx", "needs the tensor"},
    {"tiny-fp8", "config.json", "40", "30", "with 3 x 3 numbers"},
    {"tiny-llama", "config.json", "\"bos_token_id\": 1", "\"bos_token_id\": 384", "bos_token_id"},
    {"tiny-llama", "config.json", "{", "[", "not valid JSON"},
    {"tiny-llama", "config.json", "", NULL, "no config.json"},
    {"tiny-llama", "tokenizer.json", "", NULL, "tokenizer is missing"},
    {"tiny-llama", "tokenizer_config.json", "{", "", "not valid JSON"},
    {"tiny-llama", "model.safetensors", "", NULL, "has neither model.safetensors nor"},
    {"tiny-llama", "model.safetensors", "\"F32\"", "\"I32\"", "type I32, which is not supported"},
    {"tiny-llama", "model.safetensors", "[64,64]", "[32,64]", "but has 16384 bytes"},
    {"tiny-llama", "model.safetensors", "\"shape\":[64,64]", "\"shape\":[-4,64]", "entry of the tensor"},
    {"tiny-llama", "model.safetensors", "[384,64]", "[64,384]", "the settings ask for 384 x 64"},
    {"tiny-llama", "model.safetensors", "\"data_offsets\":[0,", "\"data_offsets\":[9,", "but has"},
    {"tiny-llama", "model.safetensors", "\"data_offsets\"", "\"data_offzets\"", "entry of the tensor"},
    {"tiny-llama", "model.safetensors", "layers.1.self_attn.v_proj", "layers.0.self_attn.v_proj",
     "no JSON object"},
    {"tiny-llama", "model.safetensors", "layers.1.self_attn.v_proj", "layers.9.self_attn.v_proj",
     "model.layers.1.self_attn.v_proj.weight is missing"},
    {"tiny-untied", "model-00002-of-00002.safetensors", "", NULL,
     "model-00002-of-00002.safetensors: can't be opened"},
    {"tiny-untied", "model.safetensors.index.json", "weight_map", "weight_mop", "weight_map is missing"},
    {"tiny-untied", "model.safetensors.index.json", "model-00001-of", "../model-00001-of", "no plain file name"},
    {"tiny-untied", "model.safetensors.index.json", "model-00001-of-00002", "model-00002-of-00002", "is missing"},
};

static void test_bad_folders(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof FOLDER_CHANGES / sizeof *FOLDER_CHANGES; i++) {
        char *folder = folder_new();
        Arena arena = {0};
        char *copy = arena_format(&arena, "cp " GOLDENS "%s/* %s/", FOLDER_CHANGES[i].model, folder);
        assert_int_equal(system(copy), 0);
        char *path = arena_format(&arena, "%s/%s", folder, FOLDER_CHANGES[i].file);
        Bytes good = read_bytes(path);
        if (!FOLDER_CHANGES[i].to)
            unlink(path);
        else {
            char *at = place_of(good, FOLDER_CHANGES[i].from, strlen(FOLDER_CHANGES[i].from), 0);
            Buf bad = {0};
            buf_add(&bad, good.p, (size_t)(at - good.p));
            buf_text(&bad, FOLDER_CHANGES[i].to);
            at += strlen(FOLDER_CHANGES[i].from);
            buf_add(&bad, at, good.n - (size_t)(at - good.p));
            write_bytes(path, bad.p, bad.n);
            buf_free(&bad);
        }
        refused(folder, FOLDER_CHANGES[i].says);
        free(good.p);
        arena_free(&arena);
        folder_remove(folder);
    }
}

/* Headers of safetensors that lie about the file, and files that end too early. */
static void test_bad_safetensors(void **state) {
    (void)state;
    static const struct {
        const char *header, *says;
    } HEADERS[] = {
        {"", "no JSON object"},
        {"[]", "no JSON object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]}}", "ends 4 bytes after the end"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "entry of the tensor a is broken"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", "entry of the tensor a is broken"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483647,2147483647],\"data_offsets\":[0,8]}}",
         "but has 8 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999],\"data_offsets\":[0,8]}}",
         "entry of the tensor a is broken"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],"
         "\"data_offsets\":[4,12]}}",
         "the tensors a and b overlap"},
        {"{\"a\":7}", "entry of the tensor a is broken"},
    };
    char *folder = folder_new();
    Arena arena = {0};
    char *path = arena_format(&arena, "%s/x.safetensors", folder);
    for (size_t i = 0; i < sizeof HEADERS / sizeof *HEADERS; i++) {
        Buf file = {0};
        uint64_t n = strlen(HEADERS[i].header);
        buf_add(&file, &n, 8);
        buf_text(&file, HEADERS[i].header);
        buf_add(&file, VALUES, 16);
        write_bytes(path, file.p, file.n);
        Err err = {0};
        Safetensors *opened = safetensors_open(path, &err);
        if (HEADERS[i].says ? opened || !strstr(err.msg, HEADERS[i].says) : !opened)
            fail_msg("%s: %s", HEADERS[i].header, err.msg);
        safetensors_close(opened);
        buf_free(&file);
    }
    assert_int_equal(system(arena_format(&arena, "cp " GOLDENS "tiny-llama/* %s/", folder)), 0);
    char *model = arena_format(&arena, "%s/model.safetensors", folder);
    Bytes g = read_bytes(model);
    write_bytes(model, "\377\377\377\377\0\0\0\0{}", 10);
    refused(folder, "header's length");
    for (size_t n = 0; n < g.n; n += g.n / 41 + 1) {
        write_bytes(model, g.p, n);
        refused(folder, "");
    }
    free(g.p);
    arena_free(&arena);
    folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors),         cmocka_unit_test(test_confs), cmocka_unit_test(test_speeds),
        cmocka_unit_test(test_safetensors),     cmocka_unit_test(test_save),  cmocka_unit_test(test_bad_gguf),
        cmocka_unit_test(test_split),           cmocka_unit_test(test_nan),   cmocka_unit_test(test_bad_folders),
        cmocka_unit_test(test_bad_safetensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
