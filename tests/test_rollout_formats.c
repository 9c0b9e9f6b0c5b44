/* test_rollout_formats.c: number formats against the gguf package, to the bit: random blocks of every type that is
 * read, and what is written. Golden: tests/goldens/make_format_goldens.py.
 */
#include "rollout/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const struct {
    const char *name;
    StoredType type;
} TYPES[] = {
    {"F32", STORED_F32},       {"F64", STORED_F64},       {"F16", STORED_F16},   {"BF16", STORED_BF16},
    {"E4M3", STORED_E4M3},     {"Q4_0", STORED_Q4_0},     {"Q4_1", STORED_Q4_1}, {"Q5_0", STORED_Q5_0},
    {"Q5_1", STORED_Q5_1},     {"Q8_0", STORED_Q8_0},     {"Q2_K", STORED_Q2_K}, {"Q3_K", STORED_Q3_K},
    {"Q4_K", STORED_Q4_K},     {"Q5_K", STORED_Q5_K},     {"Q6_K", STORED_Q6_K}, {"Q8_K", STORED_Q8_K},
    {"IQ4_NL", STORED_IQ4_NL}, {"IQ4_XS", STORED_IQ4_XS},
};

static StoredType type_named(const char *name) {
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strcmp(TYPES[i].name, name) == 0) return TYPES[i].type;
    fail_msg("type %s", name);
    return STORED_OTHER;
}

typedef struct {
    char name[9];
    uint32_t values, bytes;
    uint8_t *stored;
    float *wanted;
} Record;

static bool record_read(gzFile file, Record *record) {
    if (gzread(file, record->name, 8) != 8) return false;
    record->name[8] = 0;
    assert_int_equal(gzread(file, &record->values, 4), 4);
    assert_int_equal(gzread(file, &record->bytes, 4), 4);
    record->stored = MEM_ARRAY(uint8_t, record->bytes);
    record->wanted = MEM_ARRAY(float, record->values);
    assert_int_equal(gzread(file, record->stored, record->bytes), record->bytes);
    assert_int_equal(gzread(file, record->wanted, record->values * 4), record->values * 4);
    return true;
}

static void check_read(const Record *record) {
    uint64_t bytes;
    StoredTensor tensor = {.name = record->name,
                           .type = type_named(record->name),
                           .rows = 1,
                           .cols = (int)record->values,
                           .bytes = record->stored};
    assert_true(stored_bytes(tensor.type, 1, record->values, &bytes));
    assert_int_equal(bytes, record->bytes);
    float *out = MEM_ARRAY(float, record->values);
    assert_true(stored_row(&tensor, 0, out));
    for (uint32_t i = 0; i < record->values; i++)
        if (memcmp(&out[i], &record->wanted[i], 4) != 0)
            fail_msg("%s: value %u is %.9g, not %.9g", record->name, i, (double)out[i], (double)record->wanted[i]);
    free(out);
}

static void check_write(const Record *record) {
    uint8_t *out = MEM_ARRAY(uint8_t, record->bytes);
    assert_true(stored_encode(type_named(record->name + 1), record->wanted, record->values, out));
    for (uint32_t i = 0; i < record->bytes; i++)
        if (out[i] != record->stored[i])
            fail_msg("%s: byte %u is %d, not %d", record->name, i, out[i], record->stored[i]);
    free(out);
}

static void test_goldens(void **state) {
    (void)state;
    gzFile file = gzopen("tests/goldens/formats-goldens.bin.gz", "rb");
    assert_non_null(file);
    int read = 0, written = 0;
    for (Record record; record_read(file, &record); free(record.stored), free(record.wanted)) {
        if (record.name[0] == 'w')
            check_write(&record), written++;
        else
            check_read(&record), read++;
    }
    gzclose(file);
    assert_int_equal(read, 15);
    assert_int_equal(written, 5);
}

/* Values that a type can't hold are refused, not stored as infinities. */
static void test_too_large(void **state) {
    (void)state;
    static const StoredType WRITTEN[] = {STORED_F32, STORED_F16, STORED_BF16, STORED_Q8_0, STORED_Q4_0};
    static const float BAD[] = {1.0f / 0.0f, -1.0f / 0.0f, 0.0f / 0.0f};
    uint8_t out[128];
    for (size_t t = 0; t < 5; t++)
        for (size_t b = 0; b < 3; b++) {
            float values[32] = {0};
            assert_true(stored_encode(WRITTEN[t], values, 32, out));
            values[17] = BAD[b];
            assert_false(stored_encode(WRITTEN[t], values, 32, out));
        }
    float values[32] = {0};
    values[3] = 65520;
    assert_false(stored_encode(STORED_F16, values, 32, out));
    assert_true(stored_encode(STORED_BF16, values, 32, out) && stored_encode(STORED_Q8_0, values, 32, out));
    values[3] = 3.4e38f;
    assert_false(stored_encode(STORED_BF16, values, 32, out) || stored_encode(STORED_Q8_0, values, 32, out) ||
                 stored_encode(STORED_Q4_0, values, 32, out));
    values[3] = 1e-44f;
    assert_true(stored_encode(STORED_Q8_0, values, 32, out) && out[0] == 0 && out[1] == 0);
}

/* NaN and infinity are found in the scales of blocks, in any block of a row. */
static void test_bad_scales(void **state) {
    (void)state;
    static const struct {
        StoredType type;
        int bytes, values, at[2];
    } BLOCKS[] = {
        {STORED_Q4_0, 18, 32, {0, 0}},       {STORED_Q4_1, 20, 32, {0, 2}},   {STORED_Q5_0, 22, 32, {0, 0}},
        {STORED_Q5_1, 24, 32, {0, 2}},       {STORED_Q8_0, 34, 32, {0, 0}},   {STORED_Q2_K, 84, 256, {80, 82}},
        {STORED_Q3_K, 110, 256, {108, 108}}, {STORED_Q4_K, 144, 256, {0, 2}}, {STORED_Q5_K, 176, 256, {0, 2}},
        {STORED_Q6_K, 210, 256, {208, 208}}, {STORED_IQ4_NL, 18, 32, {0, 0}}, {STORED_IQ4_XS, 136, 256, {0, 0}},
        {STORED_F64, 8, 1, {6, 6}},          {STORED_E4M3, 1, 1, {0, 0}},
    };
    for (size_t b = 0; b < sizeof BLOCKS / sizeof *BLOCKS; b++)
        for (int k = 0; k < 2; k++) {
            uint8_t *bytes = MEM_ARRAY(uint8_t, 3 * BLOCKS[b].bytes + 1);
            float *out = MEM_ARRAY(float, 3 * BLOCKS[b].values);
            StoredTensor t = {
                .name = "t", .type = BLOCKS[b].type, .rows = 1, .cols = 3 * BLOCKS[b].values, .bytes = bytes};
            assert_true(stored_row(&t, 0, out));
            memset(bytes + BLOCKS[b].bytes + BLOCKS[b].at[k], 0xff, BLOCKS[b].bytes > 1 ? 2 : 1);
            if (stored_row(&t, 0, out)) fail_msg("type %d, scale %d: NaN passes", (int)BLOCKS[b].type, k);
            free(bytes), free(out);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_bad_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
