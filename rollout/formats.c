/* formats.c: the number formats of stored tensors: rows decoded to float32, and encoded for writing.
 *
 * Decoding gives the bits of the gguf package's dequantisation (the same operations in the same order) and finds
 * NaN and infinity on the way. It knows neither files nor names. Tested by tests/test_rollout_formats.c.
 *
 * Bytes may lie at any address, hence memcpy. Loops are plain enough for the compiler to vectorise.
 */
#include "rollout/internal.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, SUPER = 256 }; /* values of a quantised block, and of one of the K family */

static float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Finite halves only: shifting the fields into place and scaling by 2^112 is exact, subnormals included. */
static float half_to_float(uint16_t half) {
    float magnitude = bits_to_float((uint32_t)(half & 0x7fff) << 13) * 0x1p112f;
    return half & 0x8000 ? -magnitude : magnitude;
}

static bool half_is_finite(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

/* The half at p; *bad is set when it is NaN or infinite. */
static float half_at(const uint8_t *p, bool *bad) {
    uint16_t half;
    memcpy(&half, p, 2);
    *bad |= !half_is_finite(half);
    return half_to_float(half);
}

/* ---- plain numbers ---- */

static bool row_f32(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    memcpy(out, in, (size_t)n * 4);
    for (int i = 0; i < n; i++) bad |= (float_to_bits(out[i]) & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

/* A double that no float32 can hold is as bad as an infinity. */
static bool row_f64(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) {
        double value;
        memcpy(&value, in + 8 * (size_t)i, 8);
        out[i] = (float)value;
        bad |= (float_to_bits(out[i]) & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

static bool row_bf16(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, in + 2 * (size_t)i, 2);
        bad |= (half & 0x7f80u) == 0x7f80u;
        out[i] = bits_to_float((uint32_t)half << 16);
    }
    return !bad;
}

static bool row_f16(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int i = 0; i < n; i++) out[i] = half_at(in + 2 * (size_t)i, &bad);
    return !bad;
}

/* Sign, four bits of exponent (bias 7), three of mantissa; no infinities, one NaN of each sign. Moving the fields
 * to float32's place and scaling by 2^120 is exact, subnormals included. */
static bool row_e4m3(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) {
        bad |= (in[i] & 0x7f) == 0x7f;
        float magnitude = bits_to_float((uint32_t)(in[i] & 0x7f) << 20) * 0x1p120f;
        out[i] = in[i] & 0x80 ? -magnitude : magnitude;
    }
    return !bad;
}

/* ---- blocks of 32: a half as the scale; low nibbles are the first half of the block ---- */

/* Q4_0 is {d, 16 bytes}: value = (nibble - 8) * d. */
static bool row_q4_0(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 18, out += BLOCK) {
        float d = half_at(in, &bad);
        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)((in[2 + i] & 15) - 8) * d;
            out[i + BLOCK / 2] = (float)((in[2 + i] >> 4) - 8) * d;
        }
    }
    return !bad;
}

/* Q4_1 is {d, m, 16 bytes}: value = nibble * d + m. */
static bool row_q4_1(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 20, out += BLOCK) {
        float d = half_at(in, &bad), m = half_at(in + 2, &bad);
        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)(in[4 + i] & 15) * d + m;
            out[i + BLOCK / 2] = (float)(in[4 + i] >> 4) * d + m;
        }
    }
    return !bad;
}

/* The five bits of value i: a nibble, and a bit of a 32-bit word. */
static int five_bits(const uint8_t *nibbles, uint32_t high, int i) {
    int low = i < BLOCK / 2 ? nibbles[i] & 15 : nibbles[i - BLOCK / 2] >> 4;
    return low | (int)(high >> i & 1) << 4;
}

/* Q5_0 is {d, 32 high bits, 16 bytes}: value = (five bits - 16) * d. */
static bool row_q5_0(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 22, out += BLOCK) {
        float d = half_at(in, &bad);
        uint32_t high;
        memcpy(&high, in + 2, 4);
        for (int i = 0; i < BLOCK; i++) out[i] = (float)(five_bits(in + 6, high, i) - 16) * d;
    }
    return !bad;
}

