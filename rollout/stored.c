/* stored.c: files mapped or written as a whole, and tensors in the number formats of model files.
 *
 * Decodes F32, F16, BF16 and the block formats Q4_0, Q4_1, Q8_0 to float32, and finds NaN and infinity on the way.
 * It knows no container: offsets and names come from gguf.c and safetensors.c. Tested by
 * tests/test_rollout_files.c.
 */
#include "rollout/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ---- */

bool file_map(Mapped *map, const char *path, Err *err) {
    *map = (Mapped){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(err, "%s: can't be opened (%s): check the path", path, strerror(errno));
    struct stat st;
    bool ok = fstat(fd, &st) == 0;
    if (!ok)
        err_set(err, "%s: can't be read (%s)", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        ok = err_set(err, "%s: not a regular file", path);
    else if (st.st_size == 0)
        ok = err_set(err, "%s: the file is empty: fetch it again", path);
    if (ok) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            ok = err_set(err, "%s: can't be mapped (%s)", path, strerror(errno));
        else
            *map = (Mapped){.p = p, .n = (size_t)st.st_size};
    }
    close(fd);
    return ok;
}

void file_unmap(Mapped *map) {
    if (map->p) munmap((void *)map->p, map->n);
    *map = (Mapped){0};
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* Turns whole real numbers back into integers, all the way down. */
static void reals_to_ints(json_t *value) {
    const char *key;
    json_t *item;
    size_t i;
    void *safe;
    json_object_foreach_safe(value, safe, key, item) {
        double number = json_real_value(item);
        if (json_is_real(item) && fabs(number) < 0x1p53 && number == floor(number))
            json_object_set_new(value, key, json_integer((json_int_t)number));
        else
            reals_to_ints(item);
    }
    json_array_foreach(value, i, item) {
        double number = json_real_value(item);
        if (json_is_real(item) && fabs(number) < 0x1p53 && number == floor(number))
            json_array_set_new(value, i, json_integer((json_int_t)number));
        else
            reals_to_ints(item);
    }
}

json_t *json_file(const char *path, Err *err) {
    Mapped map;
    if (!file_map(&map, path, err)) return NULL;
    json_error_t at;
    json_t *value = json_loadb((const char *)map.p, map.n, JSON_REJECT_DUPLICATES, &at);
    if (!value && json_error_code(&at) == json_error_numeric_overflow) { /* "model_max_length": 10^30 is usual */
        value = json_loadb((const char *)map.p, map.n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &at);
        if (value) reals_to_ints(value);
    }
    file_unmap(&map);
    if (!value)
        err_set(err, "%s: not valid JSON (line %d: %s): fetch it again", path, at.line, at.text);
    else if (!json_is_object(value)) {
        err_set(err, "%s: not a JSON object: fetch it again", path);
        json_decref(value);
        value = NULL;
    }
    return value;
}

bool file_write(const char *path, const void *bytes, size_t n, Err *err) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return err_set(err, "%s: can't be written (%s)", path, strerror(errno));
    size_t done = 0;
    bool ok = true;
    while (ok && done < n) {
        ssize_t k = write(fd, (const char *)bytes + done, n - done);
        if (k > 0)
            done += (size_t)k;
        else if (k < 0 && errno != EINTR)
            ok = err_set(err, "%s: writing failed (%s): make room and run again", path, strerror(errno));
    }
    if (ok && fsync(fd) != 0) ok = err_set(err, "%s: syncing failed (%s)", path, strerror(errno));
    if (close(fd) != 0 && ok) ok = err_set(err, "%s: closing failed (%s)", path, strerror(errno));
    return ok;
}

bool json_write(const char *path, const json_t *value, Err *err) {
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (!text) return err_set(err, "%s: the text to write is not valid UTF-8", path);
    Buf buf = {0};
    buf_text(&buf, text);
    buf_char(&buf, '\n');
    free(text);
    bool ok = file_write(path, buf.p, buf.n, err);
    buf_free(&buf);
    return ok;
}

/* ---- decoding rows ----
 * Bytes may lie at any address, hence memcpy. Every loop is plain enough for the compiler to vectorise; `bad`
 * gathers whether any value had all exponent bits set. */

enum { BLOCK = 32 }; /* values of a quantised block */

static float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Finite halves only: shifting the fields into place and scaling by 2^112 is exact, subnormals included. */
static float half_to_float(uint16_t half) {
    float magnitude = bits_to_float((uint32_t)(half & 0x7fff) << 13) * 0x1p112f;
    return half & 0x8000 ? -magnitude : magnitude;
}

static bool half_is_finite(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

static bool row_f32(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    memcpy(out, in, (size_t)n * 4);
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, out + i, 4);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

static bool row_bf16(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, in + 2 * (size_t)i, 2);
        bad |= (half & 0x7f80u) == 0x7f80u;
        uint32_t bits = (uint32_t)half << 16;
        memcpy(out + i, &bits, 4);
    }
    return !bad;
}

