/* memory.h: the part of the CPU's table that is the same for every instruction set. Implemented in cpu.c. */
#ifndef WHET_CPU_MEMORY_H
#define WHET_CPU_MEMORY_H

#include "kernels/cpu/cpu.h"

void cpu_close(Dev *dev);
int64_t cpu_left(Dev *dev);
Ten cpu_new(Dev *dev, int rows, int cols, DType type);
void cpu_free(Dev *dev, Ten t);
void cpu_put(Dev *dev, Ten dst, const void *host);
void cpu_get(Dev *dev, void *host, Ten src);
uint64_t cpu_hash(Dev *dev, const Ten *parts, int n);
void cpu_zero(Dev *dev, Ten t);
void cpu_sync(Dev *dev);
size_t cpu_mat_elements(int n, int k);
size_t cpu_kv_page_elements(int heads, int head_dim, bool grad);
void cpu_kv_zero(Dev *dev, Kv *kv, int page);

#endif
