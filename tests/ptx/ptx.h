/* ptx.h: runs the PTX that nvcc prints for whet's kernels on the CPU, and checks them while it runs.
 *
 * A test tool, no part of whet. A module is one .ptx file; its kernels run block by block and warp by warp, 32
 * lanes in lock step, a register being a row of 32 values. An instruction that is not known stops the loading with
 * its text. Each of these stops a launch, with a message that begins with the name of the check:
 *
 *   bounds-global  bounds-shared  bounds-local  bounds-param  misaligned  freed  read-only
 *   uninit-global  uninit-shared  uninit-local
 *   race-shared    race-global    cp-async      (memory touched between cp.async and its wait)
 *   divergent      (a collective that not all lanes of its mask reach, or a lane outside its own mask)
 *   barrier        (a barrier in divergent code, missed by a thread, or two different ones)   endless
 *   limit          (launch limits)              trap        (trap, assert)
 *
 * Order of warps and blocks, the preemption of warps, the moment at which a cp.async lands, the order of the sums
 * of mma.sync and of atomics, and the last bits of approximate functions follow from a seed.
 *
 * Device memory (ptx_alloc) lies at addresses that the host may not touch: the host reads and writes it through
 * ptx_memory. Addresses are never used twice. Sources: PTX ISA 9.0, CUDA C++ Programming Guide 13.0. */
#ifndef TESTS_PTX_H
#define TESTS_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct PtxModule PtxModule;
typedef struct PtxKernel PtxKernel;

/* All of these return NULL, or the text of what is wrong (static, until the next call on this thread). */
const char *ptx_load(PtxModule **out, const char *path);
const char *ptx_load_text(PtxModule **out, const char *name, const char *text);
void ptx_unload(PtxModule *m);
PtxKernel *ptx_kernel(PtxModule *m, const char *name); /* NULL: no such kernel. A name's part will do if unique */
const char *ptx_kernel_name(const PtxKernel *k);
int ptx_kernel_count(const PtxModule *m);
PtxKernel *ptx_kernel_at(PtxModule *m, int i);
int ptx_params(const PtxKernel *k);                                /* number of parameters */
void ptx_param(const PtxKernel *k, int i, int *offset, int *size); /* of parameter i in the buffer */
size_t ptx_static_shared(const PtxKernel *k);
int ptx_max_threads(const PtxKernel *k);                                 /* .maxntid, or 1024 */
uint64_t ptx_symbol(const PtxModule *m, const char *name, size_t *size); /* address of a module's variable, or 0 */

/* params: the kernel's parameter buffer, each parameter at its offset. */
const char *ptx_launch(PtxKernel *k, const unsigned grid[3], const unsigned block[3], size_t shared,
                       const void *params);

/* ---- device memory ---- */
uint64_t ptx_alloc(size_t bytes); /* 0 when the device is full; contents count as unwritten */
const char *ptx_free(uint64_t address);
/* Where bytes of device memory really lie; NULL with *why set if any lies outside one live allocation. */
void *ptx_memory(uint64_t address, size_t bytes, const char **why);
void ptx_mark(uint64_t address, size_t bytes, bool written);     /* the host wrote it, or spoilt it */
bool ptx_written(uint64_t address, size_t bytes, size_t *first); /* false: *first is the first unwritten byte */
void ptx_copy_marks(uint64_t to, uint64_t from, size_t bytes);
bool ptx_is_device(const void *p); /* an address of the device's region, live or not */
size_t ptx_allocated(void);
size_t ptx_peak(void); /* the most that ever was */
const char *ptx_describe(uint64_t address); /* "byte 12 of the 64 at 0x.. (allocation 7)" */
extern size_t ptx_device_bytes;             /* how much the device has: 8 GiB */

/* ---- options ---- */
typedef struct {
    uint64_t seed; /* 0: warps and blocks ascending, no preemption, results correctly rounded */
    bool races;    /* default true, as the next ones */
    bool uninit;
    bool counters;
    bool perturb;     /* approximate functions err within NVIDIA's documented bounds */
    int threads;      /* OS threads that share a grid's blocks */
    long long budget; /* warp instructions of one warp before the run is called endless */
} PtxOptions;
extern PtxOptions ptx_options;

/* ---- counters: summed per kernel name over the launches ---- */
typedef enum {
    PTX_INT,
    PTX_FP,
    PTX_SFU,
    PTX_MMA,
    PTX_GLOBAL,
    PTX_SHARED,
    PTX_LOCAL,
    PTX_PARAM,
    PTX_SYNC,
    PTX_FLOW,
    PTX_CLASSES
} PtxClass;
typedef struct {
    long launches, blocks;
    int threads;                        /* of a block, in the last launch */
    size_t shared;                      /* of a block, static and dynamic, in the last launch */
    long long warp[PTX_CLASSES];        /* warp instructions */
    long long lanes;                    /* thread instructions */
    long long requests, sectors, bytes; /* global: warp requests, 32-byte sectors, bytes asked for */
    long long shared_requests,
        wavefronts;  /* shared: warp requests, passes that their bank conflicts make of them */
    long long flops; /* of mma.sync */
} PtxCounts;
const PtxCounts *ptx_counts(const PtxKernel *k);
void ptx_counts_reset(PtxModule *m);
const char *ptx_class_name(PtxClass c);
long long ptx_launches(void); /* of all kernels, since the process began */

#endif
