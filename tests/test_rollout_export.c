/* test_rollout_export.c: models written anew and opened again: every tensor, setting, template and token id the
 * same, through Hugging Face folders (whole and in shards) and GGUF, and what can't be written refused.
 *
 * That other programs load them is tested by tests/long_export.sh. */
#include "rollout/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDENS "tests/goldens/"

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

typedef struct {
    ModelFile *file;
    Tokenizer *tok;
} Opened;

static Opened open_good(const char *path) {
    Err err = {0};
    Opened o = {.file = model_file_open(path, &err)};
    if (o.file) o.tok = tokenizer_open(o.file, &err);
    if (!o.tok) fail_msg("%s", err.msg);
    return o;
}

static void close_all(Opened *o) {
    tokenizer_close(o->tok);
    model_file_close(o->file);
}

static void export_good(const Opened *from, const char *format, const char *dtype, int64_t shard, const char *to) {
    Err err = {0};
    if (!(format[0] == 'g' ? model_export_gguf(from->file, from->tok, dtype, to, &err)
                           : model_export_hf(from->file, from->tok, dtype, shard, to, &err)))
        fail_msg("%s", err.msg);
}

/* The largest difference between the tensors of two models, as a share of the largest value of the tensor. */
static double weights_gap(const Opened *a, const Opened *b) {
    TensorSpec *specs;
    Err err = {0};
    int n = conf_tensors(model_file_conf(a->file), &specs);
    double worst = 0;
    for (int i = 0; i < n; i++) {
        int size = specs[i].rows * specs[i].cols;
        float *x = MEM_ARRAY(float, size), *y = MEM_ARRAY(float, size);
        if (!model_file_read(a->file, specs[i].name, specs[i].rows, specs[i].cols, x, &err) ||
            !model_file_read(b->file, specs[i].name, specs[i].rows, specs[i].cols, y, &err))
            fail_msg("%s", err.msg);
        double most = 0, gap = 0;
        for (int k = 0; k < size; k++) {
            double d = (double)x[k] - (double)y[k], v = (double)x[k];
            if (d * d > gap) gap = d * d;
            if (v * v > most) most = v * v;
        }
        if (most > 0 && gap / most > worst) worst = gap / most;
        free(x), free(y);
    }
    free(specs);
    return worst;
}

static void same_settings(const Opened *a, const Opened *b) {
    const Conf *x = model_file_conf(a->file), *y = model_file_conf(b->file);
    assert_string_equal(x->architecture, y->architecture);
    assert_true(x->dim == y->dim && x->hidden == y->hidden && x->n_layers == y->n_layers && x->vocab == y->vocab &&
                x->n_heads == y->n_heads && x->n_kv_heads == y->n_kv_heads && x->head_dim == y->head_dim &&
                x->tied == y->tied && x->norm_eps == y->norm_eps && x->bos == y->bos && x->pad == y->pad &&
                x->n_eos == y->n_eos && x->max_positions == y->max_positions &&
                x->layers[0].qkv_bias == y->layers[0].qkv_bias && x->layers[0].mlp_bias == y->layers[0].mlp_bias);
    assert_memory_equal(x->eos, y->eos, (size_t)x->n_eos * sizeof(int));
    for (int i = 0; i < x->n_layers; i++) assert_memory_equal(&x->layers[i], &y->layers[i], sizeof *x->layers);
    assert_true(x->n_ropes == y->n_ropes && x->attn_scalar == y->attn_scalar && x->attn_cap == y->attn_cap &&
                x->final_cap == y->final_cap);
    for (int r = 0; r < x->n_ropes; r++)
        for (int longest = 1; longest <= 2 * x->max_positions; longest += 2 * x->max_positions - 1) {
            float p[128], q[128];
            assert_true(x->ropes[r].turned == y->ropes[r].turned);
            double scale = rope_speeds(x, &x->ropes[r], longest, p),
                   other = rope_speeds(y, &y->ropes[r], longest, q);
            assert_true(scale - other < 1e-6 && other - scale < 1e-6);
            for (int i = 0; i < x->ropes[r].turned / 2; i++)
                assert_true(p[i] - q[i] <= 1e-6f * p[i] && q[i] - p[i] <= 1e-6f * p[i]);
        }
    assert_string_equal(model_file_chat_template(a->file), model_file_chat_template(b->file));
}

static void same_ids(const Opened *a, const Opened *b) {
    static const char *const TEXTS[] = {"What is 7 + 8? It is 15.",
                                        "<|im_start|>user\nHi  there<|im_end|>\n<|im_start|>assistant\n",
                                        "def f(x):\n    return x\n\n\tnaïve 世界 😀  \n12", ""};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        int *x = NULL, *y = NULL, nx = 0, ny = 0, rx = 0, ry = 0;
        tokenizer_encode(a->tok, TEXTS[i], strlen(TEXTS[i]), true, &x, &nx, &rx);
        tokenizer_encode(b->tok, TEXTS[i], strlen(TEXTS[i]), true, &y, &ny, &ry);
        assert_int_equal(nx, ny);
        if (nx) assert_memory_equal(x, y, (size_t)nx * sizeof(int));
        free(x), free(y);
    }
}

