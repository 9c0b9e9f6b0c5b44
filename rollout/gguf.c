/* gguf.c: reads a GGUF file (versions 2 and 3, little-endian): typed metadata and a table of tensors, mapped.
 *
 * Every length, count and offset is checked against the file before it is used, so that a lying header costs one
 * clear line and nothing more. What the keys mean is conf.c's and tokenizer_gguf.c's business. Tested by
 * tests/test_rollout_files.c.
 */
#include "rollout/internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    KIND_U8,
    KIND_I8,
    KIND_U16,
    KIND_I16,
    KIND_U32,
    KIND_I32,
    KIND_F32,
    KIND_BOOL,
    KIND_TEXT,
    KIND_ARRAY,
    KIND_U64,
    KIND_I64,
    KIND_F64,
    KIND_COUNT
} Kind;
static const uint8_t KIND_BYTES[KIND_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}; /* 0: not fixed */

typedef struct {
    View key;
    Kind kind, item; /* item: of an array */
    uint64_t count;  /* of an array */
    View bytes;      /* the value; for an array its items */
} Pair;

struct Gguf {
    Mapped map;
    Arena arena;
    Pair *pairs; /* sorted by key */
    int n_pairs;
    StoredTensor *tensors; /* sorted by name */
    int n_tensors;
    Gguf **parts; /* of a split model: the files after this one, which hold tensors only */
    int n_parts;
};

/* GGML's numbers of types; those without a StoredType are named in messages only. */
static const struct {
    const char *name;
    StoredType type;
} GGML_TYPES[] = {
    [0] = {"F32", STORED_F32},        [1] = {"F16", STORED_F16},        [2] = {"Q4_0", STORED_Q4_0},
    [3] = {"Q4_1", STORED_Q4_1},      [6] = {"Q5_0", STORED_Q5_0},      [7] = {"Q5_1", STORED_Q5_1},
    [8] = {"Q8_0", STORED_Q8_0},      [9] = {"Q8_1", STORED_OTHER},     [10] = {"Q2_K", STORED_Q2_K},
    [11] = {"Q3_K", STORED_Q3_K},     [12] = {"Q4_K", STORED_Q4_K},     [13] = {"Q5_K", STORED_Q5_K},
    [14] = {"Q6_K", STORED_Q6_K},     [15] = {"Q8_K", STORED_Q8_K},     [16] = {"IQ2_XXS", STORED_OTHER},
    [17] = {"IQ2_XS", STORED_OTHER},  [18] = {"IQ3_XXS", STORED_OTHER}, [19] = {"IQ1_S", STORED_OTHER},
    [20] = {"IQ4_NL", STORED_IQ4_NL}, [21] = {"IQ3_S", STORED_OTHER},   [22] = {"IQ2_S", STORED_OTHER},
    [23] = {"IQ4_XS", STORED_IQ4_XS}, [24] = {"I8", STORED_OTHER},      [25] = {"I16", STORED_OTHER},
    [26] = {"I32", STORED_OTHER},     [27] = {"I64", STORED_OTHER},     [28] = {"F64", STORED_F64},
    [29] = {"IQ1_M", STORED_OTHER},   [30] = {"BF16", STORED_BF16},     [34] = {"TQ1_0", STORED_OTHER},
    [35] = {"TQ2_0", STORED_OTHER},   [39] = {"MXFP4", STORED_OTHER},
};

/* ---- a cursor that never leaves the file ---- */

typedef struct {
    const uint8_t *p;
    size_t n, at;
    bool ok;
} Cursor;

static const uint8_t *take(Cursor *c, uint64_t n) {
    if (!c->ok || n > c->n - c->at) {
        c->ok = false;
        return NULL;
    }
    const uint8_t *p = c->p + c->at;
    c->at += (size_t)n;
    return p;
}

static uint32_t take_u32(Cursor *c) {
    uint32_t v = 0;
    const uint8_t *p = take(c, 4);
    if (p) memcpy(&v, p, 4);
    return v;
}

static uint64_t take_u64(Cursor *c) {
    uint64_t v = 0;
    const uint8_t *p = take(c, 8);
    if (p) memcpy(&v, p, 8);
    return v;
}

