/* cudart.c: see standin.h; streams.c has the streams. Source: CUDA Runtime API 13.0. */
#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/ptx/ptx.h"
#include "tests/ptx/streams.h"

#ifndef STANDIN_PTX
#define STANDIN_PTX "build/ptx"
#endif
#ifndef STANDIN_CUBLASLT
#define STANDIN_CUBLASLT "build/plain/libcublasLt.so.13"
#endif

void (*standin_on_error)(const char *message);

void standin_stop(const char *format, ...) {
    static char message[1536];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (standin_on_error) standin_on_error(message);
    fflush(stdout);
    fprintf(stderr, "stand-in: %s\n", message);
    _exit(86);
}

/* ---- settings, modules ---- */

static struct {
    const void *host;
    const char *name;
    PtxKernel *kernel;
    size_t max_dynamic;
} * functions;
static int n_functions;
static struct {
    const void *host;
    const char *name;
} variables[256];
static int n_variables;
static PtxModule **modules;
static int n_modules;
static cudaError_t last;

uint64_t standin_seed(void) { return ptx_options.seed; }

/* The program's dlopen of libcublasLt.so.13 finds the library of that name that is loaded already. */
static void library_load(void) {
    const char *path = getenv("STANDIN_CUBLASLT") ? getenv("STANDIN_CUBLASLT") : STANDIN_CUBLASLT;
    if (access(path, R_OK) == 0 && !dlopen(path, RTLD_NOW | RTLD_GLOBAL)) standin_stop("cublas: %s", dlerror());
}

/* Device memory has no access for the host. */
static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    if (ptx_is_device(info->si_addr))
        standin_stop("host-memory: the host touches device memory: %s",
                     ptx_describe((uint64_t)(uintptr_t)info->si_addr));
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigaction(signal, &plain, NULL); /* the fault happens again, as it would have */
}

void standin_catch_faults(void) {
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &fault, NULL);
}

void standin_open(void) {
    static bool open;
    standin_catch_faults(); /* each time: cmocka sets a handler of its own before each test */
    if (open) return;
    open = true;
    library_load();
    const char *s;
    if ((s = getenv("STANDIN_SEED"))) ptx_options.seed = strtoull(s, NULL, 0);
    if ((s = getenv("STANDIN_BYTES"))) ptx_device_bytes = strtoull(s, NULL, 0);
    if ((s = getenv("STANDIN_THREADS"))) ptx_options.threads = atoi(s);
    if ((s = getenv("STANDIN_PERTURB"))) ptx_options.perturb = atoi(s) != 0;
}

static void modules_load(void) {
    if (modules) return;
    const char *folder = getenv("STANDIN_PTX") ? getenv("STANDIN_PTX") : STANDIN_PTX;
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort);
    if (n < 0) standin_stop("ptx: no folder %s", folder);
    modules = calloc((size_t)n + 1, sizeof(PtxModule *));
    if (!modules) abort();
    for (int i = 0; i < n; i++) {
        size_t length = strlen(names[i]->d_name);
        if (length > 4 && strcmp(names[i]->d_name + length - 4, ".ptx") == 0) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
            const char *why = ptx_load(&modules[n_modules], path);
            if (why) standin_stop("ptx: %s", why);
            n_modules++;
        }
        free(names[i]);
    }
    free(names);
}

static int function_of(const void *host) {
    standin_open();
    for (int i = 0; i < n_functions; i++) {
        if (functions[i].host != host) continue;
        modules_load();
        for (int k = 0; k < n_modules && !functions[i].kernel; k++) {
            PtxKernel *found = ptx_kernel(modules[k], functions[i].name);
            if (found && strcmp(ptx_kernel_name(found), functions[i].name) == 0) functions[i].kernel = found;
        }
        if (!functions[i].kernel) standin_stop("ptx: kernel %s is in none of the .ptx files", functions[i].name);
        return i;
    }
    standin_stop("ptx: a launch of what is no kernel");
}

