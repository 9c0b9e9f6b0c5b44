/* base.c: see base.h. */
#include "kernels/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool err_set(Err *err, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->msg, sizeof err->msg, format, args);
        va_end(args);
        for (char *c = err->msg; *c; c++)
            if ((unsigned char)*c < ' ') *c = ' '; /* one line, whatever text it quotes */
    }
    return false;
}

void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fputs("whet: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void check_failed(const char *file, int line, const char *condition, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "whet: bug at %s:%d: %s: ", file, line, condition);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

/* ---- memory ---- */

static size_t product_of(size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) die("out of memory: %zu x %zu bytes asked", count, size);
    return bytes ? bytes : 1;
}

void *mem_alloc(size_t count, size_t size) {
    size_t bytes = product_of(count, size);
    void *p = calloc(1, bytes);
    if (!p) die("out of memory: %zu bytes asked", bytes);
    return p;
}

void *mem_grow(void *old, size_t count, size_t size) {
    size_t bytes = product_of(count, size);
    void *p = realloc(old, bytes);
    if (!p) die("out of memory: %zu bytes asked", bytes);
    return p;
}

char *mem_text_n(const char *text, size_t n) {
    char *p = mem_alloc(n + 1, 1);
    if (n) memcpy(p, text, n);
    return p;
}

char *mem_text(const char *text) { return mem_text_n(text, strlen(text)); }

struct ArenaBlock {
    ArenaBlock *next;
    size_t used, room;
    _Alignas(16) char bytes[];
};

void *arena_alloc(Arena *arena, size_t count, size_t size) {
    size_t bytes = product_of(count, size);
    if (bytes > SIZE_MAX - 64) die("out of memory: %zu bytes asked", bytes);
    bytes = (bytes + 15) & ~(size_t)15;
    ArenaBlock *block = arena->head;
    if (!block || block->room - block->used < bytes) {
        size_t room = bytes > 65536 ? bytes : 65536;
        block = mem_alloc(1, sizeof *block + room);
        block->room = room;
        block->next = arena->head;
        arena->head = block;
    }
    void *p = block->bytes + block->used;
    block->used += bytes;
    return p;
}

char *arena_text(Arena *arena, const char *text, size_t n) {
    char *p = arena_alloc(arena, n + 1, 1);
    if (n) memcpy(p, text, n);
    return p;
}

char *arena_format(Arena *arena, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    CHECK(n >= 0, "format %s", format);
    char *p = arena_alloc(arena, (size_t)n + 1, 1);
    vsnprintf(p, (size_t)n + 1, format, again);
    va_end(args);
    va_end(again);
    return p;
}

void arena_free(Arena *arena) {
    while (arena->head) {
        ArenaBlock *next = arena->head->next;
        free(arena->head);
        arena->head = next;
    }
}

/* ---- text ---- */

static void buf_room(Buf *buf, size_t more) {
    if (more > SIZE_MAX / 4 - buf->n) die("out of memory: text of %zu bytes asked", more);
    size_t need = buf->n + more + 1;
    if (need <= buf->room) return;
    size_t room = buf->room ? buf->room : 64;
    while (room < need) room *= 2;
    buf->p = mem_grow(buf->p, room, 1);
    buf->room = room;
}

void buf_add(Buf *buf, const void *bytes, size_t n) {
    buf_room(buf, n);
    if (n) memcpy(buf->p + buf->n, bytes, n);
    buf->n += n;
    buf->p[buf->n] = 0;
}

void buf_text(Buf *buf, const char *text) { buf_add(buf, text, strlen(text)); }

void buf_char(Buf *buf, char c) { buf_add(buf, &c, 1); }

void buf_format(Buf *buf, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    CHECK(n >= 0, "format %s", format);
    buf_room(buf, (size_t)n);
    vsnprintf(buf->p + buf->n, (size_t)n + 1, format, again);
    buf->n += (size_t)n;
    va_end(args);
    va_end(again);
}

void buf_clear(Buf *buf) {
    buf->n = 0;
    if (buf->p) buf->p[0] = 0;
}

void buf_free(Buf *buf) {
    free(buf->p);
    *buf = (Buf){0};
}

/* ---- clock ---- */

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- counted random numbers ---- */

void philox(uint32_t out[4], uint64_t key, const uint32_t counter[4]) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b, c3 = (uint32_t)a, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint64_t rng_next(Rng *rng) {
    uint32_t counter[4] = {(uint32_t)rng->at, (uint32_t)(rng->at >> 32), 0, 0}, out[4];
    rng->at++;
    philox(out, rng->key, counter);
    return (uint64_t)out[1] << 32 | out[0];
}

double rng_uniform(Rng *rng) { return (double)(rng_next(rng) >> 11) * 0x1p-53; }

uint64_t rng_below(Rng *rng, uint64_t n) {
    CHECK(n > 0, "n is 0");
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do x = rng_next(rng);
    while (x >= limit);
    return x % n;
}

double rng_normal(Rng *rng) {
    double u = 1.0 - rng_uniform(rng), v = rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v);
}

uint64_t rng_mix(uint64_t a, uint64_t b) {
    uint32_t counter[4] = {(uint32_t)b, (uint32_t)(b >> 32), 0x77686574u, 0}, out[4];
    philox(out, a, counter);
    return (uint64_t)out[1] << 32 | out[0];
}
