/* safetensors.c: reads (mapped) and writes one .safetensors file.
 *
 * The format: eight bytes with the length of the header, the header as JSON ({name: {dtype, shape,
 * data_offsets}}), the data. Which tensors a model needs, and shards, are model_file.c's business. Tested by
 * tests/test_rollout_files.c.
 */
#include "rollout/internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MOST = 100 << 20 }; /* bytes of a header, as in the format's own reader */

struct Safetensors {
    Mapped map;
    Arena arena;
    StoredTensor *tensors; /* sorted by name */
    int n;
    json_t *header;
    char *path;
};

/* ---- reading ---- */

static StoredType type_of(const char *dtype) {
    static const struct {
        const char *dtype;
        StoredType type;
    } TYPES[] = {{"F32", STORED_F32},
                 {"F64", STORED_F64},
                 {"F16", STORED_F16},
                 {"BF16", STORED_BF16},
                 {"F8_E4M3", STORED_E4M3}};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strcmp(dtype, TYPES[i].dtype) == 0) return TYPES[i].type;
    return STORED_OTHER;
}

/* The shape of an entry into rows and columns; false when it is no list of sizes. */
static bool shape_read(StoredTensor *tensor, const json_t *shape) {
    size_t axes = json_array_size(shape), i;
    json_t *size;
    tensor->rows = tensor->cols = axes > 2 ? -1 : 1;
    tensor->is_vector = axes < 2;
    json_array_foreach(shape, i, size) {
        json_int_t value = json_integer_value(size);
        if (!json_is_integer(size) || value < 0 || value > INT_MAX) return false;
        if (axes <= 2 && i + 1 == axes)
            tensor->cols = (int)value;
        else if (axes == 2)
            tensor->rows = (int)value;
    }
    return json_is_array(shape);
}

static bool entry_read(const Safetensors *file, const char *name, const json_t *entry, size_t base,
                       StoredTensor *tensor, Span *span, Err *err) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *place = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(place, 0), *end = json_array_get(place, 1);
    *tensor = (StoredTensor){.name = name, .type_name = dtype};
    if (!dtype || json_array_size(place) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin) ||
        !shape_read(tensor, json_object_get(entry, "shape")))
        return err_set(err, "%s: the header's entry of the tensor %.100s is broken: fetch the file again",
                       file->path, name);
    *span = (Span){(uint64_t)json_integer_value(begin), (uint64_t)json_integer_value(end), name};
    if (span->end > file->map.n - base)
        return err_set(err,
                       "%s: the tensor %.100s ends %llu bytes after the end of the file: it is cut off, fetch it "
                       "again",
                       file->path, name, (unsigned long long)(span->end - (file->map.n - base)));
    tensor->type = type_of(dtype);
    if (tensor->type == STORED_OTHER || tensor->rows < 0) return true;
    uint64_t bytes;
    if (!stored_bytes(tensor->type, (uint64_t)tensor->rows, (uint64_t)tensor->cols, &bytes) ||
        bytes != span->end - span->begin)
        return err_set(err, "%s: the tensor %.100s is %d x %d %s but has %llu bytes: fetch the file again",
                       file->path, name, tensor->rows, tensor->cols, dtype,
                       (unsigned long long)(span->end - span->begin));
    tensor->bytes = file->map.p + base + span->begin;
    return true;
}

static bool table_read(Safetensors *file, size_t base, Err *err) {
    size_t most = json_object_size(file->header);
    file->tensors = arena_alloc(&file->arena, most, sizeof(StoredTensor));
    Span *spans = arena_alloc(&file->arena, most, sizeof *spans);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        if (!entry_read(file, name, entry, base, &file->tensors[file->n], &spans[file->n], err)) return false;
        file->n++;
    }
    return spans_check(spans, file->n, file->path, err) && stored_sort(file->tensors, file->n, file->path, err);
}

static bool header_read(Safetensors *file, Err *err) {
    uint64_t n = 0;
    if (file->map.n >= 8) memcpy(&n, file->map.p, 8);
    if (file->map.n < 8 || n > file->map.n - 8 || n > HEADER_MOST)
        return err_set(
            err,
            "%s: the header's length (%llu bytes) does not fit the file (%zu bytes): it is cut off or no "
            "safetensors file, fetch it again",
            file->path, (unsigned long long)n, file->map.n);
    json_error_t at;
    file->header = json_loadb((const char *)file->map.p + 8, (size_t)n, JSON_REJECT_DUPLICATES, &at);
    if (!json_is_object(file->header))
        return err_set(err, "%s: the header is no JSON object (%s): fetch the file again", file->path,
                       file->header ? "another kind of value" : at.text);
    return table_read(file, 8 + (size_t)n, err);
}