void standin_counts_print(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) return;
    for (int i = 0; i < n_functions; i++) {
        if (!functions[i].kernel) continue;
        const PtxCounts *c = ptx_counts(functions[i].kernel);
        fprintf(f, "%s launches %ld blocks %ld threads %d shared_bytes %zu lanes %lld", functions[i].name, c->launches,
                c->blocks, c->threads, c->shared, c->lanes);
        for (int k = 0; k < PTX_CLASSES; k++) fprintf(f, " %s %lld", ptx_class_name((PtxClass)k), c->warp[k]);
        fprintf(f, " requests %lld sectors %lld bytes %lld shared_requests %lld wavefronts %lld flops %lld\n",
                c->requests, c->sectors, c->bytes, c->shared_requests, c->wavefronts, c->flops);
    }
    fclose(f);
}

static void peak_print(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) return;
    fprintf(f, "%zu\n", ptx_peak());
    fclose(f);
}

static __attribute__((destructor)) void end(void) {
    if (getenv("STANDIN_COUNTS")) standin_counts_print(getenv("STANDIN_COUNTS"));
    if (getenv("STANDIN_PEAK")) peak_print(getenv("STANDIN_PEAK"));
    for (int i = 0; i < n_modules; i++) ptx_unload(modules[i]);
    free(modules), free(functions);
    streams_free();
}

cudaError_t standin_fail(cudaError_t e) { return last = e; }

void *standin_device(const void *p, size_t bytes, const char *what, int read) {
    const char *why = NULL;
    uint64_t a = (uint64_t)(uintptr_t)p;
    void *host = ptx_memory(a, bytes, &why);
    if (!host) standin_stop("%s: %s, %zu bytes at %s", why, what, bytes, ptx_describe(a));
    size_t first;
    if (read && !ptx_written(a, bytes, &first))
        standin_stop("uninit-global: %s reads %s, which nobody wrote", what, ptx_describe(a + first));
    return host;
}

void standin_mark(const void *p, size_t bytes) { ptx_mark((uint64_t)(uintptr_t)p, bytes, true); }
bool standin_is_device(const void *p) { return ptx_is_device(p); }

/* ---- what nvcc's host code calls (private to nvcc: a new release may want others, and a link error names them)
 * ---- */

void **__cudaRegisterFatBinary(void *image);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
char __cudaInitModule(void **handle);
void __cudaRegisterFunction(void **handle, const char *host, char *name, const char *device, int limit, void *tid,
                            void *bid, void *block, void *grid, int *size);
void __cudaRegisterVar(void **handle, char *host, char *name, const char *device, int external, size_t size,
                       int constant, int global);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared,
                               cudaStream_t stream);
cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared,
                                    cudaStream_t stream);

void **__cudaRegisterFatBinary(void *image) {
    static void *handle;
    (void)image;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
char __cudaInitModule(void **handle) { return (void)handle, 0; }
void __cudaRegisterFunction(void **handle, const char *host, char *name, const char *device, int limit, void *tid,
                            void *bid, void *block, void *grid, int *size) {
    (void)handle, (void)name, (void)limit, (void)tid, (void)bid, (void)block, (void)grid, (void)size;
    functions = realloc(functions, sizeof *functions * (size_t)(n_functions + 1));
    if (!functions) abort();
    memset(&functions[n_functions], 0, sizeof *functions);
    functions[n_functions].host = host;
    functions[n_functions].max_dynamic = 48 * 1024;
    functions[n_functions++].name = device;
}
void __cudaRegisterVar(void **handle, char *host, char *name, const char *device, int external, size_t size,
                       int constant, int global) {
    (void)handle, (void)name, (void)external, (void)size, (void)constant, (void)global;
    if (n_variables == 256) abort();
    variables[n_variables].host = host;
    variables[n_variables++].name = device;
}

static struct {
    dim3 grid, block;
    size_t shared;
    struct CUstream_st *stream;
} config[16];
static int n_config;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) {
    if (n_config == 16) return 1;
    config[n_config].grid = grid, config[n_config].block = block;
    config[n_config].shared = shared, config[n_config++].stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    if (n_config == 0) return cudaErrorMissingConfiguration;
    n_config--;
    *grid = config[n_config].grid, *block = config[n_config].block, *shared = config[n_config].shared;
    *(struct CUstream_st **)stream = config[n_config].stream;
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host) {
    *kernel = (cudaKernel_t)(uintptr_t)host;
    return cudaSuccess;
}

