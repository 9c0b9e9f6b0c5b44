/* streams.c: see streams.h. Sources: CUDA Runtime API 13.0, "API synchronization behavior", "Stream management"
 * and "Graph management"; CUDA C++ Programming Guide 13.0, "Stream capture". One thread, and a recording has one
 * stream. */
#include <stdlib.h>
#include <string.h>

#include "tests/ptx/ptx.h"
#include "tests/ptx/streams.h"

typedef StreamOp Op;
typedef struct {
    Op *head, *tail;
} OpList;

struct CUstream_st {
    struct CUstream_st *next;
    OpList ops;
    long queued, done;
    bool blocking; /* with the legacy default stream */
    bool records;  /* what is queued goes to `recorded` */
    bool spoilt;   /* by a call that may not be made meanwhile */
    OpList recorded;
};
struct CUevent_st {
    struct CUstream_st *stream;
    long id;
    bool recorded; /* as a part of a recording: nothing outside can wait for it */
};
struct CUgraph_st {
    OpList ops;
};
struct CUgraphExec_st {
    struct CUgraphExec_st *next;
    OpList ops;
};

static struct CUstream_st null_stream, *streams = &null_stream;
static struct CUgraphExec_st *execs;
static long n_graphs, n_launches;
static uint64_t rng;

uint64_t stream_hash(const void *p, size_t n) {
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)p)[i]) * 1099511628211ull;
    return h | 1;
}

struct CUstream_st *stream_of(cudaStream_t s) {
    standin_open();
    if (!s || s == cudaStreamLegacy) return &null_stream;
    for (struct CUstream_st *p = streams; p; p = p->next)
        if (p == s) return p;
    standin_stop("stream: %p is no stream", (void *)s);
}

/* ---- queues ---- */

static void list_add(OpList *list, Op *o) {
    if (list->tail)
        list->tail->next = o;
    else
        list->head = o;
    list->tail = o;
}
static void list_free(OpList *list) {
    for (Op *o = list->head, *next; o; o = next) {
        next = o->next;
        free(o);
    }
    *list = (OpList){0};
}
static Op *op_new(void (*run)(void *), const void *payload, size_t bytes) {
    Op *o = calloc(1, sizeof *o + bytes);
    if (!o) abort();
    o->run = run, o->bytes = bytes;
    if (bytes) memcpy(o->payload, payload, bytes);
    return o;
}
static void list_copy(OpList *to, const OpList *from) {
    *to = (OpList){0};
    for (const Op *o = from->head; o; o = o->next) {
        Op *copy = op_new(o->run, o->payload, o->bytes);
        copy->host = o->host, copy->host_bytes = o->host_bytes, copy->host_write = o->host_write;
        list_add(to, copy);
    }
}

Op *stream_pending_on(const void *p, size_t n) {
    for (struct CUstream_st *s = streams; s; s = s->next)
        for (Op *o = s->ops.head; o; o = o->next)
            if (o->host && (const char *)o->host < (const char *)p + n &&
                (const char *)p < (const char *)o->host + o->host_bytes)
                return o;
    return NULL;
}

static Op *queue(struct CUstream_st *s, void (*run)(void *), const void *payload, size_t bytes) {
    Op *o = op_new(run, payload, bytes);
    o->id = ++s->queued;
    if (s->blocking) o->wait[0] = &null_stream, o->wait_id[0] = null_stream.queued;
    list_add(&s->ops, o);
    return o;
}

Op *stream_queue(struct CUstream_st *s, void (*run)(void *), const void *payload, size_t bytes) {
    if (s->records) {
        list_add(&s->recorded, op_new(run, payload, bytes));
        return s->recorded.tail;
    }
    if (s == &null_stream) /* it waits for all blocking streams: as many operations that do nothing but wait */
        for (struct CUstream_st *p = streams; p; p = p->next)
            if (p->blocking && p->queued > p->done) {
                Op *o = queue(s, NULL, NULL, 0);
                o->wait[1] = p, o->wait_id[1] = p->queued;
            }
    return queue(s, run, payload, bytes);
}

void standin_queue(void *stream, void (*run)(void *), const void *payload, size_t bytes) {
    stream_queue(stream_of(stream), run, payload, bytes);
}