/* Q5_1 is {d, m, 32 high bits, 16 bytes}: value = five bits * d + m. */
static bool row_q5_1(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 24, out += BLOCK) {
        float d = half_at(in, &bad), m = half_at(in + 2, &bad);
        uint32_t high;
        memcpy(&high, in + 4, 4);
        for (int i = 0; i < BLOCK; i++) out[i] = (float)five_bits(in + 8, high, i) * d + m;
    }
    return !bad;
}

/* Q8_0 is {d, 32 signed bytes}: value = byte * d. */
static bool row_q8_0(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 34, out += BLOCK) {
        float d = half_at(in, &bad);
        for (int i = 0; i < BLOCK; i++) out[i] = (float)(int8_t)in[2 + i] * d;
    }
    return !bad;
}

static const int8_t CURVE[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* IQ4_NL is {d, 16 bytes}: a nibble picks one of 16 values that lie closer around zero. */
static bool row_iq4_nl(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / BLOCK; b++, in += 18, out += BLOCK) {
        float d = half_at(in, &bad);
        for (int i = 0; i < BLOCK / 2; i++) {
            out[i] = (float)CURVE[in[2 + i] & 15] * d;
            out[i + BLOCK / 2] = (float)CURVE[in[2 + i] >> 4] * d;
        }
    }
    return !bad;
}

/* ---- blocks of 256: sub-blocks of 16 or 32 values with small integer scales of their own ---- */

/* Q2_K is {16 bytes: scale and least, a nibble each; 64 bytes of two bits; d; dmin}. */
static bool row_q2_k(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / SUPER; b++, in += 84, out += SUPER) {
        float d = half_at(in + 80, &bad), least = half_at(in + 82, &bad);
        for (int s = 0; s < 16; s++) {
            float scale = d * (float)(in[s] & 15), m = least * (float)(in[s] >> 4);
            const uint8_t *q = in + 16 + 32 * (s / 8) + 16 * (s % 2);
            for (int i = 0; i < 16; i++) out[16 * s + i] = scale * (float)(q[i] >> 2 * (s / 2 % 4) & 3) - m;
        }
    }
    return !bad;
}

/* Q3_K is {32 bytes of high bits, 64 bytes of two low bits, 12 bytes of six-bit scales, d}; a high bit that is not
 * set takes four away. */
static bool row_q3_k(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / SUPER; b++, in += 110, out += SUPER) {
        const uint8_t *packed = in + 96;
        float d = half_at(in + 108, &bad);
        for (int s = 0; s < 16; s++) {
            int low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4, high = packed[8 + s % 4] >> 2 * (s / 4) & 3;
            float scale = d * (float)((low | high << 4) - 32);
            const uint8_t *q = in + 32 + 32 * (s / 8) + 16 * (s % 2), *h = in + 16 * (s % 2);
            for (int i = 0; i < 16; i++)
                out[16 * s + i] = scale * (float)((q[i] >> 2 * (s / 2 % 4) & 3) - (h[i] >> s / 2 & 1 ? 0 : 4));
        }
    }
    return !bad;
}

/* The six-bit scale and least of sub-block s of 8, out of the 12 bytes that Q4_K and Q5_K share. */
static void six_bits(const uint8_t *packed, int s, int *scale, int *least) {
    if (s < 4) {
        *scale = packed[s] & 63;
        *least = packed[4 + s] & 63;
    } else {
        *scale = (packed[4 + s] & 15) | (packed[s - 4] >> 6) << 4;
        *least = packed[4 + s] >> 4 | (packed[s] >> 6) << 4;
    }
}

/* Q4_K is {d, dmin, 12 bytes of scales, 128 bytes of nibbles}. */
static bool row_q4_k(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / SUPER; b++, in += 144, out += SUPER) {
        float d = half_at(in, &bad), dmin = half_at(in + 2, &bad);
        for (int s = 0; s < 8; s++) {
            int scale, least;
            six_bits(in + 4, s, &scale, &least);
            float a = d * (float)scale, m = dmin * (float)least;
            const uint8_t *q = in + 16 + 32 * (s / 2);
            for (int i = 0; i < 32; i++) out[32 * s + i] = a * (float)(q[i] >> 4 * (s % 2) & 15) - m;
        }
    }
    return !bad;
}