static void test_round_trips(void **state) {
    (void)state;
    static const struct {
        const char *model, *format, *dtype;
        double gap; /* squared share that the type may lose */
    } CASES[] = {
        {"tiny-llama", "hf", "f32", 0},       {"tiny-llama", "gguf", "f32", 0},
        {"tiny-untied", "hf", "bf16", 0},     {"tiny-untied", "gguf", "f32", 0},
        {"tiny-untied", "gguf", "bf16", 0},   {"tiny-biased", "gguf", "f32", 0},
        {"tiny-biased", "hf", "f32", 0},      {"tiny.gguf", "hf", "f32", 0},
        {"tiny.gguf", "gguf", "f32", 0},      {"tiny-llama", "hf", "f16", 1e-6},
        {"tiny-llama", "gguf", "f16", 1e-6},  {"tiny-llama", "gguf", "bf16", 2e-5},
        {"tiny-llama", "gguf", "q8_0", 3e-5}, {"tiny-llama", "gguf", "q4_0", 0.02},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *folder = folder_new();
        Arena arena = {0};
        Opened from = open_good(arena_format(&arena, GOLDENS "%s", CASES[i].model));
        char *to = arena_format(&arena, "%s/%s", folder, CASES[i].format[0] == 'g' ? "x.gguf" : "x");
        export_good(&from, CASES[i].format, CASES[i].dtype, CASES[i].model[5] == 'l' ? 70000 : 1 << 30, to);
        Opened again = open_good(to);
        same_settings(&from, &again);
        same_ids(&from, &again);
        double gap = weights_gap(&from, &again);
        if (gap > CASES[i].gap)
            fail_msg("%s as %s %s: off by %g", CASES[i].model, CASES[i].format, CASES[i].dtype, gap);
        char *index = arena_format(&arena, "%s/model.safetensors.index.json", to);
        assert_int_equal(access(index, F_OK) == 0, CASES[i].format[0] == 'h' && CASES[i].model[5] == 'l');
        close_all(&from), close_all(&again);
        arena_free(&arena);
        folder_remove(folder);
    }
}

/* A GGUF made of a GGUF in float32 has the same bytes. */
static void test_again(void **state) {
    (void)state;
    char *folder = folder_new();
    Arena arena = {0};
    char *once = arena_format(&arena, "%s/x.gguf", folder),
         *twice = arena_format(&arena, "%s/again/x.gguf", folder);
    assert_int_equal(mkdir(arena_format(&arena, "%s/again", folder), 0777), 0);
    Opened from = open_good(GOLDENS "tiny-biased");
    export_good(&from, "gguf", "f32", 0, once);
    Opened read = open_good(once);
    export_good(&read, "gguf", "f32", 0, twice);
    assert_int_equal(system(arena_format(&arena, "cmp %s %s", once, twice)), 0);
    close_all(&from), close_all(&read);
    arena_free(&arena);
    folder_remove(folder);
}

static void test_refusals(void **state) {
    (void)state;
    Opened from = open_good(GOLDENS "tiny-llama");
    Err err = {0};
    assert_false(model_export_hf(from.file, from.tok, "q4_0", 1, "/tmp", &err));
    assert_non_null(strstr(err.msg, "\"q4_0\" can't be written to a Hugging Face folder"));
    assert_false(model_export_gguf(from.file, from.tok, "q5_k", "/tmp/x.gguf", &err));
    assert_non_null(strstr(err.msg, "\"q5_k\" can't be written to a GGUF"));
    assert_false(model_export_gguf(from.file, from.tok, "f32", "/nowhere/x.gguf", &err));
    assert_non_null(strstr(err.msg, "/nowhere/x.gguf"));
    assert_false(model_export_hf(from.file, from.tok, "f32", 1, "/nowhere/x", &err));
    assert_non_null(strstr(err.msg, "/nowhere/x"));
    if (access("/dev/full", W_OK) == 0) {
        char *folder = folder_new();
        Arena arena = {0};
        char *full = arena_format(&arena, "%s/x.gguf", folder);
        assert_int_equal(symlink("/dev/full", full), 0);
        assert_false(model_export_gguf(from.file, from.tok, "f32", full, &err));
        assert_non_null(strstr(err.msg, "No space left"));
        assert_int_equal(access(full, F_OK), 0); /* a device stays */
        arena_free(&arena);
        folder_remove(folder);
    }
    close_all(&from);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