static bool ready(const struct CUstream_st *s) {
    const Op *o = s->ops.head;
    for (int i = 0; o && i < 2; i++)
        if (o->wait[i] && o->wait[i]->done < o->wait_id[i]) return false;
    return o != NULL;
}

static void step(struct CUstream_st *s) {
    Op *o = s->ops.head;
    if (o->host_hash && stream_hash(o->host, o->host_bytes) != o->host_hash)
        standin_stop("pending: the host changed %zu bytes at %p while a copy from there was under way",
                     o->host_bytes, o->host);
    if (o->run) o->run(o->payload);
    s->ops.head = o->next;
    if (!s->ops.head) s->ops.tail = NULL;
    s->done = o->id;
    free(o);
}

static void run_until(struct CUstream_st *s, long id) {
    while (s->done < id) {
        struct CUstream_st *can[64], *pick = NULL;
        int n = 0;
        for (struct CUstream_st *p = streams; p && n < 64; p = p->next)
            if (ready(p)) can[n++] = p;
        if (n == 0) standin_stop("deadlock: a stream waits for what never runs");
        if (standin_seed() == 0 && ready(s))
            pick = s;
        else {
            if (!rng) rng = standin_seed() * 0x9e3779b97f4a7c15ull + 12345;
            rng = rng * 6364136223846793005ull + 1442695040888963407ull;
            pick = can[(rng >> 33) % (uint64_t)n];
        }
        step(pick);
    }
}
void stream_finish(struct CUstream_st *s) { run_until(s, s->queued); }
void streams_finish(void) {
    for (struct CUstream_st *s = streams; s; s = s->next) stream_finish(s);
}
long standin_pending(void) {
    long n = 0;
    for (struct CUstream_st *s = streams; s; s = s->next) n += s->queued - s->done;
    return n;
}
void streams_free(void) {
    for (struct CUstream_st *s = streams, *next; s; s = next) {
        next = s->next;
        list_free(&s->ops), list_free(&s->recorded);
        if (s != &null_stream) free(s);
    }
    streams = &null_stream;
}

/* ---- recordings ---- */

bool stream_records(const struct CUstream_st *s) { return s->records; }

static struct CUstream_st *recording(void) {
    struct CUstream_st *s = streams;
    while (s && !s->records) s = s->next;
    return s;
}

cudaError_t stream_check(struct CUstream_st *s) {
    if (s->records) return s->spoilt ? standin_fail(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
    struct CUstream_st *other = recording();
    if (!other || !other->blocking || s != &null_stream) return cudaSuccess;
    other->spoilt = true;
    return standin_fail(cudaErrorStreamCaptureImplicit);
}

static cudaError_t forbid(cudaError_t error) {
    struct CUstream_st *s = recording();
    if (!s) return cudaSuccess;
    s->spoilt = true;
    return standin_fail(error);
}
cudaError_t stream_forbid(void) { return forbid(cudaErrorStreamCaptureUnsupported); }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    struct CUstream_st *s = stream_of(stream);
    (void)mode; /* one thread: thread-local and global are one; relaxed allows more than this stand-in does */
    if (s == &null_stream) return standin_fail(cudaErrorStreamCaptureUnsupported);
    if (recording()) return standin_fail(cudaErrorIllegalState);
    s->records = true, s->spoilt = false;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    struct CUstream_st *s = stream_of(stream);
    *graph = NULL;
    if (!s->records) return standin_fail(cudaErrorIllegalState);
    s->records = false;
    if (s->spoilt) return list_free(&s->recorded), standin_fail(cudaErrorStreamCaptureInvalidated);
    *graph = calloc(1, sizeof **graph);
    if (!*graph) abort();
    (*graph)->ops = s->recorded;
    s->recorded = (OpList){0};
    n_graphs++;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
    if (!graph) return standin_fail(cudaErrorInvalidValue);
    *exec = calloc(1, sizeof **exec);
    if (!*exec) abort();
    list_copy(&(*exec)->ops, &graph->ops);
    (*exec)->next = execs;
    execs = *exec;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    if (!graph) return standin_fail(cudaErrorInvalidValue);
    list_free(&graph->ops);
    free(graph);
    n_graphs--;
    return cudaSuccess;
}

