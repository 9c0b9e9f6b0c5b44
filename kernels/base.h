/* base.h: the common ground under every room: errors, memory, text, clock, counted random numbers.
 *
 * It holds only what kernels/ itself needs. It must never learn of tensors, models, text formats or files.
 * Ownership: an Arena owns what is allocated from it; a Buf owns its bytes; an Err is the caller's.
 * Tested by tests/test_base.c.
 */
#ifndef WHET_BASE_H
#define WHET_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- errors ----
 * A bug of ours: CHECK aborts with file, line and a message that shows both values.
 * The machine (file missing, disk full, no memory): a function returns false or NULL and fills an Err, which
 * travels up to rl unchanged; the message says what, where and what to do, in one line.
 * The data (odd answers, broken lines): a value of the room concerned, never an Err. */

typedef struct {
    char msg[512]; /* empty when there is no error */
} Err;

#define FORMAT_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Fills err (which may be NULL) and returns false, so that `return err_set(err, ...)` is the usual form. */
bool err_set(Err *err, const char *format, ...) FORMAT_LIKE(2, 3);

/* Prints "whet: <message>" to stderr and exits with status 1. For commands and for exhausted memory only. */
_Noreturn void die(const char *format, ...) FORMAT_LIKE(1, 2);

_Noreturn void check_failed(const char *file, int line, const char *condition, const char *format, ...)
    FORMAT_LIKE(4, 5);
#define CHECK(condition, ...)                                                                                     \
    do {                                                                                                          \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__);                              \
    } while (0)

/* ---- memory ----
 * Small host memory; exhausted memory ends the program with one line. Big buffers go through the device. */

void *mem_alloc(size_t count, size_t size);           /* zeroed; count * size is checked for overflow */
void *mem_grow(void *old, size_t count, size_t size); /* realloc with the same check; new bytes undefined */
char *mem_text(const char *text);                     /* strdup */
char *mem_text_n(const char *text, size_t n);         /* copy of n bytes, NUL-terminated */
#define MEM_NEW(type) ((type *)mem_alloc(1, sizeof(type)))
#define MEM_ARRAY(type, n) ((type *)mem_alloc((size_t)(n), sizeof(type)))

typedef struct ArenaBlock ArenaBlock;
typedef struct {
    ArenaBlock *head; /* zero-initialise: Arena a = {0}; */
} Arena;

void *arena_alloc(Arena *arena, size_t count, size_t size); /* zeroed, aligned to 16 */
char *arena_text(Arena *arena, const char *text, size_t n); /* copy of n bytes, NUL-terminated */
char *arena_format(Arena *arena, const char *format, ...) FORMAT_LIKE(2, 3);
void arena_free(Arena *arena); /* frees all; the arena may be used again */

/* ---- text ----
 */

typedef struct {
    char *p;  /* NUL-terminated once anything was added; NULL before */
    size_t n; /* bytes without the NUL */
    size_t room;
} Buf; /* zero-initialise: Buf b = {0}; */

void buf_add(Buf *buf, const void *bytes, size_t n);
void buf_text(Buf *buf, const char *text);
void buf_char(Buf *buf, char c);
void buf_format(Buf *buf, const char *format, ...) FORMAT_LIKE(2, 3);
void buf_clear(Buf *buf); /* keeps the memory */
void buf_free(Buf *buf);

/* ---- clock ----
 */

double clock_seconds(void); /* monotonic */

/* ---- counted random numbers ----
 * Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the output is a
 * function of a key and a counter and of nothing else, so no state is carried or saved. */

void philox(uint32_t out[4], uint64_t key, const uint32_t counter[4]);

typedef struct {
    uint64_t key, at; /* a convenience for host code that wants a sequence: state is a plain counter */
} Rng;
uint64_t rng_next(Rng *rng);
double rng_uniform(Rng *rng);             /* in [0, 1) */
uint64_t rng_below(Rng *rng, uint64_t n); /* in [0, n), unbiased; n > 0 */
double rng_normal(Rng *rng);              /* mean 0, variance 1 */
uint64_t rng_mix(uint64_t a, uint64_t b); /* one key out of two numbers */

#endif
