/* streams.h: private to the stand-in for cudart: streams whose work runs when something waits for it, and what is
 * recorded of them (stream capture, graphs). streams.c holds these and the runtime's calls about streams, events and
 * graphs; cudart.c the others. */
#ifndef TESTS_PTX_STREAMS_H
#define TESTS_PTX_STREAMS_H

#include <cuda_runtime_api.h>

#include "tests/ptx/standin.h"

typedef struct StreamOp { /* one piece of work */
    struct StreamOp *next;
    long id;                     /* in its stream, from 1 */
    struct CUstream_st *wait[2]; /* may run when these have done so much */
    long wait_id[2];
    void (*run)(void *payload);
    const void *host; /* host memory that it reads or writes while it is under way */
    size_t host_bytes;
    uint64_t host_hash; /* of what it reads; 0: not known */
    bool host_write;
    size_t bytes;
    _Alignas(16) char payload[];
} StreamOp;

struct CUstream_st *stream_of(cudaStream_t s);
/* Queues work; while the stream is recorded, the recording takes it. The op stays the stream's. */
StreamOp *stream_queue(struct CUstream_st *s, void (*run)(void *), const void *payload, size_t bytes);
bool stream_records(const struct CUstream_st *s);
/* What a launch or a copy on this stream returns before anything else: an error once the recording is spoilt, or where
 * the default stream is used while another is recorded. */
cudaError_t stream_check(struct CUstream_st *s);
/* Of a call that may not be made while a stream is recorded: spoils the recording. cudaSuccess where none is. */
cudaError_t stream_forbid(void);
void stream_finish(struct CUstream_st *s); /* until its queue is empty */
void streams_finish(void);
void streams_free(void);
StreamOp *stream_pending_on(const void *host, size_t bytes); /* work that touches this host memory, or NULL */
uint64_t stream_hash(const void *host, size_t bytes);        /* never 0 */
cudaError_t standin_fail(cudaError_t error);                 /* cudaGetLastError says so */

#endif