Safetensors *safetensors_open(const char *path, Err *err) {
    Safetensors *file = MEM_NEW(Safetensors);
    file->path = mem_text(path);
    if (file_map(&file->map, path, err) && header_read(file, err)) return file;
    safetensors_close(file);
    return NULL;
}

void safetensors_close(Safetensors *file) {
    if (!file) return;
    file_unmap(&file->map);
    arena_free(&file->arena);
    json_decref(file->header);
    free(file->path);
    free(file);
}

const StoredTensor *safetensors_tensor(const Safetensors *file, const char *name) {
    return stored_find(file->tensors, file->n, name);
}

int safetensors_all(const Safetensors *file, const StoredTensor **tensors) {
    *tensors = file->tensors;
    return file->n;
}

const char *safetensors_metadata(const Safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

bool safetensors_read(const Safetensors *file, const char *name, int rows, int cols, float *out, Err *err) {
    const StoredTensor *tensor = safetensors_tensor(file, name);
    if (!tensor)
        return err_set(err, "%s: the tensor %.100s is missing: the file belongs to something else", file->path,
                       name);
    if (tensor->type == STORED_OTHER || tensor->rows != rows || tensor->cols != cols)
        return err_set(
            err,
            "%s: the tensor %.100s is %d x %d %s, expected %d x %d numbers: the file belongs to something "
            "else",
            file->path, name, tensor->rows, tensor->cols, tensor->type_name, rows, cols);
    for (int r = 0; r < rows; r++)
        if (!stored_row(tensor, r, out + (size_t)r * (size_t)cols))
            return err_set(err,
                           "%s: the tensor %.100s has NaN or infinity in row %d: go back to an older checkpoint",
                           file->path, name, r);
    return true;
}

/* ---- writing ---- */

/* The header's JSON, padded with blanks so that the data begins at a multiple of eight. */
static char *header_text(const TensorEntry *entries, int n, StoredType type, const char *const *metadata) {
    json_int_t item = type == STORED_F32 ? 4 : 2;
    const char *dtype = type == STORED_F32 ? "F32" : type == STORED_F16 ? "F16" : "BF16";
    json_t *header = json_object();
    if (metadata) {
        json_t *pairs = json_object();
        for (; metadata[0]; metadata += 2) json_object_set_new(pairs, metadata[0], json_string(metadata[1]));
        json_object_set_new(header, "__metadata__", pairs);
    }
    json_int_t at = 0;
    for (int i = 0; i < n; i++) {
        const TensorEntry *e = &entries[i];
        json_int_t bytes = (json_int_t)e->rows * e->cols * item;
        json_t *shape = e->is_vector ? json_pack("[i]", e->cols) : json_pack("[i,i]", e->rows, e->cols);
        json_object_set_new(
            header, e->name,
            json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype, "shape", shape, "data_offsets", at, at + bytes));
        at += bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    CHECK(text, "the header of %d tensors can't be made into JSON", n);
    size_t length = strlen(text), padded = (length + 7) & ~(size_t)7;
    text = mem_grow(text, padded + 1, 1);
    memset(text + length, ' ', padded - length);
    text[padded] = 0;
    return text;
}

static bool data_write(Sink *sink, const TensorEntry *entries, int n, StoredType type, TensorReader *read,
                       void *self) {
    size_t most = 0;
    for (int i = 0; i < n; i++) {
        size_t size = (size_t)entries[i].rows * (size_t)entries[i].cols;
        if (size > most) most = size;
    }
    float *values = MEM_ARRAY(float, most);
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        size_t size = (size_t)entries[i].rows * (size_t)entries[i].cols;
        ok = read(self, i, values, sink->err);
        if (ok && type != STORED_F32 && !stored_encode(type, values, size, (uint8_t *)values))
            ok = err_set(sink->err, "%s: the tensor %s holds NaN or a value too large for 16 bits: take float32",
                         sink->path, entries[i].name);
        if (ok) ok = sink_add(sink, values, size * (type == STORED_F32 ? 4 : 2));
    }
    free(values);
    return ok;
}

bool safetensors_write_as(const char *path, const TensorEntry *entries, int n, StoredType type, TensorReader *read,
                          void *self, const char *const *metadata, Err *err) {
    Sink sink;
    if (!sink_open(&sink, path, err)) return false;
    char *text = header_text(entries, n, type, metadata);
    uint64_t length = strlen(text);
    bool ok = sink_add(&sink, &length, 8) && sink_add(&sink, text, length) &&
              data_write(&sink, entries, n, type, read, self);
    free(text);
    return sink_close(&sink, ok);
}

bool safetensors_write(const char *path, const TensorEntry *entries, int n, bool bfloat16, TensorReader *read,
                       void *self, const char *const *metadata, Err *err) {
    return safetensors_write_as(path, entries, n, bfloat16 ? STORED_BF16 : STORED_F32, read, self, metadata, err);
}
