/* test_kernels_base.c: base.h: errors of one line, aborting checks, overflow of sizes, arenas, buffers, and
 * counted random numbers against Philox's published answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base.h"

/* ---- errors ---- */

static void errors(void **state) {
    (void)state;
    Err err = {0};
    assert_false(err_set(&err, "file %s: %d", "a\nb\tc", 7));
    assert_string_equal(err.msg, "file a b c: 7"); /* one line, whatever it quotes */
    assert_false(err_set(NULL, "nobody listens"));
    char *longer = mem_alloc(2000, 1);
    memset(longer, 'x', 1999);
    err_set(&err, "%s", longer);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    free(longer);
}

/* What a child that runs `act` writes to stderr; returns its status. */
static int status_of(void (*act)(void), char *text, size_t room) {
    int pipes[2], status;
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        act();
        _exit(0);
    }
    close(pipes[1]);
    size_t n = 0;
    for (ssize_t more; (more = read(pipes[0], text + n, room - 1 - n)) > 0;) n += (size_t)more;
    text[n] = 0;
    close(pipes[0]);
    waitpid(child, &status, 0);
    return status;
}

static void act_check(void) { CHECK(1 + 1 == 3, "%d is not %d", 2, 3); }
static void act_die(void) { die("no room for %d", 5); }
static void act_overflow(void) { mem_alloc(SIZE_MAX / 2, 3); }
static void act_grow_overflow(void) { free(mem_grow(NULL, SIZE_MAX / 2, 4)); }
static void act_arena_overflow(void) {
    Arena arena = {0};
    arena_alloc(&arena, SIZE_MAX - 10, 1);
}
static void act_below_none(void) {
    Rng rng = {0};
    rng_below(&rng, 0);
}

static void endings(void **state) {
    (void)state;
    char text[4096];
    int status = status_of(act_check, text, sizeof text);
    assert_true(WIFSIGNALED(status));
    assert_non_null(strstr(text, "test_kernels_base.c:"));
    assert_non_null(strstr(text, "1 + 1 == 3: 2 is not 3"));
    status = status_of(act_die, text, sizeof text);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_string_equal(text, "whet: no room for 5\n");
    void (*const too_much[])(void) = {act_overflow, act_grow_overflow, act_arena_overflow};
    for (int i = 0; i < 3; i++) {
        status = status_of(too_much[i], text, sizeof text);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
        assert_non_null(strstr(text, "out of memory"));
    }
    assert_true(WIFSIGNALED(status_of(act_below_none, text, sizeof text)));
}

/* ---- memory and text ---- */

static void memory(void **state) {
    (void)state;
    int *numbers = MEM_ARRAY(int, 100);
    for (int i = 0; i < 100; i++) assert_int_equal(numbers[i], 0);
    numbers = mem_grow(numbers, 1000, sizeof *numbers);
    numbers[999] = 1;
    free(numbers);
    void *nothing = mem_alloc(0, 8);
    assert_non_null(nothing);
    free(nothing);
    char *text = mem_text_n("ab\0cd", 5), *copy = mem_text("xyz");
    assert_memory_equal(text, "ab\0cd", 6);
    assert_string_equal(copy, "xyz");
    free(text), free(copy);
}

static void arena(void **state) {
    (void)state;
    Arena arena = {0};
    arena_free(&arena); /* nothing in it */
    for (int round = 0; round < 2; round++) {
        char *parts[300];
        for (int i = 0; i < 300; i++) {
            size_t n = (size_t)(i * 37 % 1000 + (i == 150 ? 200000 : 0));
            parts[i] = arena_alloc(&arena, n, 1);
            assert_int_equal((uintptr_t)parts[i] % 16, 0);
            for (size_t j = 0; j < n; j++) assert_int_equal(parts[i][j], 0);
            memset(parts[i], i, n);
        }
        for (int i = 1; i < 300; i++) /* nobody wrote over its neighbour */
            for (int j = 0; j < i * 37 % 1000; j++) assert_int_equal((unsigned char)parts[i][j], i & 0xff);
        assert_string_equal(arena_text(&arena, "hello world", 5), "hello");
        assert_string_equal(arena_format(&arena, "%d-%s", 12, "x"), "12-x");
        arena_free(&arena); /* and it may be used again */
    }
}

