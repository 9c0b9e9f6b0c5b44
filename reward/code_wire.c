/* code_wire.c: messages between the caller and the worker, as bytes. Both ends are the same program, so numbers
 * are in the machine's order. Tested by tests/test_reward_code.c. */
#include <stdlib.h>
#include <string.h>

#include "reward/code.h"

static const uint32_t no_text = UINT32_MAX;

void wire_begin(Buf *buf, char letter, size_t *start) {
    *start = buf->n;
    wire_u32(buf, 0);
    buf_char(buf, letter);
}

void wire_end(Buf *buf, size_t start) {
    uint32_t n = (uint32_t)(buf->n - start - 4);
    memcpy(buf->p + start, &n, 4);
}

void wire_u32(Buf *buf, uint32_t value) { buf_add(buf, &value, 4); }

void wire_f64(Buf *buf, double value) { buf_add(buf, &value, 8); }

void wire_text(Buf *buf, const char *text) {
    wire_u32(buf, text ? (uint32_t)strlen(text) : no_text);
    if (text) buf_text(buf, text);
}

bool wire_next(const Buf *in, size_t *at, char *letter, WireReader *reader) {
    uint32_t n;
    if (in->n - *at < 5) return false;
    memcpy(&n, in->p + *at, 4);
    if (in->n - *at - 4 < n) return false;
    *letter = in->p[*at + 4];
    *reader = (WireReader){in->p + *at + 5, in->p + *at + 4 + n, false};
    *at += 4 + (size_t)n;
    return true;
}

static void take(WireReader *r, void *to, size_t n) {
    if ((size_t)(r->end - r->p) < n) {
        r->bad = true;
        memset(to, 0, n);
        return;
    }
    memcpy(to, r->p, n);
    r->p += n;
}

uint32_t wire_read_u32(WireReader *r) {
    uint32_t value;
    take(r, &value, 4);
    return value;
}

double wire_read_f64(WireReader *r) {
    double value;
    take(r, &value, 8);
    return value;
}

char *wire_read_text(WireReader *r) {
    uint32_t n = wire_read_u32(r);
    if (r->bad || n == no_text) return NULL;
    if ((size_t)(r->end - r->p) < n) {
        r->bad = true;
        return NULL;
    }
    char *text = mem_text_n(r->p, n);
    r->p += n;
    return text;
}
