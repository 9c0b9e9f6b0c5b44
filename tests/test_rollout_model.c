/* test_rollout_model.c: the real model, SmolLM2-135M-Instruct as a GGUF: opened and read (how fast is
 * printed), tensors and ids equal to the references, and with WHET_EXPORT=FOLDER saved there as a Hugging Face folder for
 * long_export.sh (and nothing else done).
 *
 * The model is WHET_MODEL or the one .gguf file in build/model/; where there is none, the tests are skipped
 * loudly. Goldens: tests/goldens/make_smollm2_goldens.py. */
#include "rollout/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

static char *model_path(void) {
    const char *env = getenv("WHET_MODEL");
    if (env && env[0]) return mem_text(env);
    glob_t found;
    char *path = NULL;
    if (glob("build/model/*.gguf", 0, NULL, &found) == 0 && found.gl_pathc == 1)
        path = mem_text(found.gl_pathv[0]);
    globfree(&found);
    if (!path) print_message("SKIPPED: no model: set WHET_MODEL, or put one .gguf file into build/model/\n");
    return path;
}

static ModelFile *model_open(char *path) {
    Err err = {0};
    ModelFile *file = model_file_open(path, &err);
    if (!file) fail_msg("%s", err.msg);
    free(path);
    return file;
}

static Tokenizer *tokenizer_of(const ModelFile *file) {
    Err err = {0};
    Tokenizer *tok = tokenizer_open(file, &err);
    if (!tok) fail_msg("%s", err.msg);
    return tok;
}

static float *tensor_of(const ModelFile *file, const TensorSpec *spec) {
    Err err = {0};
    float *values = MEM_ARRAY(float, (size_t)spec->rows *(size_t)spec->cols);
    if (!model_file_read(file, spec->name, spec->rows, spec->cols, values, &err)) fail_msg("%s", err.msg);
    return values;
}

static void test_speed(void **state) {
    (void)state;
    char *path = model_path();
    if (!path) skip();
    double best = 1e9;
    for (int round = 0; round < 3; round++) { /* the first may have to fetch the file from disk */
        double start = clock_seconds();
        ModelFile *file = model_open(mem_text(path));
        Tokenizer *tok = tokenizer_of(file);
        TensorSpec *specs;
        int n = conf_tensors(model_file_conf(file), &specs);
        for (int i = 0; i < n; i++) free(tensor_of(file, &specs[i]));
        double seconds = clock_seconds() - start;
        if (seconds < best) best = seconds;
        free(specs);
        tokenizer_close(tok);
        model_file_close(file);
    }
    print_message("opened and read, tokenizer included, in %.2f s\n", best);
    free(path);
}

static void check_sums(const ModelFile *file, const json_t *sums) {
    TensorSpec *specs;
    int n = conf_tensors(model_file_conf(file), &specs), seen = 0;
    for (int i = 0; i < n; i++) {
        const json_t *sum = json_object_get(sums, specs[i].name);
        if (!sum) continue;
        float *values = tensor_of(file, &specs[i]);
        uint32_t own =
            (uint32_t)crc32_z(0, (const Bytef *)values, (size_t)specs[i].rows * (size_t)specs[i].cols * 4);
        if (own != json_integer_value(sum)) fail_msg("%s differs", specs[i].name);
        free(values);
        seen++;
    }
    assert_int_equal(seen, json_object_size(sums));
    free(specs);
}

static bool ids_equal(const Tokenizer *tok, const json_t *row) {
    const json_t *text = json_object_get(row, "text"), *wanted = json_object_get(row, "smollm2");
    const json_t *back = json_object_get(row, "smollm2_back");
    if (!back) back = text;
    int *ids = NULL, n = 0, room = 0;
    tokenizer_encode(tok, json_string_value(text), json_string_length(text), true, &ids, &n, &room);
    bool same = (size_t)n == json_array_size(wanted);
    for (int i = 0; same && i < n; i++) same = ids[i] == json_integer_value(json_array_get(wanted, (size_t)i));
    Buf out = {0};
    tokenizer_decode(tok, ids, n, false, &out);
    same = same && out.n == json_string_length(back) &&
           memcmp(out.n ? out.p : "", json_string_value(back), out.n) == 0;
    if (!same) print_error("differs: %s\n", json_string_value(text));
    buf_free(&out);
    free(ids);
    return same;
}

static void test_goldens(void **state) {
    (void)state;
    char *path = model_path();
    if (!path) skip();
    ModelFile *file = model_open(path);
    Tokenizer *tok = tokenizer_of(file);
    gzFile goldens = gzopen("tests/goldens/smollm2-goldens.jsonl.gz", "rb");
    assert_non_null(goldens);
    size_t room = 1 << 20;
    char *line = malloc(room);
    int n = 0, wrong = 0;
    while (gzgets(goldens, line, (int)room)) {
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        if (n++ == 0)
            check_sums(file, row);
        else
            wrong += !ids_equal(tok, row);
        json_decref(row);
    }
    print_message("%d lines, %d with other ids or bytes\n", n - 1, wrong);
    assert_true(n > 2000);
    assert_int_equal(wrong, 0);
    gzclose(goldens);
    free(line);
    tokenizer_close(tok);
    model_file_close(file);
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

static void export(const char *path, const char *folder, const char *name) {
    Err err = {0};
    Arena arena = {0};
    char *target = arena_format(&arena, "%s/%s", folder, name);
    assert_int_equal(mkdir(target, 0777), 0);
    Source source = {.file = model_open(mem_text(path))};
    const Conf *conf = model_file_conf(source.file);
    Tokenizer *tok = tokenizer_of(source.file);
    int n = conf_tensors(conf, &source.specs);
    TensorEntry *entries = MEM_ARRAY(TensorEntry, n);
    for (int i = 0; i < n; i++) {
        const TensorSpec *spec = &source.specs[i];
        entries[i] = (TensorEntry){spec->name, spec->rows, spec->cols, spec->is_vector};
    }
    if (!model_save(target, conf, tok, model_file_chat_template(source.file), NULL, entries, n, false, give_tensor,
                    &source, &err))
        fail_msg("%s", err.msg);
    free(entries), free(source.specs);
    tokenizer_close(tok);
    model_file_close(source.file);
    arena_free(&arena);
}

static void test_export(void **state) {
    (void)state;
    static const char *const TINY[] = {"tiny.gguf", "tiny-llama", "tiny-untied", "tiny-biased"};
    const char *folder = getenv("WHET_EXPORT");
    for (int i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/goldens/%s", TINY[i]);
        export(path, folder, TINY[i]);
    }
    char *path = model_path();
    if (path) export(path, folder, "smollm2");
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_speed), cmocka_unit_test(test_goldens)};
    const struct CMUnitTest exports[] = {cmocka_unit_test(test_export)};
    if (getenv("WHET_EXPORT")) return cmocka_run_group_tests(exports, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