static void buffers(void **state) {
    (void)state;
    Buf buf = {0};
    buf_clear(&buf);
    assert_null(buf.p);
    for (int i = 0; i < 1000; i++) buf_char(&buf, (char)('a' + i % 26));
    assert_int_equal(buf.n, 1000);
    assert_int_equal(strlen(buf.p), 1000);
    buf_clear(&buf);
    assert_string_equal(buf.p, "");
    buf_text(&buf, "x=");
    buf_format(&buf, "%d, %s", -3, "y");
    buf_add(&buf, "\0z", 2);
    buf_add(&buf, NULL, 0);
    assert_int_equal(buf.n, 9);
    assert_memory_equal(buf.p, "x=-3, y\0z", 10);
    buf_free(&buf);
    assert_null(buf.p);
    assert_int_equal(buf.n, 0);
    buf_add(&buf, NULL, 0); /* makes an empty text */
    assert_string_equal(buf.p, "");
    buf_free(&buf);
}

/* ---- random numbers ---- */

/* Known answers of Philox 4x32-10 (kat_vectors of the Random123 distribution, Salmon et al. 2011). */
static void philox_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox(out, (uint64_t)known[i].key[1] << 32 | known[i].key[0], known[i].counter);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void sequences(void **state) {
    (void)state;
    Rng a = {1, 0}, b = {1, 0}, other = {2, 0};
    for (int i = 0; i < 100; i++) assert_int_equal(rng_next(&a), rng_next(&b));
    b.at = 50; /* the state is a counter: any place can be gone back to */
    a.at = 50;
    assert_int_equal(rng_next(&a), rng_next(&b));
    assert_int_not_equal(rng_next(&a), rng_next(&other));
    assert_int_equal(rng_mix(3, 4), rng_mix(3, 4));
    assert_int_not_equal(rng_mix(3, 4), rng_mix(4, 3));
    assert_int_not_equal(rng_mix(3, 4), rng_mix(3, 5));
}

static void below(void **state) {
    (void)state;
    Rng rng = {5, 0};
    int count[7] = {0};
    for (int i = 0; i < 70000; i++) count[rng_below(&rng, 7)]++;
    for (int i = 0; i < 7; i++) assert_true(abs(count[i] - 10000) < 500); /* five standard deviations */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rng_below(&rng, 1), 0);
        assert_true(rng_below(&rng, (uint64_t)3 << 62) < (uint64_t)3 << 62);
    }
    int high = 0; /* 3 * 2^62 does not divide 2^64: a plain remainder would favour the lowest third */
    for (int i = 0; i < 30000; i++) high += rng_below(&rng, (uint64_t)3 << 62) >= (uint64_t)1 << 62;
    assert_true(abs(high - 20000) < 500);
}

static void moments(void **state) {
    (void)state;
    Rng rng = {6, 0};
    double sum = 0, square = 0, fourth = 0, uniform = 0;
    enum { N = 100000 };
    for (int i = 0; i < N; i++) {
        double u = rng_uniform(&rng), x = rng_normal(&rng);
        assert_true(u >= 0 && u < 1 && isfinite(x));
        uniform += u, sum += x, square += x * x, fourth += x * x * x * x;
    }
    assert_true(fabs(uniform / N - 0.5) < 0.005);
    assert_true(fabs(sum / N) < 0.016);
    assert_true(fabs(square / N - 1) < 0.025);
    assert_true(fabs(fourth / N - 3) < 0.16);
}

static void time_goes_on(void **state) {
    (void)state;
    double before = clock_seconds();
    usleep(2000);
    double passed = clock_seconds() - before;
    assert_true(passed >= 0.002 && passed < 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),       cmocka_unit_test(endings), cmocka_unit_test(memory),
        cmocka_unit_test(arena),        cmocka_unit_test(buffers), cmocka_unit_test(philox_answers),
        cmocka_unit_test(sequences),    cmocka_unit_test(below),   cmocka_unit_test(moments),
        cmocka_unit_test(time_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
