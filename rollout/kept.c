/* kept.c: sets of kept ids as bytes. Not here: how they come about (k_sample) and what they do (k_logprob).
 * Tested by tests/test_rollout_kept.c. */
#include "rollout/rollout.h"

#include <string.h>

static void number_write(Buf *out, uint32_t n) {
    for (; n >= 0x80; n >>= 7) buf_char(out, (char)((n & 0x7f) | 0x80));
    buf_char(out, (char)n);
}

/* NULL: the bytes end inside of it, or it is larger than any id. */
static const unsigned char *number_read(const unsigned char *at, const unsigned char *end, int *n) {
    uint32_t value = 0;
    for (int shift = 0; at < end && shift < 28; shift += 7) {
        value |= (uint32_t)(*at & 0x7f) << shift;
        if (*at++ & 0x80) continue;
        *n = (int)value;
        return at;
    }
    return NULL;
}

static bool has(const int32_t *bits, int id) { return (uint32_t)bits[id / 32] >> id % 32 & 1; }

/* The first id from `id` on that is kept, or is not, as asked; vocab when there is none. */
static int next(const int32_t *bits, int id, int vocab, bool kept) {
    while (id < vocab && has(bits, id) != kept) id += id % 32 == 0 && bits[id / 32] == (kept ? 0 : -1) ? 32 : 1;
    return id < vocab ? id : vocab;
}

void kept_write(Buf *out, const int32_t *bits, int vocab) {
    uint32_t runs = 0;
    for (int id = next(bits, 0, vocab, true); id < vocab; runs++)
        id = next(bits, next(bits, id, vocab, false), vocab, true);
    number_write(out, runs);
    for (int id = next(bits, 0, vocab, true), last = 0; id < vocab;) {
        int end = next(bits, id, vocab, false);
        number_write(out, (uint32_t)(id - last));
        number_write(out, (uint32_t)(end - id - 1));
        last = end, id = next(bits, end, vocab, true);
    }
}

const unsigned char *kept_read(const unsigned char *at, const unsigned char *end, int32_t *bits, int vocab) {
    int runs, id = 0, gap, more;
    if (bits) memset(bits, 0, (size_t)KEPT_WORDS(vocab) * sizeof *bits);
    at = number_read(at, end, &runs);
    for (; at && runs > 0; runs--) {
        at = number_read(at, end, &gap);
        if (at) at = number_read(at, end, &more);
        if (!at || gap >= vocab - id || more >= vocab - id - gap) return NULL;
        id += gap;
        for (int last = id + more; id <= last; id++)
            if (bits) bits[id / 32] |= (int32_t)(1u << id % 32);
    }
    return at;
}

bool kept_index(size_t *at, const unsigned char *kept, size_t bytes, int n, int vocab) {
    const unsigned char *p = kept, *end = kept + bytes;
    for (int t = 0; t < n && p; t++) {
        at[t] = (size_t)(p - kept);
        p = kept_read(p, end, NULL, vocab);
    }
    return p == end;
}