static bool row_f16(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, in + 2 * (size_t)i, 2);
        bad |= !half_is_finite(half);
        out[i] = half_to_float(half);
    }
    return !bad;
}

/* A block of Q4_0 is {half d, 16 bytes}: value = (nibble - 8) * d; low nibbles are the first half of the block. */
static bool row_q4_0(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 18, out += BLOCK) {
        uint16_t half;
        memcpy(&half, in, 2);
        bad |= !half_is_finite(half);
        float d = half_to_float(half);
        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)((in[2 + i] & 15) - 8) * d;
            out[i + BLOCK / 2] = (float)((in[2 + i] >> 4) - 8) * d;
        }
    }
    return !bad;
}

/* Q4_1 is {half d, half m, 16 bytes}: value = nibble * d + m. */
static bool row_q4_1(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 20, out += BLOCK) {
        uint16_t scale, least;
        memcpy(&scale, in, 2);
        memcpy(&least, in + 2, 2);
        bad |= !half_is_finite(scale) || !half_is_finite(least);
        float d = half_to_float(scale), m = half_to_float(least);
        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)(in[4 + i] & 15) * d + m;
            out[i + BLOCK / 2] = (float)(in[4 + i] >> 4) * d + m;
        }
    }
    return !bad;
}

/* Q8_0 is {half d, 32 signed bytes}: value = byte * d. */
static bool row_q8_0(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 34, out += BLOCK) {
        uint16_t half;
        memcpy(&half, in, 2);
        bad |= !half_is_finite(half);
        float d = half_to_float(half);
        for (int i = 0; i < BLOCK; i++) out[i] = (float)(int8_t)in[2 + i] * d;
    }
    return !bad;
}

static const struct {
    int values, bytes; /* of one block */
    bool (*row)(const uint8_t *in, int n, float *out);
} FORMATS[] = {
    [STORED_F32] = {1, 4, row_f32},        [STORED_F16] = {1, 2, row_f16},
    [STORED_BF16] = {1, 2, row_bf16},      [STORED_Q4_0] = {BLOCK, 18, row_q4_0},
    [STORED_Q4_1] = {BLOCK, 20, row_q4_1}, [STORED_Q8_0] = {BLOCK, 34, row_q8_0},
};

bool stored_bytes(StoredType type, uint64_t rows, uint64_t cols, uint64_t *bytes) {
    CHECK(type < STORED_OTHER, "type %d", (int)type);
    if (cols % (uint64_t)FORMATS[type].values) return false;
    uint64_t row;
    return !__builtin_mul_overflow(cols / (uint64_t)FORMATS[type].values, (uint64_t)FORMATS[type].bytes, &row) &&
           !__builtin_mul_overflow(rows, row, bytes);
}

bool stored_row(const StoredTensor *tensor, int row, float *out) {
    CHECK(tensor->bytes && row >= 0 && row < tensor->rows, "%s: row %d of %d", tensor->name, row, tensor->rows);
    size_t stride = (size_t)(tensor->cols / FORMATS[tensor->type].values) * (size_t)FORMATS[tensor->type].bytes;
    return FORMATS[tensor->type].row(tensor->bytes + (size_t)row * stride, tensor->cols, out);
}

/* ---- tables of tensors ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const StoredTensor *)a)->name, ((const StoredTensor *)b)->name);
}

bool stored_sort(StoredTensor *tensors, int n, const char *where, Err *err) {
    if (n) qsort(tensors, (size_t)n, sizeof *tensors, by_name);
    for (int i = 1; i < n; i++)
        if (by_name(&tensors[i - 1], &tensors[i]) == 0)
            return err_set(err, "%s: the tensor %.100s is there twice: fetch the file again", where,
                           tensors[i].name);
    return true;
}

const StoredTensor *stored_find(const StoredTensor *tensors, int n, const char *name) {
    StoredTensor key = {.name = name};
    return n ? bsearch(&key, tensors, (size_t)n, sizeof *tensors, by_name) : NULL;
}

static int by_begin(const void *a, const void *b) {
    const Span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

bool spans_check(Span *spans, int n, const char *where, Err *err) {
    if (n) qsort(spans, (size_t)n, sizeof *spans, by_begin);
    for (int i = 1; i < n; i++)
        if (spans[i].begin < spans[i - 1].end)
            return err_set(err, "%s: the tensors %.100s and %.100s overlap: fetch the file again", where,
                           spans[i - 1].name, spans[i].name);
    return true;
}