/* ---- launches ---- */

typedef struct {
    int function;
    unsigned grid[3], block[3];
    size_t shared;
    _Alignas(16) char params[];
} Launching;

static void run_launch(void *payload) {
    Launching *l = payload;
    const char *why = ptx_launch(functions[l->function].kernel, l->grid, l->block, l->shared, l->params);
    if (why) standin_stop("%s", why);
}

static cudaError_t launch(const void *host, dim3 grid, dim3 block, void **args, size_t shared,
                          cudaStream_t stream) {
    int f = function_of(host);
    const PtxKernel *k = functions[f].kernel;
    int n = ptx_params(k), offset = 0, size = 0;
    if (n) ptx_param(k, n - 1, &offset, &size);
    if (offset + size > 4096) standin_stop("limit: %s: more than 4096 bytes of parameters", functions[f].name);
    size_t bytes = sizeof(Launching) + (size_t)(offset + size);
    if (shared + ptx_static_shared(k) > functions[f].max_dynamic)
        standin_stop("limit: %s: %zu bytes of dynamic shared memory, but cudaFuncSetAttribute allowed %zu",
                     functions[f].name, shared, functions[f].max_dynamic);
    Launching *l = calloc(1, bytes);
    if (!l) abort();
    *l = (Launching){
        .function = f, .grid = {grid.x, grid.y, grid.z}, .block = {block.x, block.y, block.z}, .shared = shared};
    for (int i = 0; i < n; i++) {
        ptx_param(k, i, &offset, &size);
        memcpy(l->params + offset, args[i], (size_t)size);
    }
    cudaError_t error = stream_check(stream_of(stream));
    if (!error) standin_queue(stream, run_launch, l, bytes);
    free(l);
    return error;
}
cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t stream) {
    return launch(f, grid, block, args, shared, stream);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 grid, dim3 block, void **args, size_t shared,
                               cudaStream_t stream) {
    return launch((const void *)f, grid, block, args, shared, stream);
}
cudaError_t cudaFuncSetAttribute(const void *f, enum cudaFuncAttribute a, int value) {
    int i = function_of(f);
    if (a != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || (size_t)value + ptx_static_shared(functions[i].kernel) > 99 * 1024)
        return standin_fail(cudaErrorInvalidValue);
    functions[i].max_dynamic = (size_t)value + ptx_static_shared(functions[i].kernel);
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
    int i = function_of(f);
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = ptx_max_threads(functions[i].kernel);
    a->sharedSizeBytes = ptx_static_shared(functions[i].kernel);
    a->maxDynamicSharedSizeBytes = (int)functions[i].max_dynamic;
    return cudaSuccess;
}

/* ---- memory ---- */

static struct {
    char *p;
    size_t bytes;
} pinned[4096];
static int n_pinned;

static bool is_pinned(const void *p, size_t bytes) {
    for (int i = 0; i < n_pinned; i++)
        if ((const char *)p >= pinned[i].p && (const char *)p + bytes <= pinned[i].p + pinned[i].bytes)
            return true;
    return false;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    standin_open();
    if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
    if (bytes == 0) return *p = NULL, cudaSuccess;
    uint64_t a = ptx_alloc(bytes);
    if (!a) return standin_fail(cudaErrorMemoryAllocation);
    *p = (void *)(uintptr_t)a;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
    streams_finish();
    const char *why = p ? ptx_free((uint64_t)(uintptr_t)p) : NULL;
    if (why) standin_stop("%s", why);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    standin_open();
    if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
    if (n_pinned == 4096 || posix_memalign(p, 4096, bytes ? bytes : 1)) return standin_fail(cudaErrorMemoryAllocation);
    memset(*p, 0xa5, bytes);
    pinned[n_pinned].p = *p;
    pinned[n_pinned++].bytes = bytes;
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags) {
    (void)flags;
    return cudaMallocHost(p, bytes);
}
cudaError_t cudaFreeHost(void *p) {
    if (!p) return cudaSuccess;
    for (int i = 0; i < n_pinned; i++) {
        if (pinned[i].p != p) continue;
        if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
        streams_finish();
        free(p);
        pinned[i] = pinned[--n_pinned];
        return cudaSuccess;
    }
    standin_stop("host-memory: cudaFreeHost of what cudaMallocHost did not give");
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    standin_open();
    *total = ptx_device_bytes;
    *free_bytes = ptx_device_bytes - ptx_allocated();
    return cudaSuccess;
}

