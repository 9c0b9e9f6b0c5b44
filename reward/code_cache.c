/* code_cache.c: compiled programs by content, kept in memory that nobody can change (sealed memfds).
 * Tested by tests/test_reward_code.c. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "reward/code.h"

enum { ENTRIES = 256 };
static const int64_t bytes_max = 256ll << 20;

typedef struct {
    XXH128_hash_t key;
    int program; /* -1: free */
    int64_t bytes;
    uint64_t used;
} Entry;

struct Cache {
    Entry entries[ENTRIES];
    int64_t bytes;
    uint64_t clock;
};

Cache *cache_new(void) {
    Cache *cache = MEM_NEW(Cache);
    for (int i = 0; i < ENTRIES; i++) cache->entries[i].program = -1;
    return cache;
}

static void entry_drop(Cache *cache, Entry *e) {
    if (e->program < 0) return;
    close(e->program);
    cache->bytes -= e->bytes;
    e->program = -1;
}

void cache_free(Cache *cache) {
    for (int i = 0; i < ENTRIES; i++) entry_drop(cache, &cache->entries[i]);
    free(cache);
}

static XXH128_hash_t key_of(const Job *job) {
    return XXH3_128bits_withSeed(job->code, strlen(job->code), (XXH64_hash_t)job->language->suffix[1] + 1);
}

int cache_get(Cache *cache, const Job *job) {
    XXH128_hash_t key = key_of(job);
    for (int i = 0; i < ENTRIES; i++) {
        Entry *e = &cache->entries[i];
        if (e->program < 0 || !XXH128_isEqual(e->key, key)) continue;
        e->used = ++cache->clock;
        return e->program;
    }
    return -1;
}

static Entry *oldest(Cache *cache) {
    Entry *found = NULL;
    for (int i = 0; i < ENTRIES; i++) {
        Entry *e = &cache->entries[i];
        if (e->program >= 0 && (!found || e->used < found->used)) found = e;
    }
    return found;
}

static Entry *room_make(Cache *cache, int64_t bytes) {
    for (Entry *e; cache->bytes + bytes > bytes_max && (e = oldest(cache));) entry_drop(cache, e);
    for (int i = 0; i < ENTRIES; i++)
        if (cache->entries[i].program < 0) return &cache->entries[i];
    Entry *e = oldest(cache);
    entry_drop(cache, e);
    return e;
}

void cache_put(Cache *cache, const Job *job, int program) {
    struct stat st;
    int64_t bytes = fstat(program, &st) == 0 ? (int64_t)st.st_size : 0;
    Entry *e = room_make(cache, bytes);
    *e = (Entry){key_of(job), program, bytes, ++cache->clock};
    cache->bytes += bytes;
}
