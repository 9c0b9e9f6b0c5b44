/* memory.c: the device's memory, and the shadow that remembers who touched what.
 *
 * Addresses come from a region that is reserved without access, so that a host that follows one faults; the bytes
 * lie elsewhere. An address is aligned to 256 bytes and to no more, and is never given twice.
 *
 * Two accesses to the same bytes, one of them a write, race unless something orders them: a barrier of the block,
 * a bar.warp.sync that both lanes took part in, or the end of the kernel. Two atomics do not race. The shadow
 * holds for each two bytes the last writer and enough of the last readers (see Cell) to find a race with any of
 * them: the latest reading warp with its lanes, the latest other warp of the same block, and the latest other
 * block. Accesses of one byte are not followed. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/ptx/core.h"

enum { PAGE_BITS = 12, REGION_BITS = 38, CELL_PAGE = 2048 };
#define REGION (1ull << REGION_BITS)

size_t ptx_device_bytes = (size_t)8 << 30;
static char *region;
static uint32_t *pages; /* 1 + allocation of each page */
static uint64_t used;   /* of the region */
static Alloc **allocs;
static int n_allocs;
static size_t live, peak;
static pthread_mutex_t cells_lock = PTHREAD_MUTEX_INITIALIZER;

static void region_open(void) {
    if (region) return;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    region = mmap(NULL, REGION, PROT_NONE, flags, -1, 0);
    pages = mmap(NULL, (REGION >> PAGE_BITS) * sizeof *pages, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (region == MAP_FAILED || pages == MAP_FAILED) {
        fprintf(stderr, "ptx: cannot reserve addresses for the device's memory\n");
        abort();
    }
    used = 1 << PAGE_BITS;
}

uint64_t ptx_alloc(size_t bytes) {
    region_open();
    if (bytes == 0 || bytes > ptx_device_bytes - live) return 0;
    uint64_t span = (bytes + 512 + (2ull << PAGE_BITS) - 1) >> PAGE_BITS << PAGE_BITS;
    if (used + span > REGION) return 0;
    Alloc *a = calloc(1, sizeof *a);
    allocs = realloc(allocs, (size_t)(n_allocs + 1) * sizeof *allocs);
    if (!a || !allocs) abort();
    a->address = (uint64_t)(uintptr_t)region + used + 256;
    a->bytes = bytes;
    a->number = n_allocs;
    a->data = malloc(bytes);
    a->written = calloc(1, bytes + 16);
    a->cells = calloc((bytes >> PAGE_BITS) + 2, sizeof *a->cells);
    if (!a->data || !a->written || !a->cells) abort();
    if (bytes < (64u << 20)) memset(a->data, 0xff, bytes); /* NaN, should anyone see it */
    for (uint64_t at = used; at < used + span; at += 1 << PAGE_BITS)
        pages[at >> PAGE_BITS] = (uint32_t)n_allocs + 1;
    allocs[n_allocs++] = a;
    used += span;
    live += bytes;
    if (live > peak) peak = live;
    return a->address;
}

Alloc *alloc_find(uint64_t address) {
    uint64_t at = address - (uint64_t)(uintptr_t)region;
    if (!region || at >= REGION || !pages[at >> PAGE_BITS]) return NULL;
    return allocs[pages[at >> PAGE_BITS] - 1];
}

static void release(Alloc *a) {
    for (size_t i = 0; i < (a->bytes >> PAGE_BITS) + 2; i++) free(a->cells[i]);
    free(a->data), free(a->written), free(a->cells);
    a->data = NULL, a->written = NULL, a->cells = NULL;
    a->freed = true;
    live -= a->bytes;
}

const char *ptx_free(uint64_t address) {
    Alloc *a = alloc_find(address);
    if (!a || a->address != address) return "freed: not the beginning of an allocation";
    if (a->freed) return "freed: memory is freed twice";
    release(a);
    return NULL;
}

static __attribute__((destructor)) void all_free(void) { /* for the leak checker */
    for (int i = 0; i < n_allocs; i++) {
        if (!allocs[i]->freed) release(allocs[i]);
        free(allocs[i]);
    }
    free(allocs);
    allocs = NULL, n_allocs = 0;
}

void *ptx_memory(uint64_t address, size_t bytes, const char **why) {
    Alloc *a = alloc_find(address);
    if (!a || address < a->address || address - a->address > a->bytes ||
        bytes > a->bytes - (address - a->address)) {
        *why = "bounds-global: outside of every allocation";
        return NULL;
    }
    if (a->freed) {
        *why = "freed: use of freed memory";
        return NULL;
    }
    return a->data + (address - a->address);
}

void ptx_mark(uint64_t address, size_t bytes, bool written) {
    Alloc *a = alloc_find(address);
    memset(a->written + (address - a->address), written, bytes);
}

bool ptx_written(uint64_t address, size_t bytes, size_t *first) {
    Alloc *a = alloc_find(address);
    const uint8_t *w = a->written + (address - a->address), *hole = memchr(w, 0, bytes);
    if (hole) *first = (size_t)(hole - w);
    return !hole;
}

void ptx_copy_marks(uint64_t to, uint64_t from, size_t bytes) {
    Alloc *a = alloc_find(to), *b = alloc_find(from);
    memmove(a->written + (to - a->address), b->written + (from - b->address), bytes);
}

bool ptx_is_device(const void *p) { return region && (uint64_t)((const char *)p - region) < REGION; }
size_t ptx_allocated(void) { return live; }
size_t ptx_peak(void) { return peak; }

const char *ptx_describe(uint64_t address) {
    static _Thread_local char text[160];
    Alloc *a = alloc_find(address);
    if (!a)
        snprintf(text, sizeof text, "0x%llx, which is near no allocation", (unsigned long long)address);
    else
        snprintf(text, sizeof text, "byte %lld of the %llu of allocation %d%s", (long long)(address - a->address),
                 (unsigned long long)a->bytes, a->number, a->freed ? ", which is freed" : "");
    return text;
}

/* ---- the shadow ---- */

/* Does an access of this thread come after what thread (warp, lane) of the same block did at that time? */
static bool after(const Warp *w, int lane, int other_warp, int other_lane, uint32_t time) {
    if (w->b->last_bar > time) return true;
    if (other_warp != w->index) return false;
    return other_lane == lane || w->sync_full > time || w->sync[lane][other_lane] > time;
}

static const char *race_with_writer(const Warp *w, int lane, const Cell *c, Access a, uint32_t serial0) {
    if (c->wserial <= serial0 || (a == ACCESS_ATOMIC && c->watomic)) return NULL;
    if (c->wserial != w->b->serial) return "another block wrote";
    return after(w, lane, c->wtid >> 5, c->wtid & 31, c->wtime) ? NULL : "another thread wrote";
}

static const char *race_with_reader(const Warp *w, int lane, const Cell *c, uint32_t serial0) {
    uint32_t me = w->b->serial;
    if (c->rserial > serial0 && c->rserial != me) return "another block read";
    if (c->r3serial > serial0 && c->r3serial != me) return "another block read";
    if (c->rserial != me) return NULL;
    uint32_t others = c->rwarp == w->index ? c->rmask & ~(1u << lane) : c->rmask;
    for (; others; others &= others - 1)
        if (!after(w, lane, c->rwarp, __builtin_ctz(others), c->rtime)) return "another thread read";
    bool second = c->r2time && c->r2warp != w->index && w->b->last_bar <= c->r2time;
    return second ? "another thread read" : NULL;
}

static void note_read(const Warp *w, int lane, Cell *c) {
    const Block *b = w->b;
    if (c->rserial != b->serial) {
        c->r3serial = c->rserial; /* 0 at first: no block has that number */
        c->r2time = 0, c->rmask = 0, c->rserial = b->serial;
    } else if (c->rwarp != w->index) {
        c->r2warp = c->rwarp, c->r2time = c->rtime, c->rmask = 0;
    } else if (w->sync_full > c->rtime || b->last_bar > c->rtime) {
        c->rmask = 0;
    }
    c->rwarp = (uint8_t)w->index;
    c->rmask |= 1u << lane;
    c->rtime = b->clock;
}

static void note_write(const Warp *w, int lane, Cell *c, Access a) {
    c->wserial = w->b->serial;
    c->wtime = w->b->clock;
    c->wtid = (uint16_t)(w->index << 5 | lane);
    c->watomic = a == ACCESS_ATOMIC;
}

static const char *access_cell(Warp *w, int lane, Cell *c, Access a) {
    uint32_t serial0 = w->b->l->serial0;
    const char *race = race_with_writer(w, lane, c, a, serial0);
    if (!race && a != ACCESS_READ)
        race = a == ACCESS_ATOMIC && c->watomic ? NULL : race_with_reader(w, lane, c, serial0);
    if (race) return race;
    if (a == ACCESS_READ)
        note_read(w, lane, c);
    else
        note_write(w, lane, c, a);
    return NULL;
}

static const char *const verbs[] = {"reads", "writes", "atomically changes"};

/* The cell of a byte of shared memory; what earlier blocks did there is forgotten. */
static Cell *shared_cell(const Warp *w, uint32_t off) {
    Cell *c = &w->b->cells[off >> 1];
    if (c->wserial != w->b->serial) c->wserial = 0, c->async = 0;
    if (c->rserial != w->b->serial) c->rserial = 0;
    c->r3serial = 0;
    return c;
}

void shadow_shared(Warp *w, int lane, uint32_t off, int bytes, Access a) {
    for (int i = 0; i + 1 < bytes || i == 0; i += 2) {
        Cell *c = shared_cell(w, off + (uint32_t)i);
        if (c->async)
            ptx_stop(w, 1u << lane, "cp-async",
                     "%s byte %u of shared memory, which a cp.async of warp %d still fills", verbs[a],
                     off + (uint32_t)i, c->async - 1);
        if (bytes < 2) continue;
        const char *race = access_cell(w, lane, c, a);
        if (race)
            ptx_stop(w, 1u << lane, "race-shared",
                     "%s byte %u of shared memory, which %s, and nothing orders them", verbs[a], off + (uint32_t)i,
                     race);
    }
}

/* A cp.async begins (nobody may still read what it overwrites), or has landed. */
void shadow_async(Warp *w, int lane, uint32_t off, int bytes, bool begins) {
    for (int i = 0; i < bytes; i += 2) {
        Cell *c = shared_cell(w, off + (uint32_t)i);
        if (begins) {
            if (c->async)
                ptx_stop(w, 1u << lane, "cp-async", "two cp.async fill byte %u of shared memory",
                         off + (uint32_t)i);
            const char *race = access_cell(w, lane, c, ACCESS_WRITE);
            if (race)
                ptx_stop(w, 1u << lane, "race-shared",
                         "a cp.async writes byte %u, which %s, and nothing orders them", off + (uint32_t)i, race);
            c->async = (uint8_t)(w->index + 1);
        } else {
            c->async = 0;
            note_write(w, lane, c, ACCESS_WRITE);
        }
    }
}

void shadow_global(Warp *w, int lane, Alloc *al, uint64_t off, int bytes, Access a) {
    if (bytes < 2) return;
    Cell **page = &al->cells[off >> PAGE_BITS];
    bool shared = ptx_options.threads > 1;
    if (shared) pthread_mutex_lock(&cells_lock);
    if (!*page) *page = calloc(CELL_PAGE, sizeof **page);
    if (!*page) abort();
    const char *race = NULL;
    int i = 0;
    for (; i < bytes && !race; i += 2)
        race = access_cell(w, lane, &(*page)[((off + (uint64_t)i) & ((1 << PAGE_BITS) - 1)) >> 1], a);
    if (shared) pthread_mutex_unlock(&cells_lock);
    if (race)
        ptx_stop(w, 1u << lane, "race-global", "%s %s, which %s in this launch", verbs[a],
                 ptx_describe(al->address + off + (uint64_t)i - 2), race);
}
