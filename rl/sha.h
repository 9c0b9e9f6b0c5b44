/* sha.h: SHA-1 and SHA-256 (FIPS 180-4), by which model hubs name their files. For finding damage, not for
 * secrets.
 *
 * Knows: bytes. Must never know: files, networks. Ownership: a Sha is the caller's, and holds no memory.
 * Tested by tests/test_rl_sha.c.
 */
#ifndef WHET_RL_SHA_H
#define WHET_RL_SHA_H

#include "kernels/base.h"

typedef struct {
    uint32_t h[8];
    int words; /* of the result: 5 or 8 */
    uint8_t block[64];
    uint64_t n; /* bytes so far */
} Sha;

void sha1_begin(Sha *sha);
void sha256_begin(Sha *sha);
void sha_add(Sha *sha, const void *bytes, size_t n);
/* Writes the hash in hexadecimal (40 or 64 digits and a NUL); the Sha is spent. */
void sha_end(Sha *sha, char hex[65]);

#endif
