/* standin.h: the stand-in for the CUDA runtime (cudart.c) beside its documented calls, for tests and for the
 * stand-in for cuBLASLt. Linked in place of libcudart_static.a with the very objects that nvcc and gcc made for
 * the product.
 *
 * Work that is given to a stream runs when something waits for it, and no sooner; work of several streams runs in
 * any order that events and the legacy default stream allow, by the seed. A stream can be recorded into a graph, whose
 * launches then read what lies behind the pointers that were recorded; calls that may not be made meanwhile fail and
 * spoil the recording, as they do on a GPU. Kernels are found by their names in the
 * .ptx files of a folder: $STANDIN_PTX, else what -DSTANDIN_PTX says. Other settings from the environment:
 * STANDIN_SEED, STANDIN_BYTES (of the device), STANDIN_THREADS, STANDIN_PERTURB=1, STANDIN_COUNTS=FILE (the
 * counters of every kernel at the end), STANDIN_PEAK=FILE (the most bytes of the device that were in use).
 *
 * What goes wrong is printed as `stand-in: CHECK: ...` and ends the process with status 86, or calls
 * standin_on_error. Checks beside those of ptx.h: stream (a handle that is none), pending (host memory of a copy
 * that is under way was changed), host-memory, deadlock, graph, cublas. */
#ifndef TESTS_PTX_STANDIN_H
#define TESTS_PTX_STANDIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern void (*standin_on_error)(const char *message);
_Noreturn void standin_stop(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Queues run(payload) on a stream (NULL: the default stream); the payload is copied. */
void standin_queue(void *stream, void (*run)(void *payload), const void *payload, size_t bytes);
/* The host's view of device memory, checked; stops when it is not all in one live allocation, or (read) not
 * written. */
void *standin_device(const void *p, size_t bytes, const char *what, int read);
void standin_mark(const void *p, size_t bytes); /* device memory that now is written */
bool standin_is_device(const void *p);
uint64_t standin_seed(void);
void standin_open(void);         /* reads the settings; every call of the runtime does it */
void standin_catch_faults(void); /* done once; again after another (cmocka) took the signal */
void standin_counts_print(const char *path);
long standin_pending(void); /* operations that wait in the streams */
long standin_graphs(void);  /* graphs and executable graphs that were not destroyed */
long standin_graph_launches(void);

#endif