static View take_text(Cursor *c) {
    uint64_t n = take_u64(c);
    const uint8_t *p = take(c, n);
    return p ? (View){(const char *)p, (size_t)n} : (View){"", 0};
}

/* The items of an array; nested arrays do not occur in the models that whet reads and are refused. */
static void take_items(Cursor *c, Pair *pair) {
    uint32_t item = take_u32(c);
    pair->count = take_u64(c);
    if (item >= KIND_COUNT || item == KIND_ARRAY) c->ok = false;
    if (!c->ok) return;
    pair->item = (Kind)item;
    size_t start = c->at;
    if (pair->item == KIND_TEXT) {
        if (pair->count > (c->n - c->at) / 8) c->ok = false;
        for (uint64_t i = 0; c->ok && i < pair->count; i++) take_text(c);
    } else {
        uint64_t bytes;
        if (__builtin_mul_overflow(pair->count, (uint64_t)KIND_BYTES[pair->item], &bytes))
            c->ok = false;
        else
            take(c, bytes);
    }
    pair->bytes = (View){(const char *)c->p + start, c->at - start};
}

static void take_pair(Cursor *c, Pair *pair) {
    pair->key = take_text(c);
    uint32_t kind = take_u32(c);
    if (kind >= KIND_COUNT) c->ok = false;
    if (!c->ok) return;
    pair->kind = (Kind)kind;
    if (pair->kind == KIND_TEXT)
        pair->bytes = take_text(c);
    else if (pair->kind == KIND_ARRAY)
        take_items(c, pair);
    else {
        const uint8_t *p = take(c, KIND_BYTES[pair->kind]);
        pair->bytes = (View){(const char *)p, KIND_BYTES[pair->kind]};
    }
}