typedef struct {
    void *dst;
    const void *src; /* NULL: the bytes follow (pageable memory is staged) */
    size_t dpitch, spitch, width, height;
    bool to_device, from_device;
    int value; /* of a memset */
    _Alignas(16) char staged[];
} Copying;

static void run_copy(void *payload) {
    Copying *c = payload;
    const char *src = c->src ? c->src : c->staged;
    size_t spitch = c->src ? c->spitch : c->width;
    for (size_t r = 0; r < c->height; r++) {
        void *d = (char *)c->dst + r * c->dpitch;
        const void *s = src + r * spitch;
        void *to = c->to_device ? standin_device(d, c->width, "a copy to the device", 0) : d;
        const void *from =
            c->from_device ? standin_device(s, c->width, "a copy from the device", !c->to_device) : s;
        memmove(to, from, c->width);
        if (c->to_device && c->from_device)
            ptx_copy_marks((uint64_t)(uintptr_t)d, (uint64_t)(uintptr_t)s, c->width);
        else if (c->to_device)
            ptx_mark((uint64_t)(uintptr_t)d, c->width, true);
    }
}
static void run_set(void *payload) {
    Copying *c = payload;
    for (size_t r = 0; r < c->height; r++) {
        char *d = (char *)c->dst + r * c->dpitch;
        memset(standin_device(d, c->width, "a memset", 0), c->value, c->width);
        ptx_mark((uint64_t)(uintptr_t)d, c->width, true);
    }
}

static cudaError_t copy(void *dst, size_t dpitch, const void *src, size_t spitch, size_t width, size_t height,
                        enum cudaMemcpyKind kind, cudaStream_t stream, bool async) {
    standin_open();
    bool to = ptx_is_device(dst), from = ptx_is_device(src);
    if (width == 0 || height == 0) return cudaSuccess;
    if (height > 1 && (dpitch > INT32_MAX || spitch > INT32_MAX)) return standin_fail(cudaErrorInvalidPitchValue);
    if (width > dpitch || width > spitch) return standin_fail(cudaErrorInvalidPitchValue);
    bool want_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool want_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && (to != want_to || from != want_from))
        standin_stop("host-memory: a copy of kind %d, but the destination is %s and the source %s", kind,
                     to ? "device" : "host", from ? "device" : "host");
    struct CUstream_st *s = stream_of(stream);
    cudaError_t error = async ? stream_check(s) : stream_forbid();
    if (error) return error;
    const void *host = to ? (from ? NULL : src) : dst;
    size_t pitch = to ? spitch : dpitch, span = (height - 1) * pitch + width;
    bool pageable = host && !is_pinned(host, span);
    bool records = stream_records(s), staged = async && pageable && to && !records;
    size_t bytes = sizeof(Copying) + (staged ? width * height : 0);
    Copying *c = calloc(1, bytes);
    if (!c) abort();
    *c = (Copying){dst, staged ? NULL : src, dpitch, spitch, width, height, to, from, 0};
    for (size_t r = 0; staged && r < height; r++)
        memcpy(c->staged + r * width, (const char *)src + r * spitch, width);
    bool busy = async && host && !staged && stream_pending_on(host, span);
    StreamOp *o = stream_queue(s, run_copy, c, bytes);
    free(c);
    if (async && host && (records || !pageable)) {
        o->host = host, o->host_bytes = span, o->host_write = !to;
        if (!busy && to && !records) o->host_hash = stream_hash(host, span);
        if (!busy && !to && !records) /* who reads it too soon shall see it */
            for (size_t r = 0; r < height; r++) memset((char *)dst + r * dpitch, 0xfb, width);
    }
    if (!async || (pageable && !to && !records)) stream_finish(s);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *d, const void *s, size_t n, enum cudaMemcpyKind kind) {
    return copy(d, n, s, n, n, 1, kind, NULL, false);
}
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return copy(d, n, s, n, n, 1, kind, stream, true);
}
cudaError_t cudaMemcpy2D(void *d, size_t dp, const void *s, size_t sp, size_t w, size_t h,
                         enum cudaMemcpyKind kind) {
    return copy(d, dp, s, sp, w, h, kind, NULL, false);
}
cudaError_t cudaMemcpy2DAsync(void *d, size_t dp, const void *s, size_t sp, size_t w, size_t h,
                              enum cudaMemcpyKind kind, cudaStream_t stream) {
    return copy(d, dp, s, sp, w, h, kind, stream, true);
}

