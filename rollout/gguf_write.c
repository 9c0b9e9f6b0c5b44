/* gguf_write.c: writes a model as one GGUF file (version 3) that llama.cpp loads.
 *
 * Matrices get the type that is asked for, or F16 where their rows are no whole blocks; vectors stay float32, as
 * llama.cpp wants them. One tensor at a time is in memory. Tested by tests/test_rollout_export.c and
 * tests/long_export.sh.
 */
#include "rollout/internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KIND_U32 = 4, KIND_I32 = 5, KIND_F32 = 6, KIND_BOOL = 7, KIND_TEXT = 8, KIND_ARRAY = 9, ALIGN = 32 };

/* ---- keys ---- */

static void put_u32(Buf *buf, uint32_t value) { buf_add(buf, &value, 4); }
static void put_u64(Buf *buf, uint64_t value) { buf_add(buf, &value, 8); }

static void put_text(Buf *buf, const char *text, size_t n) {
    put_u64(buf, n);
    buf_add(buf, text, n);
}

static void key_begin(GgufKeys *keys, const char *key, uint32_t kind) {
    put_text(&keys->pairs, key, strlen(key));
    put_u32(&keys->pairs, kind);
    keys->n_pairs++;
}

static void array_begin(GgufKeys *keys, const char *key, uint32_t kind, uint64_t n) {
    key_begin(keys, key, KIND_ARRAY);
    put_u32(&keys->pairs, kind);
    put_u64(&keys->pairs, n);
}

void gguf_put_int(GgufKeys *keys, const char *key, uint32_t value) {
    key_begin(keys, key, KIND_U32);
    put_u32(&keys->pairs, value);
}

void gguf_put_float(GgufKeys *keys, const char *key, float value) {
    key_begin(keys, key, KIND_F32);
    buf_add(&keys->pairs, &value, 4);
}

void gguf_put_bool(GgufKeys *keys, const char *key, bool value) {
    key_begin(keys, key, KIND_BOOL);
    buf_char(&keys->pairs, value ? 1 : 0);
}

void gguf_put_text(GgufKeys *keys, const char *key, const char *text, size_t n) {
    key_begin(keys, key, KIND_TEXT);
    put_text(&keys->pairs, text, n);
}

void gguf_put_texts(GgufKeys *keys, const char *key, uint64_t n) { array_begin(keys, key, KIND_TEXT, n); }
void gguf_put_item(GgufKeys *keys, const char *text, size_t n) { put_text(&keys->pairs, text, n); }

void gguf_put_ints(GgufKeys *keys, const char *key, const int32_t *values, uint64_t n) {
    array_begin(keys, key, KIND_I32, n);
    buf_add(&keys->pairs, values, (size_t)n * 4);
}

void gguf_put_floats(GgufKeys *keys, const char *key, const float *values, uint64_t n) {
    array_begin(keys, key, KIND_F32, n);
    buf_add(&keys->pairs, values, (size_t)n * 4);
}

/* ---- tensors ---- */

/* ggml's number of a type and llama.cpp's number of a file of it. */
static const struct {
    const char *name;
    StoredType type;
    uint32_t ggml, file;
} TYPES[] = {
    {"f32", STORED_F32, 0, 0},   {"f16", STORED_F16, 1, 1},   {"bf16", STORED_BF16, 30, 32},
    {"q8_0", STORED_Q8_0, 8, 7}, {"q4_0", STORED_Q4_0, 2, 2},
};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES, F32 = 0, F16 = 1 };

typedef struct {
    const ModelFile *file;
    TensorSpec *specs;
    int n, *types; /* rows of TYPES */
    GgufFactors factors[2];
    int n_factors;
} Plan;

static int type_of(const TensorSpec *spec, int wanted) {
    uint64_t bytes;
    if (spec->is_vector) return F32;
    return stored_bytes(TYPES[wanted].type, (uint64_t)spec->rows, (uint64_t)spec->cols, &bytes) ? wanted : F16;
}