static int by_key(const void *a, const void *b) {
    View x = ((const Pair *)a)->key, y = ((const Pair *)b)->key;
    int order = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

static bool pairs_read(Gguf *gguf, Cursor *c, uint64_t count, const char *path, Err *err) {
    if (count > (c->n - c->at) / 13) /* a pair takes 13 bytes at least */
        return err_set(err, "%s: the header promises %llu keys, more than the file can hold: fetch it again", path,
                       (unsigned long long)count);
    gguf->n_pairs = (int)count;
    gguf->pairs = arena_alloc(&gguf->arena, count, sizeof(Pair));
    for (uint64_t i = 0; i < count; i++) {
        take_pair(c, &gguf->pairs[i]);
        if (!c->ok)
            return err_set(err, "%s: key number %llu of the header is broken or cut off: fetch the file again",
                           path, (unsigned long long)i + 1);
    }
    if (count) qsort(gguf->pairs, count, sizeof(Pair), by_key);
    for (uint64_t i = 1; i < count; i++)
        if (by_key(&gguf->pairs[i - 1], &gguf->pairs[i]) == 0)
            return err_set(err, "%s: the key %.*s is there twice: fetch the file again", path,
                           gguf->pairs[i].key.n > 100 ? 100 : (int)gguf->pairs[i].key.n, gguf->pairs[i].key.p);
    return true;
}

/* ---- tensors ---- */

/* One row of the table of tensors: name, axes (the first is a row's length), type, offset. */
static bool take_tensor(Gguf *gguf, Cursor *c, StoredTensor *tensor, uint64_t *offset, const char *path,
                        Err *err) {
    View name = take_text(c);
    uint32_t axes = take_u32(c);
    uint64_t size[4] = {1, 1, 1, 1};
    if (axes > 4) c->ok = false;
    for (uint32_t i = 0; c->ok && i < axes; i++) size[i] = take_u64(c);
    uint32_t type = take_u32(c);
    *offset = take_u64(c);
    if (!c->ok || name.n == 0 || memchr(name.p, 0, name.n))
        return err_set(err, "%s: the table of tensors is broken or cut off: fetch the file again", path);
    *tensor = (StoredTensor){.name = arena_text(&gguf->arena, name.p, name.n), .type = STORED_OTHER};
    bool known = type < sizeof GGML_TYPES / sizeof *GGML_TYPES && GGML_TYPES[type].name;
    tensor->type_name = known ? GGML_TYPES[type].name : "of an unknown number";
    if (known) tensor->type = GGML_TYPES[type].type;
    if (size[0] > INT_MAX || size[1] > INT_MAX || size[0] == 0 || size[1] == 0)
        return err_set(err, "%s: the tensor %.100s has an absurd shape (%llu x %llu): fetch the file again", path,
                       tensor->name, (unsigned long long)size[1], (unsigned long long)size[0]);
    bool flat = size[2] == 1 && size[3] == 1;
    tensor->rows = flat ? (int)size[1] : -1;
    tensor->cols = flat ? (int)size[0] : -1;
    tensor->is_vector = axes <= 1;
    return true;
}

static bool tensor_place(const Gguf *gguf, StoredTensor *tensor, uint64_t offset, size_t base, Span *span,
                         const char *path, Err *err) {
    uint64_t bytes = 0, room = gguf->map.n - base;
    *span = (Span){offset, offset, tensor->name};
    if (offset > room)
        return err_set(err,
                       "%s: the tensor %.100s begins after the end of the file: it is cut off, fetch it again",
                       path, tensor->name);
    if (tensor->type == STORED_OTHER || tensor->rows < 0) return true;
    if (!stored_bytes(tensor->type, (uint64_t)tensor->rows, (uint64_t)tensor->cols, &bytes))
        return err_set(err,
                       "%s: the tensor %.100s has rows of %d values, not whole blocks of %s: fetch the file again",
                       path, tensor->name, tensor->cols, tensor->type_name);
    if (bytes > room - offset)
        return err_set(err,
                       "%s: the tensor %.100s needs %llu bytes at offset %llu but the file ends before: it is cut "
                       "off, fetch it again",
                       path, tensor->name, (unsigned long long)bytes, (unsigned long long)(base + offset));
    tensor->bytes = gguf->map.p + base + offset;
    span->end = offset + bytes;
    return true;
}

static bool tensors_read(Gguf *gguf, Cursor *c, uint64_t count, const char *path, Err *err) {
    if (count > (c->n - c->at) / 24) /* a row of the table takes 24 bytes at least */
        return err_set(err, "%s: the header promises %llu tensors, more than the file can hold: fetch it again",
                       path, (unsigned long long)count);
    gguf->n_tensors = (int)count;
    gguf->tensors = arena_alloc(&gguf->arena, count, sizeof(StoredTensor));
    uint64_t *offsets = arena_alloc(&gguf->arena, count, sizeof *offsets);
    Span *spans = arena_alloc(&gguf->arena, count, sizeof *spans);
    for (uint64_t i = 0; i < count; i++)
        if (!take_tensor(gguf, c, &gguf->tensors[i], &offsets[i], path, err)) return false;
    int64_t align = 32;
    gguf_int(gguf, "general.alignment", &align);
    if (align < 1 || align > 1 << 20)
        return err_set(err, "%s: general.alignment is %lld: fetch the file again", path, (long long)align);
    size_t base = (c->at + (size_t)align - 1) / (size_t)align * (size_t)align;
    if (base > gguf->map.n) base = gguf->map.n;
    for (uint64_t i = 0; i < count; i++)
        if (!tensor_place(gguf, &gguf->tensors[i], offsets[i], base, &spans[i], path, err)) return false;
    return spans_check(spans, gguf->n_tensors, path, err) &&
           stored_sort(gguf->tensors, gguf->n_tensors, path, err);
}

/* ---- opening ---- */

static bool header_read(Gguf *gguf, const char *path, Err *err) {
    Cursor c = {gguf->map.p, gguf->map.n, 0, true};
    const uint8_t *magic = take(&c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return err_set(
            err, "%s: not a GGUF file (it doesn't begin with GGUF): give a .gguf file or a Hugging Face folder",
            path);
    uint32_t version = take_u32(&c);
    uint64_t n_tensors = take_u64(&c), n_pairs = take_u64(&c);
    if (!c.ok) return err_set(err, "%s: the header is cut off: fetch the file again", path);
    if (version != 2 && version != 3)
        return err_set(err, "%s: GGUF version %u is not supported (2 and 3 are): convert it anew", path, version);
    return pairs_read(gguf, &c, n_pairs, path, err) && tensors_read(gguf, &c, n_tensors, path, err);
}

static Gguf *part_open(const char *path, Err *err) {
    Gguf *gguf = MEM_NEW(Gguf);
    if (file_map(&gguf->map, path, err) && header_read(gguf, path, err)) return gguf;
    gguf_close(gguf);
    return NULL;
}

/* ---- split models: NAME-00001-of-00003.gguf and so on, each with its number and its share of the tensors ---- */

enum { MOST_PARTS = 9999, TAIL = sizeof "-00001-of-00003.gguf" - 1 };

/* The number and count in a file's name; 0 when it has none. */
static int name_parts(const char *path, int *count) {
    size_t n = strlen(path);
    int number = 0, length = 0;
    if (n <= TAIL || sscanf(path + n - TAIL, "-%5d-of-%5d.gguf%n", &number, count, &length) != 2 || length != TAIL)
        return 0;
    return number;
}

int gguf_part(const char *path) {
    int count;
    return name_parts(path, &count);
}

static bool part_check(const Gguf *first, const Gguf *part, int number, int count, const char *path, Err *err) {
    int64_t said_number = -1, said_count = -1;
    gguf_int(part, "split.no", &said_number);
    gguf_int(part, "split.count", &said_count);
    if (said_number != number || said_count != count)
        return err_set(err, "%s: says that it is part %lld of %lld, not %d of %d: fetch the parts again", path,
                       (long long)said_number + 1, (long long)said_count, number + 1, count);
    for (int i = 0; i < part->n_tensors; i++)
        if (gguf_tensor(first, part->tensors[i].name))
            return err_set(err, "%s: the tensor %.100s is there twice: fetch the parts again", path,
                           part->tensors[i].name);
    return true;
}

static bool parts_open(Gguf *gguf, int count, const char *path, Err *err) {
    int named, stem = (int)strlen(path) - TAIL;
    if (name_parts(path, &named) != 1 || named != count)
        return err_set(err,
                       "%s: is part of a model in %d files: give the first of them, which ends in "
                       "-00001-of-%05d.gguf",
                       path, count, count);
    gguf->parts = arena_alloc(&gguf->arena, (size_t)count, sizeof *gguf->parts);
    for (int i = 1; i < count; i++) {
        char *name = arena_format(&gguf->arena, "%.*s-%05d-of-%05d.gguf", stem, path, i + 1, count);
        Gguf *part = part_open(name, err);
        if (!part) return false;
        bool ok = part_check(gguf, part, i, count, name, err);
        gguf->parts[gguf->n_parts++] = part;
        if (!ok) return false;
    }
    int64_t tensors = -1, found = gguf->n_tensors;
    for (int i = 0; i < gguf->n_parts; i++) found += gguf->parts[i]->n_tensors;
    if (gguf_int(gguf, "split.tensors.count", &tensors) && tensors != found)
        return err_set(err, "%s: the %d parts hold %lld tensors and should hold %lld: fetch them again", path,
                       count, (long long)found, (long long)tensors);
    return true;
}

Gguf *gguf_open(const char *path, Err *err) {
    Gguf *gguf = part_open(path, err);
    int64_t count = 0;
    if (!gguf || !gguf_int(gguf, "split.count", &count) || count == 0 || count == 1) return gguf;
    bool ok = count > 1 && count <= MOST_PARTS;
    if (!ok) err_set(err, "%s: split.count is %lld: fetch the file again", path, (long long)count);
    if (ok && parts_open(gguf, (int)count, path, err)) return gguf;
    gguf_close(gguf);
    return NULL;
}

void gguf_close(Gguf *gguf) {
    if (!gguf) return;
    for (int i = 0; i < gguf->n_parts; i++) gguf_close(gguf->parts[i]);
    file_unmap(&gguf->map);
    arena_free(&gguf->arena);
    free(gguf);
}

const StoredTensor *gguf_tensor(const Gguf *gguf, const char *name) {
    const StoredTensor *tensor = stored_find(gguf->tensors, gguf->n_tensors, name);
    for (int i = 0; !tensor && i < gguf->n_parts; i++) tensor = gguf_tensor(gguf->parts[i], name);
    return tensor;
}

/* ---- metadata ---- */

static const Pair *pair_find(const Gguf *gguf, const char *key) {
    Pair wanted = {.key = {key, strlen(key)}};
    return gguf->n_pairs ? bsearch(&wanted, gguf->pairs, (size_t)gguf->n_pairs, sizeof wanted, by_key) : NULL;
}

/* An integer of any width out of its bytes. */
static bool int_of(Kind kind, const char *p, int64_t *out) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    memcpy(&v, p, KIND_BYTES[kind]);
    switch (kind) {
    case KIND_U8:
        *out = v.u8;
        return true;
    case KIND_BOOL:
        *out = v.u8 != 0;
        return true;
    case KIND_I8:
        *out = v.i8;
        return true;
    case KIND_U16:
        *out = v.u16;
        return true;
    case KIND_I16:
        *out = v.i16;
        return true;
    case KIND_U32:
        *out = v.u32;
        return true;
    case KIND_I32:
        *out = v.i32;
        return true;
    case KIND_I64:
        *out = v.i64;
        return true;
    case KIND_U64:
        *out = (int64_t)v.u64;
        return v.u64 <= INT64_MAX;
    default:
        return false;
    }
}

bool gguf_has(const Gguf *gguf, const char *key) { return pair_find(gguf, key) != NULL; }

bool gguf_int(const Gguf *gguf, const char *key, int64_t *out) {
    const Pair *pair = pair_find(gguf, key);
    int64_t value;
    if (!pair || KIND_BYTES[pair->kind] == 0 || !int_of(pair->kind, pair->bytes.p, &value)) return false;
    *out = value;
    return true;
}

bool gguf_float(const Gguf *gguf, const char *key, double *out) {
    const Pair *pair = pair_find(gguf, key);
    if (!pair) return false;
    float single;
    if (pair->kind == KIND_F32) {
        memcpy(&single, pair->bytes.p, sizeof single);
        *out = (double)single;
    } else if (pair->kind == KIND_F64)
        memcpy(out, pair->bytes.p, sizeof *out);
    else
        return false;
    return true;
}

bool gguf_text(const Gguf *gguf, const char *key, View *out) {
    const Pair *pair = pair_find(gguf, key);
    if (!pair || pair->kind != KIND_TEXT) return false;
    *out = pair->bytes;
    return true;
}

bool gguf_texts(const Gguf *gguf, const char *key, View **out, int *n) {
    const Pair *pair = pair_find(gguf, key);
    if (!pair || pair->kind != KIND_ARRAY || pair->item != KIND_TEXT || pair->count > INT_MAX) return false;
    Cursor c = {(const uint8_t *)pair->bytes.p, pair->bytes.n, 0, true};
    *n = (int)pair->count;
    *out = MEM_ARRAY(View, pair->count);
    for (int i = 0; i < *n; i++) (*out)[i] = take_text(&c);
    return true;
}

bool gguf_ints(const Gguf *gguf, const char *key, int32_t **out, int *n) {
    const Pair *pair = pair_find(gguf, key);
    if (!pair || pair->kind != KIND_ARRAY || pair->count > INT_MAX || KIND_BYTES[pair->item] == 0) return false;
    int count = (int)pair->count;
    int32_t *values = MEM_ARRAY(int32_t, pair->count);
    for (int i = 0; i < count; i++) {
        int64_t value;
        if (!int_of(pair->item, pair->bytes.p + (size_t)i * KIND_BYTES[pair->item], &value) || value < INT32_MIN ||
            value > INT32_MAX) {
            free(values);
            return false;
        }
        values[i] = (int32_t)value;
    }
    *out = values;
    *n = count;
    return true;
}

bool gguf_floats(const Gguf *gguf, const char *key, float **out, int *n) {
    const Pair *pair = pair_find(gguf, key);
    if (!pair || pair->kind != KIND_ARRAY || pair->item != KIND_F32 || pair->count > INT_MAX) return false;
    *n = (int)pair->count;
    *out = MEM_ARRAY(float, pair->count);
    memcpy(*out, pair->bytes.p, (size_t)pair->count * sizeof(float));
    return true;
}
