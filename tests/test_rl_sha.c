/* test_rl_sha.c: SHA-1 and SHA-256 against the examples of FIPS 180 and hashlib, in pieces of every size. */
#include "rl/sha.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

static void check(void (*begin)(Sha *), const char *text, size_t n, const char *wanted) {
    for (size_t piece = 1; piece < 140; piece += 23) {
        Sha sha;
        char hex[65];
        begin(&sha);
        for (size_t at = 0; at < n; at += piece) sha_add(&sha, text + at, n - at < piece ? n - at : piece);
        sha_end(&sha, hex);
        assert_string_equal(hex, wanted);
    }
}

static void test_examples(void **state) {
    (void)state;
    static const char LONG[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static char many[1000000];
    memset(many, 'a', sizeof many);
    check(sha1_begin, "", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check(sha1_begin, "abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d");
    check(sha1_begin, LONG, sizeof LONG - 1, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    check(sha1_begin, many, sizeof many, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    check(sha256_begin, "", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check(sha256_begin, "abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check(sha256_begin, LONG, sizeof LONG - 1, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check(sha256_begin, many, sizeof many, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
