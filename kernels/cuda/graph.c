/* graph.c: steps that come again (k_again in kernels.h) as CUDA graphs.
 *
 * A graph holds what its launches were given when it was recorded: sizes, addresses, numbers. So a step is known
 * by all that decides these: the caller's key, how many rows and spans there are, whether rows are padding. What
 * differs from one token to the next lies in device memory, at the same addresses: rows_on sends it before the
 * graph is launched. The first time a step runs as it is, which makes what is made at first use (workspaces,
 * choices of algorithms, loaded kernels); the second time it is recorded. Whatever gives memory back forgets all
 * graphs.
 *
 * Tested by tests/test_cuda_ops.c, test_cuda_model.c and long_cuda_faults.py. */
#include "kernels/cuda/host.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_MOST = 64, STEPS_MOST = 64 };

typedef struct {
    int m, n_spans;
    bool padding;
    size_t n;
    unsigned char key[KEY_MOST];
} StepKey;

struct Graphs {
    struct Step {
        StepKey key;
        cudaGraphExec_t exec; /* NULL: it ran once */
    } steps[STEPS_MOST];
    int n;
    struct Step *recording; /* or NULL */
};

struct Graphs *graphs_open(void) {
    return MEM_NEW(struct Graphs);
}

void graphs_drop(struct Graphs *graphs) {
    CHECK(!graphs->recording, "memory is given back inside of a step that comes again, of %d rows",
          graphs->recording->key.m);
    for (int i = 0; i < graphs->n; i++)
        if (graphs->steps[i].exec) cuda_must(cudaGraphExecDestroy(graphs->steps[i].exec), "graph");
    graphs->n = 0;
}

void graphs_close(struct Graphs *graphs) {
    graphs_drop(graphs);
    free(graphs);
}

bool graphs_recording(const struct Graphs *graphs) { return graphs->recording != NULL; }

bool rows_decode(const Rows *rows) {
    bool decode = rows->n_shares == 0;
    for (int i = 0; i < rows->n_spans && decode; i++) decode = rows->spans[i].n <= 1;
    return decode;
}

bool cuda_again(Dev *dev, const Rows *rows, const void *key, size_t n) {
    struct Cuda *cuda = dev->cuda;
    struct Graphs *graphs = cuda->graphs;
    CHECK(n <= KEY_MOST && !graphs->recording, "a key of %zu bytes", n);
    if (!rows_decode(rows)) return true;
    StepKey want;
    memset(&want, 0, sizeof want);
    want.m = rows->m, want.n_spans = rows->n_spans, want.n = n;
    for (int r = 0; r < rows->m; r++) want.padding |= rows->page[r] < 0;
    memcpy(want.key, key, n);
    struct Step *step = graphs->steps, *end = step + graphs->n;
    while (step < end && memcmp(&step->key, &want, sizeof want) != 0) step++;
    if (step == end) {
        if (graphs->n == STEPS_MOST) graphs_drop(graphs);
        step = &graphs->steps[graphs->n++];
        *step = (struct Step){.key = want};
        return true;
    }
    rows_on(dev, rows);
    if (graphs->n == 0) return true; /* the rows moved, and nothing is known any more */
    if (step->exec) {
        cuda_must(cudaGraphLaunch(step->exec, cuda->stream), "graph");
        return false;
    }
    cuda_must(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal), "graph");
    graphs->recording = step;
    return true;
}

void cuda_again_end(Dev *dev) {
    struct Cuda *cuda = dev->cuda;
    struct Step *step = cuda->graphs->recording;
    cudaGraph_t graph;
    if (!step) return;
    cuda->graphs->recording = NULL;
    cuda_must(cudaStreamEndCapture(cuda->stream, &graph), "graph");
    cuda_must(cudaGraphInstantiateWithFlags(&step->exec, graph, 0), "graph");
    cuda_must(cudaGraphDestroy(graph), "graph");
    cuda_must(cudaGraphLaunch(step->exec, cuda->stream), "graph");
}