static cudaError_t set(void *d, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
    if (width == 0 || height == 0) return cudaSuccess;
    if (width > pitch || (height > 1 && pitch > INT32_MAX)) return standin_fail(cudaErrorInvalidPitchValue);
    Copying c = {.dst = d, .dpitch = pitch, .width = width, .height = height, .value = value};
    cudaError_t error = stream_check(stream_of(stream));
    if (!error) standin_queue(stream, run_set, &c, sizeof c);
    return error;
}
cudaError_t cudaMemset(void *d, int value, size_t n) { return set(d, n, value, n, 1, NULL); }
cudaError_t cudaMemsetAsync(void *d, int value, size_t n, cudaStream_t s) { return set(d, n, value, n, 1, s); }
cudaError_t cudaMemset2D(void *d, size_t pitch, int value, size_t w, size_t h) {
    return set(d, pitch, value, w, h, NULL);
}
cudaError_t cudaMemset2DAsync(void *d, size_t pitch, int value, size_t w, size_t h, cudaStream_t s) {
    return set(d, pitch, value, w, h, s);
}

static void *variable(const void *symbol, size_t offset, size_t n) {
    modules_load();
    for (int i = 0; i < n_variables; i++) {
        if (variables[i].host != symbol) continue;
        for (int k = 0; k < n_modules; k++) {
            size_t size;
            uint64_t a = ptx_symbol(modules[k], variables[i].name, &size);
            if (a && offset + n <= size) return (void *)(uintptr_t)(a + offset);
        }
    }
    standin_stop("ptx: a symbol that is not known, or too small");
}
cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *src, size_t n, size_t offset,
                               enum cudaMemcpyKind kind) {
    return cudaMemcpy(variable(symbol, offset, n), src, n, kind);
}
cudaError_t cudaMemcpyToSymbolAsync(const void *symbol, const void *src, size_t n, size_t offset,
                                    enum cudaMemcpyKind kind, cudaStream_t s) {
    return cudaMemcpyAsync(variable(symbol, offset, n), src, n, kind, s);
}

/* ---- the device ---- */

cudaError_t cudaGetDeviceCount(int *n) {
    standin_open();
    *n = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : standin_fail(cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    standin_open();
    if (device != 0) return standin_fail(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    strcpy(p->name, "stand-in (no GPU)");
    p->major = 8, p->minor = 0;
    p->totalGlobalMem = ptx_device_bytes;
    p->multiProcessorCount = 4;
    p->warpSize = 32;
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = 99 * 1024;
    p->sharedMemPerMultiprocessor = 100 * 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 1536;
    p->maxBlocksPerMultiProcessor = 16;
    p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->l2CacheSize = 4 << 20;
    p->memoryBusWidth = 256;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr a, int device) {
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, device);
    if (e) return e;
    switch (a) {
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)p.sharedMemPerBlockOptin;
        break;
    default:
        standin_stop("device: attribute %d is not known", (int)a);
    }
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v) { return *v = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *v) { return *v = 13000, cudaSuccess; }
cudaError_t cudaGetLastError(void) {
    cudaError_t e = last;
    last = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorString(cudaError_t e) {
    static _Thread_local char text[64];
    snprintf(text, sizeof text, "%s (stand-in, error %d)",
             e == cudaErrorMemoryAllocation ? "out of memory" : "error", (int)e);
    return text;
}
const char *cudaGetErrorName(cudaError_t e) { return e == cudaSuccess ? "cudaSuccess" : "cudaError"; }
