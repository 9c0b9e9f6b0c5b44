/* test_standin_cudart.c: the stand-in for cudart: its streams run late and in any legal order, and each of its
 * checks finds what it is for. A child process does wrong; its last words are looked at. */
#include "tests/standin_help.h"

#include <fcntl.h>

/* out[i] = in[i] + add, with no bounds: as many threads as numbers. */
static const char kernels[] =
    ".version 9.0\n.target sm_80\n.address_size 64\n.extern .shared .align 16 .b8 more[];\n"
    ".visible .entry add_kernel(.param .u64 out, .param .u64 in, .param .u32 add)\n.maxntid 256, 1, 1\n{\n.reg "
    ".b32 %r<8>;\n.reg .b64 %d<8>;\n"
    "mov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmad.lo.u32 %r0, %r1, %r2, "
    "%r0;\nmul.wide.u32 %d0, %r0, 4;\n"
    "ld.param.u64 %d1, [in];\nadd.s64 %d1, %d1, %d0;\nld.global.u32 %r3, [%d1];\nld.param.u32 %r4, "
    "[add];\nadd.u32 %r3, %r3, %r4;\n"
    "ld.param.u64 %d2, [out];\nadd.s64 %d2, %d2, %d0;\nst.global.u32 [%d2], %r3;\nret;\n}\n";
void __cudaRegisterFunction(void **handle, const char *host, char *name, const char *device, int limit, void *tid,
                            void *bid, void *block, void *grid, int *size);
static const char add_host;

static void add(int *out, const int *in, int value, unsigned n, size_t shared, cudaStream_t s) {
    void *args[] = {&out, &in, &value};
    assert_int_equal(cudaLaunchKernel(&add_host, (struct dim3){(n + 63) / 64, 1, 1},
                                      (struct dim3){n < 64 ? n : 64, 1, 1}, args, shared, s),
                     cudaSuccess);
}

enum { N = 128, BYTES = N * 4 };
static int *device(const int *host) {
    void *p;
    assert_int_equal(cudaMalloc(&p, BYTES), cudaSuccess);
    if (host) assert_int_equal(cudaMemcpy(p, host, BYTES, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
}
static int *pinned(void) {
    void *p;
    assert_int_equal(cudaMallocHost(&p, BYTES), cudaSuccess);
    return p;
}
static cudaStream_t stream(void) {
    cudaStream_t s;
    assert_int_equal(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), cudaSuccess);
    return s;
}

static int numbers[N];

/* ---- what is right ---- */

static void test_late(void **state) {
    (void)state;
    int *a = device(NULL), *b = device(NULL), *in = pinned(), *out = pinned();
    cudaStream_t s = stream();
    memcpy(in, numbers, BYTES);
    cudaMemcpyAsync(a, in, BYTES, cudaMemcpyHostToDevice, s);
    add(b, a, 5, N, 0, s);
    cudaMemcpyAsync(out, b, BYTES, cudaMemcpyDeviceToHost, s);
    assert_int_equal(standin_pending(), 3);
    assert_int_equal(out[3], (int)0xfbfbfbfb); /* not there yet, and what was is gone */
    assert_int_equal(cudaStreamSynchronize(s), cudaSuccess);
    assert_int_equal(standin_pending(), 0);
    for (int i = 0; i < N; i++) assert_int_equal(out[i], numbers[i] + 5);
    int local[N]; /* pageable memory: the source may change at once, the result is there on return */
    memcpy(local, numbers, BYTES);
    cudaMemcpyAsync(a, local, BYTES, cudaMemcpyHostToDevice, s);
    local[0] = 77;
    add(b, a, 1, N, 0, s);
    cudaMemcpyAsync(local, b, BYTES, cudaMemcpyDeviceToHost, s);
    for (int i = 0; i < N; i++) assert_int_equal(local[i], numbers[i] + 1);
    cudaStreamDestroy(s), cudaFree(a), cudaFree(b), cudaFreeHost(in), cudaFreeHost(out);
}

static void test_two_dimensions(void **state) {
    (void)state;
    int *a = device(numbers), *b = device(NULL), out[N];
    cudaMemset(b, 0, BYTES);
    cudaMemcpy2D(b, 64, a, 32, 12, 4, cudaMemcpyDeviceToDevice); /* 4 rows of 3 numbers */
    cudaMemset2D(b + 5, 64, 255, 4, 2);
    cudaMemcpy(out, b, BYTES, cudaMemcpyDeviceToHost);
    for (int i = 0; i < N; i++) {
        int row = i / 16, col = i % 16,
            want = row < 4 && col < 3    ? numbers[8 * row + col]
                   : row < 2 && col == 5 ? -1
                                         : 0;
        assert_int_equal(out[i], want);
    }
    cudaFree(a), cudaFree(b);
}

/* One stream makes, another uses. With an event between them every order is right; the legacy default stream needs
 * none with streams that are not NonBlocking. */
static void test_events(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        ptx_options.seed = seed;
        int *a = device(numbers), *b = device(NULL), *c = device(NULL), out[N];
        cudaStream_t s = stream(), t = stream();
        cudaEvent_t e;
        cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
        add(b, a, 1, N, 0, s);
        cudaEventRecord(e, s);
        cudaStreamWaitEvent(t, e, 0);
        add(c, b, 2, N, 0, t);
        add(a, a, 0, N, 0, s);
        cudaEventRecord(e, t);
        cudaEventSynchronize(e);
        cudaMemcpy(out, c, BYTES, cudaMemcpyDeviceToHost);
        for (int i = 0; i < N; i++) assert_int_equal(out[i], numbers[i] + 3);
        cudaStream_t u;
        cudaStreamCreate(&u);
        add(b, c, 1, N, 0, u);
        add(c, b, 1, N, 0, NULL);
        add(b, c, 1, N, 0, u);
        cudaMemcpy(out, b, BYTES, cudaMemcpyDeviceToHost);
        for (int i = 0; i < N; i++) assert_int_equal(out[i], numbers[i] + 6);
        cudaEventDestroy(e), cudaStreamDestroy(s), cudaStreamDestroy(t), cudaStreamDestroy(u), cudaFree(a),
            cudaFree(b), cudaFree(c);
    }
    ptx_options.seed = 0;
}

