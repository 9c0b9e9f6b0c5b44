/* hash.c: k_hash: XXH3 (64 bits, no seed) of device memory, as xxHash's doc/xxhash_spec.md describes it for large
 * inputs.
 *
 * A stream goes in blocks of 1,024 bytes, sixteen stripes of eight 64-bit lanes. What a block's stripes add to the
 * lanes does not depend on what was before it: the device sums that for all blocks at once. What ties one block to
 * the next, a scramble of the lanes, is done here, and reads a sixteenth of the bytes. The last block, which is
 * never empty, ends otherwise: it waits in `bytes`. */
#include "kernels/cuda/host.h"

#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

enum { LANES = 8, STRIPE = 64, STRIPES = 16, BLOCK = STRIPES * STRIPE, SECRET = 192, SCRAMBLE = SECRET - STRIPE };

typedef struct {
    Dev *dev;
    unsigned char secret[SECRET];
    const void *secret_there; /* on the device */
    uint64_t lanes[LANES], total;
    unsigned char bytes[STRIPE + BLOCK]; /* the stripe before the block, the block */
    size_t n;                            /* bytes of the block */
} Stream;

static uint64_t word(const unsigned char *at) {
    uint64_t w;
    memcpy(&w, at, sizeof w);
    return w;
}

static void stripe_add(uint64_t lanes[LANES], const unsigned char *bytes, const unsigned char *secret) {
    for (int i = 0; i < LANES; i++) {
        uint64_t value = word(bytes + 8 * i), key = value ^ word(secret + 8 * i);
        lanes[i ^ 1] += value;
        lanes[i] += (key & 0xffffffffu) * (key >> 32);
    }
}

static void scramble(uint64_t lanes[LANES], const unsigned char *secret) {
    for (int i = 0; i < LANES; i++)
        lanes[i] = (lanes[i] ^ lanes[i] >> 47 ^ word(secret + SCRAMBLE + 8 * i)) * 0x9E3779B1u;
}

static void stripes_add(Stream *s, size_t n) {
    for (size_t i = 0; i < n; i++) stripe_add(s->lanes, s->bytes + STRIPE + i * STRIPE, s->secret + 8 * i);
}

static void fetch(Stream *s, unsigned char *to, const char *from, size_t n) {
    s->dev->ops->get(s->dev, to, (Ten){(void *)(uintptr_t)from, 1, (int)n, (int)n, K_I8});
}

static void blocks_add(Stream *s, const char *from, size_t blocks) {
    struct Cuda *cuda = s->dev->cuda;
    const size_t bytes = blocks * LANES * sizeof(uint64_t);
    uint64_t *there = dev_scratch(s->dev, WS_LT, LT_WORKSPACE);
    if (!cuda->sums)
        cuda_must(cudaMallocHost(&cuda->sums, HASH_BLOCKS * LANES * sizeof(uint64_t)), "pinned memory");
    cu_hash(cuda->stream, there, from, blocks, s->secret_there);
    cuda_must(cudaMemcpyAsync(cuda->sums, there, bytes, cudaMemcpyDeviceToHost, cuda->stream), "hash");
    s->dev->ops->sync(s->dev);
    const uint64_t *sums = cuda->sums;
    for (size_t b = 0; b < blocks; b++) {
        for (int i = 0; i < LANES; i++) s->lanes[i] += sums[b * LANES + (size_t)i];
        scramble(s->lanes, s->secret);
    }
}

static void stream_add(Stream *s, const char *from, size_t n) {
    s->total += n;
    for (size_t take; n; from += take, n -= take) {
        if (s->n == BLOCK) {
            stripes_add(s, STRIPES);
            scramble(s->lanes, s->secret);
            memcpy(s->bytes, s->bytes + BLOCK, STRIPE);
            s->n = 0;
        }
        if (s->n == 0 && n > BLOCK) {
            const size_t blocks = least_of((n - 1) / BLOCK, HASH_BLOCKS);
            blocks_add(s, from, blocks);
            take = blocks * BLOCK;
            fetch(s, s->bytes, from + take - STRIPE, STRIPE);
        } else {
            take = least_of(n, BLOCK - s->n);
            fetch(s, s->bytes + STRIPE + s->n, from, take);
            s->n += take;
        }
    }
}

static uint64_t folded(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t stream_end(Stream *s) {
    if (s->total <= BLOCK) return XXH3_64bits(s->bytes + STRIPE, s->n);
    stripes_add(s, (s->n - 1) / STRIPE);
    stripe_add(s->lanes, s->bytes + s->n, s->secret + SCRAMBLE - 7);
    uint64_t hash = s->total * 0x9E3779B185EBCA87u;
    for (int i = 0; i < LANES; i += 2)
        hash += folded(s->lanes[i] ^ word(s->secret + 11 + 8 * i), s->lanes[i + 1] ^ word(s->secret + 19 + 8 * i));
    hash = (hash ^ hash >> 37) * 0x165667919E3779F9u;
    return hash ^ hash >> 32;
}

/* Parts that lie one after the other are taken as one. */
uint64_t op_hash(Dev *dev, const Ten *parts, int n) {
    Stream s = {.dev = dev,
                .lanes = {0xC2B2AE3Du, 0x9E3779B185EBCA87u, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u,
                          0x85EBCA77C2B2AE63u, 0x85EBCA77u, 0x27D4EB2F165667C5u, 0x9E3779B1u}};
    XXH3_generateSecret_fromSeed(s.secret, 0);
    s.secret_there = upload(dev, s.secret, SECRET);
    const char *from = NULL, *end = NULL;
    for (int i = 0; i < n; i++) {
        const char *p = parts[i].p;
        if (p != end) {
            if (end) stream_add(&s, from, (size_t)(end - from));
            from = p;
        }
        end = p + (size_t)parts[i].rows * (size_t)parts[i].cols * dtype_size(parts[i].type);
    }
    if (end) stream_add(&s, from, (size_t)(end - from));
    return stream_end(&s);
}