/* Q5_K is {d, dmin, 12 bytes of scales, 32 bytes of high bits, 128 bytes of nibbles}. */
static bool row_q5_k(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / SUPER; b++, in += 176, out += SUPER) {
        float d = half_at(in, &bad), dmin = half_at(in + 2, &bad);
        for (int s = 0; s < 8; s++) {
            int scale, least;
            six_bits(in + 4, s, &scale, &least);
            float a = d * (float)scale, m = dmin * (float)least;
            const uint8_t *h = in + 16, *q = in + 48 + 32 * (s / 2);
            for (int i = 0; i < 32; i++)
                out[32 * s + i] = a * (float)((q[i] >> 4 * (s % 2) & 15) | (h[i] >> s & 1) << 4) - m;
        }
    }
    return !bad;
}

/* Q6_K is {128 bytes of nibbles, 64 bytes of two high bits, 16 signed scales, d}. */
static bool row_q6_k(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / SUPER; b++, in += 210, out += SUPER) {
        float d = half_at(in + 208, &bad);
        for (int s = 0; s < 16; s++) {
            float scale = d * (float)(int8_t)in[192 + s];
            const uint8_t *low = in + 64 * (s / 8) + 16 * (s % 4), *high = in + 128 + 32 * (s / 8) + 16 * (s % 2);
            for (int i = 0; i < 16; i++)
                out[16 * s + i] =
                    scale *
                    (float)(((low[i] >> 4 * (s / 4 % 2) & 15) | (high[i] >> 2 * (s / 2 % 4) & 3) << 4) - 32);
        }
    }
    return !bad;
}

/* Q8_K is {d as float32, 256 signed bytes, 16 sums of no use here}. */
static bool row_q8_k(const uint8_t *in, int n, float *out) {
    uint32_t bad = 0;
    for (int b = 0; b < n / SUPER; b++, in += 292, out += SUPER) {
        float d;
        memcpy(&d, in, 4);
        for (int i = 0; i < SUPER; i++) {
            out[i] = (float)(int8_t)in[4 + i] * d;
            bad |= (float_to_bits(out[i]) & 0x7f800000u) == 0x7f800000u;
        }
    }
    return !bad;
}

/* IQ4_XS is {d, 16 bits and 4 bytes of scales, 128 bytes of nibbles}, the values those of IQ4_NL. */
static bool row_iq4_xs(const uint8_t *in, int n, float *out) {
    bool bad = false;
    for (int b = 0; b < n / SUPER; b++, in += 136, out += SUPER) {
        float d = half_at(in, &bad);
        uint16_t high;
        memcpy(&high, in + 2, 2);
        for (int s = 0; s < 8; s++) {
            int scale = (in[4 + s / 2] >> 4 * (s % 2) & 15) | (high >> 2 * s & 3) << 4;
            float a = d * (float)(scale - 32);
            const uint8_t *q = in + 8 + 16 * s;
            for (int i = 0; i < 16; i++) {
                out[32 * s + i] = a * (float)CURVE[q[i] & 15];
                out[32 * s + 16 + i] = a * (float)CURVE[q[i] >> 4];
            }
        }
    }
    return !bad;
}

/* ---- the table ---- */