static void test_memory(void **state) {
    (void)state;
    size_t room, total, before;
    assert_int_equal(cudaMemset2D(numbers, (size_t)1 << 31, 0, 4, 2), cudaErrorInvalidPitchValue);
    cudaMemGetInfo(&before, &total);
    int *a = device(NULL);
    cudaMemGetInfo(&room, &total);
    assert_int_equal(before - room, BYTES);
    cudaFree(a);
    void *p;
    assert_int_equal(cudaMalloc(&p, total + 1), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaSetDevice(1), cudaErrorInvalidDevice);
    cudaGetLastError();
}

/* ---- recordings ---- */

static void finish(cudaStream_t s) { assert_int_equal(cudaStreamSynchronize(s), cudaSuccess); }
static void copy_in(int *to, const int *pinned_from, cudaStream_t s) {
    assert_int_equal(cudaMemcpyAsync(to, pinned_from, BYTES, cudaMemcpyHostToDevice, s), cudaSuccess);
}
static cudaGraphExec_t recorded(cudaStream_t s) { /* what was put on s since cudaStreamBeginCapture */
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    assert_int_equal(cudaStreamEndCapture(s, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiateWithFlags(&exec, graph, 0), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    return exec;
}

/* Nothing runs while it is recorded. Then: numbers as they were, memory as it is. */
static void test_graph(void **state) {
    (void)state;
    int *a = device(NULL), *b = device(NULL), *in = pinned(), out[N], number = 5;
    cudaStream_t s = stream();
    memcpy(in, numbers, BYTES);
    long before = standin_graph_launches();
    assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    copy_in(a, in, s);
    add(b, a, number, N, 0, s);
    add(b, b, 1, N, 0, s);
    assert_int_equal(standin_pending(), 0);
    cudaGraphExec_t exec = recorded(s);
    number = 7;
    for (int round = 0; round < 3; round++) {
        in[3] = 100 * round;
        assert_int_equal(cudaGraphLaunch(exec, s), cudaSuccess);
        assert_int_equal(standin_pending(), 3);
        finish(s);
        cudaMemcpy(out, b, BYTES, cudaMemcpyDeviceToHost);
        for (int i = 0; i < N; i++) assert_int_equal(out[i], (i == 3 ? 100 * round : numbers[i]) + 6);
    }
    assert_int_equal(standin_graph_launches() - before, 3);
    assert_int_equal(cudaGraphLaunch(exec, s), cudaSuccess);
    assert_int_equal(cudaGraphExecDestroy(exec), cudaSuccess); /* what was launched still runs */
    finish(s);
    assert_int_equal(standin_graphs(), 0);
    cudaStreamDestroy(s), cudaFree(a), cudaFree(b), cudaFreeHost(in);
}

/* A call that may not be made while a stream is recorded fails and spoils the recording; what follows fails as well. */
static void test_graph_errors(void **state) {
    (void)state;
    int *a = device(numbers), local[N];
    cudaStream_t s;
    cudaEvent_t before, inside;
    cudaGraph_t graph;
    cudaStreamCreate(&s); /* the default stream waits for it */
    cudaEventCreate(&before), cudaEventCreate(&inside);
    cudaEventRecord(before, s);
    finish(s);
    for (int call = 0; call < 11; call++) {
        void *p = local;
        cudaError_t said = cudaErrorStreamCaptureUnsupported, want = said;
        assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        add(a, a, 1, N, 0, s);
        if (call == 0) said = cudaMalloc(&p, 8);
        if (call == 1) said = cudaFree(a);
        if (call == 2) said = cudaMallocHost(&p, 8);
        if (call == 3) said = cudaStreamSynchronize(s);
        if (call == 4) said = cudaStreamQuery(s);
        if (call == 5) said = cudaDeviceSynchronize();
        if (call == 6) said = cudaMemcpy(local, a, BYTES, cudaMemcpyDeviceToHost);
        if (call == 7) said = cudaEventSynchronize(before);
        if (call == 8) cudaEventRecord(inside, s), said = cudaEventSynchronize(inside), want = cudaErrorCapturedEvent;
        if (call == 9) said = cudaStreamWaitEvent(s, before, 0), want = cudaErrorStreamCaptureIsolation;
        if (call == 10) said = cudaMemsetAsync(a, 0, 4, NULL), want = cudaErrorStreamCaptureImplicit;
        assert_int_equal(said, want);
        assert_int_equal(cudaMemsetAsync(a, 0, 4, s), cudaErrorStreamCaptureInvalidated);
        assert_int_equal(cudaStreamEndCapture(s, &graph), cudaErrorStreamCaptureInvalidated);
        assert_null(graph);
        cudaGetLastError();
    }
    assert_int_equal(cudaStreamEndCapture(s, &graph), cudaErrorIllegalState);
    assert_int_equal(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeThreadLocal), cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
    cudaMemcpy(local, a, BYTES, cudaMemcpyDeviceToHost);
    for (int i = 0; i < N; i++) assert_int_equal(local[i], numbers[i]); /* nothing ran */
    cudaEventDestroy(before), cudaEventDestroy(inside), cudaStreamDestroy(s), cudaFree(a);
}

/* ---- what is wrong ---- */

static void host_reads(void) { printf("%d\n", device(numbers)[3]); }
static void host_writes(void) { device(numbers)[3] = 1; }
static void missing_wait(void) { /* the other stream's work may not have been done */
    int *a = device(numbers), *b = device(NULL), *c = device(NULL);
    cudaStream_t s = stream(), t = stream();
    add(b, a, 1, N, 0, s);
    add(c, b, 2, N, 0, t);
    cudaStreamSynchronize(t);
}
static void source_changed(void) {
    int *in = pinned();
    memcpy(in, numbers, BYTES);
    cudaStream_t s = stream();
    cudaMemcpyAsync(device(NULL), in, BYTES, cudaMemcpyHostToDevice, s);
    in[5]++;
    cudaStreamSynchronize(s);
}
static void unwritten_copied(void) { cudaMemcpy((int[N]){0}, device(NULL), BYTES, cudaMemcpyDeviceToHost); }
static void unwritten_in_kernel(void) {
    add(device(NULL), device(NULL), 1, N, 0, NULL);
    cudaDeviceSynchronize();
}
static void copy_too_long(void) { cudaMemcpy(device(NULL) + 1, numbers, BYTES, cudaMemcpyHostToDevice); }
static void set_too_long(void) { cudaMemset(device(NULL), 0, BYTES + 4), cudaDeviceSynchronize(); }
static void grid_too_large(void) {
    add(device(NULL), device(numbers), 1, N + 64, 0, NULL);
    cudaDeviceSynchronize();
}
static void used_after_free(void) {
    int *a = device(numbers), *b = device(NULL);
    cudaFree(a);
    add(b, a, 1, N, 0, NULL);
    cudaDeviceSynchronize();
}
static void freed_twice(void) {
    int *a = device(numbers);
    cudaFree(a), cudaFree(a);
}
static void freed_in_the_middle(void) { cudaFree(device(numbers) + 64); }
static void freed_host(void) { cudaFreeHost(numbers); }
static void wrong_direction(void) { cudaMemcpy(device(NULL), numbers, BYTES, cudaMemcpyDeviceToHost); }
static void shared_not_allowed(void) { add(device(NULL), device(numbers), 1, N, 50000, NULL); }
static void launch_too_wide(void) {
    int *a = device(numbers), value = 1;
    void *args[] = {&a, &a, &value};
    cudaLaunchKernel(&add_host, (struct dim3){1, 1, 1}, (struct dim3){512, 1, 1}, args, 0, NULL);
    cudaDeviceSynchronize();
}
static void launch_too_tall(void) {
    int *a = device(numbers), value = 1;
    void *args[] = {&a, &a, &value};
    cudaLaunchKernel(&add_host, (struct dim3){1, 70000, 1}, (struct dim3){32, 1, 1}, args, 0, NULL);
    cudaDeviceSynchronize();
}
static cudaGraphExec_t add_recorded(int *b, int *a, cudaStream_t s) {
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    add(b, a, 1, N, 0, s);
    return recorded(s);
}
static void graph_of_freed(void) {
    int *a = device(numbers), *b = device(NULL);
    cudaStream_t s = stream();
    cudaGraphExec_t exec = add_recorded(b, a, s);
    cudaFree(a);
    cudaGraphLaunch(exec, s);
    cudaStreamSynchronize(s);
}
static void graph_destroyed(void) {
    cudaStream_t s = stream();
    cudaGraphExec_t exec = add_recorded(device(NULL), device(numbers), s);
    cudaGraphExecDestroy(exec);
    cudaGraphLaunch(exec, s);
}
static void graph_source_changed(void) {
    int *in = pinned(), *a = device(NULL);
    memcpy(in, numbers, BYTES);
    cudaStream_t s = stream();
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    copy_in(a, in, s);
    cudaGraphExec_t exec = recorded(s);
    cudaGraphLaunch(exec, s);
    in[5]++;
    cudaStreamSynchronize(s);
}
static void no_stream(void) { cudaStreamSynchronize((cudaStream_t)(void *)numbers); }
static void no_kernel(void) {
    cudaLaunchKernel(numbers, (struct dim3){1, 1, 1}, (struct dim3){32, 1, 1}, NULL, 0, NULL);
}

static const Fault faults[] = {
    {host_reads, "stand-in: host-memory: the host touches device memory: byte 12 of the 512"},
    {host_writes, "stand-in: host-memory: the host touches device memory: byte 12 of the 512"},
    {missing_wait, "stand-in: uninit-global: add_kernel"},
    {source_changed, "stand-in: pending: the host changed 512 bytes"},
    {unwritten_copied, "stand-in: uninit-global: a copy from the device reads byte 0 of the 512"},
    {unwritten_in_kernel, "stand-in: uninit-global: add_kernel"},
    {copy_too_long, "stand-in: bounds-global: outside of every allocation: a copy to the device"},
    {set_too_long, "stand-in: bounds-global: outside of every allocation: a memset"},
    {grid_too_large,
     "stand-in: bounds-global: add_kernel, block (2,0,0), thread 0: 4 bytes at byte 512 of the 512"},
    {used_after_free, "stand-in: freed: add_kernel"},
    {freed_twice, "stand-in: freed: memory is freed twice"},
    {freed_in_the_middle, "stand-in: freed: not the beginning of an allocation"},
    {freed_host, "stand-in: host-memory: cudaFreeHost of what cudaMallocHost did not give"},
    {wrong_direction,
     "stand-in: host-memory: a copy of kind 2, but the destination is device and the source host"},
    {shared_not_allowed,
     "stand-in: limit: add_kernel: 50000 bytes of dynamic shared memory, but cudaFuncSetAttribute allowed 49152"},
    {launch_too_wide, "stand-in: limit: add_kernel: more threads than __launch_bounds__ allows"},
    {launch_too_tall, "stand-in: limit: add_kernel: the grid is too large"},
    {graph_of_freed, "stand-in: freed: add_kernel"},
    {graph_destroyed, "stand-in: graph: "},
    {graph_source_changed, "stand-in: pending: the host changed 512 bytes"},
    {no_stream, "is no stream"},
    {no_kernel, "a launch of what is no kernel"},
};

static void test_faults(void **state) {
    (void)state;
    faults_are_found(faults, sizeof faults / sizeof *faults);
}

static int setup(void **state) {
    (void)state;
    char folder[] = "/tmp/standin-XXXXXX", path[64];
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/k.ptx", folder);
    FILE *f = fopen(path, "w");
    if (!f || fputs(kernels, f) < 0 || fclose(f)) return -1;
    setenv("STANDIN_PTX", folder, 1);
    __cudaRegisterFunction(NULL, &add_host, NULL, "add_kernel", -1, NULL, NULL, NULL, NULL, NULL);
    for (int i = 0; i < N; i++) numbers[i] = 1000 + i;
    add(device(NULL), device(numbers), 0, N, 0, NULL); /* the module is loaded now */
    cudaDeviceSynchronize();
    return unlink(path) || rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late),   cmocka_unit_test(test_two_dimensions), cmocka_unit_test(test_events),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_graph),
        cmocka_unit_test(test_graph_errors), cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