static uint64_t padded(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static void put_tensor(Buf *table, const char *name, int rows, int cols, bool is_vector, int type, uint64_t *at) {
    uint64_t bytes;
    CHECK(stored_bytes(TYPES[type].type, (uint64_t)rows, (uint64_t)cols, &bytes), "%s", name);
    put_text(table, name, strlen(name));
    put_u32(table, is_vector ? 1 : 2);
    put_u64(table, (uint64_t)cols);
    if (!is_vector) put_u64(table, (uint64_t)rows);
    put_u32(table, TYPES[type].ggml);
    put_u64(table, *at);
    *at += padded(bytes);
}

static bool header_write(const Plan *plan, const GgufKeys *keys, Sink *sink) {
    Buf head = {0};
    uint64_t at = 0;
    buf_text(&head, "GGUF");
    put_u32(&head, 3);
    put_u64(&head, (uint64_t)(plan->n + plan->n_factors));
    put_u64(&head, (uint64_t)keys->n_pairs);
    buf_add(&head, keys->pairs.p, keys->pairs.n);
    for (int i = 0; i < plan->n_factors; i++)
        put_tensor(&head, plan->factors[i].name, 1, plan->factors[i].n, true, F32, &at);
    for (int i = 0; i < plan->n; i++) {
        const TensorSpec *spec = &plan->specs[i];
        put_tensor(&head, spec->gguf, spec->rows, spec->cols, spec->is_vector, plan->types[i], &at);
    }
    while (head.n % ALIGN) buf_char(&head, 0);
    bool ok = sink_add(sink, head.p, head.n);
    buf_free(&head);
    return ok;
}

/* The rows as GGUF orders them. */
static void rows_turn(const TensorSpec *spec, float *values, float *spare) {
    if (spec->turned_heads == 0) return;
    size_t size = (size_t)spec->rows * (size_t)spec->cols;
    int rows = spec->is_vector ? spec->cols : spec->rows;
    size_t width = size / (size_t)rows;
    memcpy(spare, values, size * sizeof *values);
    for (int r = 0; r < rows; r++)
        memcpy(values + (size_t)row_turned(r, spec->turned_heads, rows) * width, spare + (size_t)r * width,
               width * sizeof *values);
}

static bool values_write(Sink *sink, const char *name, int type, const float *values, size_t n, uint8_t *out) {
    static const char ZEROS[ALIGN];
    uint64_t bytes;
    stored_bytes(TYPES[type].type, 1, n, &bytes);
    if (!stored_encode(TYPES[type].type, values, n, out))
        return err_set(sink->err, "%s: the tensor %s holds a value that is too large for %s: take f32", sink->path,
                       name, TYPES[type].name);
    return sink_add(sink, out, (size_t)bytes) && sink_add(sink, ZEROS, (size_t)(padded(bytes) - bytes));
}

static bool tensors_write(const Plan *plan, Sink *sink) {
    size_t most = (size_t)model_file_conf(plan->file)->head_dim;
    for (int i = 0; i < plan->n; i++) {
        size_t size = (size_t)plan->specs[i].rows * (size_t)plan->specs[i].cols;
        if (size > most) most = size;
    }
    float *values = MEM_ARRAY(float, most), *spare = MEM_ARRAY(float, most);
    bool ok = true;
    for (int i = 0; ok && i < plan->n_factors; i++)
        ok = values_write(sink, plan->factors[i].name, F32, plan->factors[i].values, (size_t)plan->factors[i].n,
                          (uint8_t *)spare);
    for (int i = 0; ok && i < plan->n; i++) {
        const TensorSpec *spec = &plan->specs[i];
        ok = spec->from_one ? model_file_read_gain(plan->file, spec->name, spec->cols, values, sink->err)
                            : model_file_read(plan->file, spec->name, spec->rows, spec->cols, values, sink->err);
        if (ok) rows_turn(spec, values, spare);
        ok = ok && values_write(sink, spec->gguf, plan->types[i], values, (size_t)spec->rows * (size_t)spec->cols,
                                (uint8_t *)spare);
    }
    free(values);
    free(spare);
    return ok;
}

/* ---- the whole ---- */

static void general_put(const ModelFile *file, int type, GgufKeys *keys) {
    const char *path = model_file_path(file), *name = strrchr(path, '/');
    name = name && name[1] ? name + 1 : path;
    gguf_put_text(keys, "general.type", "model", 5);
    View named = {name, strlen(name)};
    if (model_file_gguf(file)) gguf_text(model_file_gguf(file), "general.name", &named);
    gguf_put_text(keys, "general.name", named.p, named.n);
    gguf_put_int(keys, "general.file_type", TYPES[type].file);
    gguf_put_int(keys, "general.quantization_version", 2);
    const char *chat = model_file_chat_template(file), *prompt = model_file_prompt_template(file);
    if (chat) gguf_put_text(keys, "tokenizer.chat_template", chat, strlen(chat));
    if (prompt) gguf_put_text(keys, "whet.prompt_template", prompt, strlen(prompt));
}

bool model_export_gguf(const ModelFile *file, const Tokenizer *tok, const char *dtype, const char *path,
                       Err *err) {
    int wanted = 0;
    while (wanted < N_TYPES && strcmp(TYPES[wanted].name, dtype) != 0) wanted++;
    if (wanted == N_TYPES)
        return err_set(err, "the dtype \"%.40s\" can't be written to a GGUF (f32, f16, bf16, q8_0 and q4_0 can)",
                       dtype);
    const Conf *conf = model_file_conf(file);
    Plan plan = {.file = file};
    GgufKeys keys = {0};
    Sink sink;
    bool ok =
        conf_to_gguf(conf, &keys, plan.factors, &plan.n_factors, err) && tokenizer_to_gguf(tok, conf, &keys, err);
    if (ok) general_put(file, wanted, &keys);
    plan.n = conf_tensors(conf, &plan.specs);
    plan.types = MEM_ARRAY(int, plan.n);
    for (int i = 0; i < plan.n; i++) plan.types[i] = type_of(&plan.specs[i], wanted);
    ok = ok && sink_open(&sink, path, err) &&
         sink_close(&sink, header_write(&plan, &keys, &sink) && tensors_write(&plan, &sink));
    for (int i = 0; i < plan.n_factors; i++) free(plan.factors[i].values);
    free(plan.specs), free(plan.types);
    buf_free(&keys.pairs);
    return ok;
}