static const struct {
    int values, bytes; /* of one block */
    bool (*row)(const uint8_t *in, int n, float *out);
} FORMATS[] = {
    [STORED_F32] = {1, 4, row_f32},
    [STORED_F64] = {1, 8, row_f64},
    [STORED_F16] = {1, 2, row_f16},
    [STORED_BF16] = {1, 2, row_bf16},
    [STORED_E4M3] = {1, 1, row_e4m3},
    [STORED_Q4_0] = {BLOCK, 18, row_q4_0},
    [STORED_Q4_1] = {BLOCK, 20, row_q4_1},
    [STORED_Q5_0] = {BLOCK, 22, row_q5_0},
    [STORED_Q5_1] = {BLOCK, 24, row_q5_1},
    [STORED_Q8_0] = {BLOCK, 34, row_q8_0},
    [STORED_Q2_K] = {SUPER, 84, row_q2_k},
    [STORED_Q3_K] = {SUPER, 110, row_q3_k},
    [STORED_Q4_K] = {SUPER, 144, row_q4_k},
    [STORED_Q5_K] = {SUPER, 176, row_q5_k},
    [STORED_Q6_K] = {SUPER, 210, row_q6_k},
    [STORED_Q8_K] = {SUPER, 292, row_q8_k},
    [STORED_IQ4_NL] = {BLOCK, 18, row_iq4_nl},
    [STORED_IQ4_XS] = {SUPER, 136, row_iq4_xs},
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

/* ---- encoding ---- */

/* Rounded to nearest even. Adding a power of two whose last bit is the half's last bit rounds subnormals. */
static uint16_t float_to_half(float value) {
    uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds to 2^16 or more */
    if (magnitude < 0x38800000)
        return (uint16_t)(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) & 0xffff));
    return (uint16_t)(sign | (((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112u << 10)));
}

static bool put_half(float value, uint8_t *out) {
    uint16_t half = float_to_half(value);
    memcpy(out, &half, 2);
    return half_is_finite(half);
}

/* A block whose scale is nothing, or so small that its half is zero anyway, is all zeros. */
static float inverse_of(float d) { return fabsf(d) < 0x1p-126f ? 0 : 1.0f / d; }

static bool block_q8_0(const float *in, uint8_t *out) {
    float most = 0;
    for (int i = 0; i < BLOCK; i++) most = fabsf(in[i]) > most ? fabsf(in[i]) : most;
    float d = most / 127.0f, inverse = inverse_of(d);
    for (int i = 0; i < BLOCK; i++) out[2 + i] = (uint8_t)(int8_t)roundf(in[i] * inverse);
    return put_half(d, out);
}

/* The value farthest from zero, with its sign, becomes -8. */
static bool block_q4_0(const float *in, uint8_t *out) {
    float most = in[0];
    for (int i = 1; i < BLOCK; i++) most = fabsf(in[i]) > fabsf(most) ? in[i] : most;
    float d = most / -8.0f, inverse = inverse_of(d);
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = (int)(in[i] * inverse + 8.5f), high = (int)(in[i + BLOCK / 2] * inverse + 8.5f);
        out[2 + i] = (uint8_t)((low > 15 ? 15 : low) | (high > 15 ? 15 : high) << 4);
    }
    return put_half(d, out);
}

bool stored_encode(StoredType type, const float *in, size_t n, uint8_t *out) {
    CHECK(type == STORED_F32 || type == STORED_F16 || type == STORED_BF16 || type == STORED_Q8_0 ||
              type == STORED_Q4_0,
          "type %d can't be written", (int)type);
    CHECK(n % (size_t)FORMATS[type].values == 0, "%zu values are no whole blocks", n);
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (float_to_bits(in[i]) & 0x7f800000u) == 0x7f800000u;
    if (bad) return false;
    bool ok = true;
    if (type == STORED_F32) memcpy(out, in, n * 4);
    if (type == STORED_F16)
        for (size_t i = 0; i < n; i++) ok &= put_half(in[i], out + 2 * i);
    if (type == STORED_BF16)
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = float_to_bits(in[i]);
            uint16_t half = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
            ok &= (half & 0x7f80) != 0x7f80;
            memcpy(out + 2 * i, &half, 2);
        }
    if (type == STORED_Q8_0)
        for (size_t i = 0; i < n / BLOCK; i++) ok &= block_q8_0(in + i * BLOCK, out + i * 34);
    if (type == STORED_Q4_0)
        for (size_t i = 0; i < n / BLOCK; i++) ok &= block_q4_0(in + i * BLOCK, out + i * 18);
    return ok;
}