static struct CUgraphExec_st **exec_of(cudaGraphExec_t exec) {
    for (struct CUgraphExec_st **p = &execs; *p; p = &(*p)->next)
        if (*p == exec) return p;
    standin_stop("graph: %p is no executable graph, or one that was destroyed", (void *)exec);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    struct CUgraphExec_st **p = exec_of(exec);
    *p = exec->next;
    list_free(&exec->ops);
    free(exec);
    return cudaSuccess;
}
/* All that the graph holds was fixed when it was recorded: sizes, pointers, numbers. What lies behind the pointers
 * is read when it runs. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    struct CUstream_st *s = stream_of(stream);
    exec_of(exec);
    if (s->records) standin_stop("graph: a graph inside of a recording is not known here");
    if (stream_check(s)) return cudaErrorStreamCaptureImplicit;
    OpList ops;
    list_copy(&ops, &exec->ops);
    for (Op *o = ops.head, *next; o; o = next) {
        next = o->next;
        Op *queued = stream_queue(s, o->run, o->payload, o->bytes);
        queued->host = o->host, queued->host_bytes = o->host_bytes, queued->host_write = o->host_write;
        if (o->host && !o->host_write) queued->host_hash = stream_hash(o->host, o->host_bytes);
        free(o);
    }
    n_launches++;
    return cudaSuccess;
}
long standin_graphs(void) {
    long n = n_graphs;
    for (struct CUgraphExec_st *e = execs; e; e = e->next) n++;
    return n;
}
long standin_graph_launches(void) { return n_launches; }

/* ---- the runtime's calls about streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    standin_open();
    struct CUstream_st *s = calloc(1, sizeof *s), *p = streams;
    if (!s) abort();
    s->blocking = flags != cudaStreamNonBlocking;
    while (p->next) p = p->next;
    p->next = s;
    *stream = s;
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    struct CUstream_st *s = stream_of(stream), *p = streams;
    if (s == &null_stream) return standin_fail(cudaErrorInvalidResourceHandle);
    stream_finish(s);
    while (p->next != s) p = p->next;
    p->next = s->next;
    for (struct CUstream_st *q = streams; q; q = q->next) /* nothing waits for it any more */
        for (Op *o = q->ops.head; o; o = o->next)
            for (int i = 0; i < 2; i++)
                if (o->wait[i] == s) o->wait[i] = NULL;
    list_free(&s->recorded);
    free(s);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    struct CUstream_st *s = stream_of(stream);
    if (s->records) return stream_forbid();
    if (stream_check(s)) return cudaErrorStreamCaptureImplicit;
    stream_finish(s);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    struct CUstream_st *s = stream_of(stream);
    if (s->records) return stream_forbid();
    if (s->done < s->queued && ready(s)) step(s); /* so that a loop that asks comes to an end */
    return s->done < s->queued ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    standin_open();
    if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
    streams_finish();
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    if (!event) return standin_fail(cudaErrorInvalidResourceHandle);
    struct CUstream_st *s = stream_of(stream);
    if (!event->stream) return cudaSuccess; /* never recorded: nothing to wait for */
    if (s->records && event->recorded && event->stream == s) return cudaSuccess;
    if (s->records) return forbid(cudaErrorStreamCaptureIsolation);
    if (event->recorded) standin_stop("graph: a recording of two streams is not known here");
    StreamOp *o = stream_queue(s, NULL, NULL, 0);
    o->wait[1] = event->stream, o->wait_id[1] = event->id;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    *event = calloc(1, sizeof **event);
    return *event ? cudaSuccess : standin_fail(cudaErrorMemoryAllocation);
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    struct CUstream_st *s = stream_of(stream);
    cudaError_t error = stream_check(s);
    if (error) return error;
    stream_queue(s, NULL, NULL, 0);
    event->stream = s, event->id = s->queued, event->recorded = s->records;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->recorded) return forbid(cudaErrorCapturedEvent), standin_fail(cudaErrorCapturedEvent);
    if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
    if (event->stream) run_until(stream_of(event->stream), event->id);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (event->recorded) return forbid(cudaErrorCapturedEvent), standin_fail(cudaErrorCapturedEvent);
    if (stream_forbid()) return cudaErrorStreamCaptureUnsupported;
    if (!event->stream || event->stream->done >= event->id) return cudaSuccess;
    if (ready(event->stream)) step(event->stream);
    return event->stream->done >= event->id ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    (void)a, (void)b;
    *ms = 0; /* no time passes on a device that is none */
    return cudaSuccess;
}
