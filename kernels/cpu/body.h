/* body.h: every op of the CPU back, written once over the sixteen lanes of the vec_*.h that was included before.
 * Included by each path's file, which then defines its table with OPS_TABLE. */
#include "kernels/cpu/any.h"
#include "kernels/cpu/lse.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/attend_back.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/optim.h"
#include "kernels/cpu/roof.h"
#include "kernels/cpu/workspace.h"

#define OPS_TABLE(path_name)                                                                                      \
    {                                                                                                             \
        .name = path_name, .close = cpu_close, .mem_left = cpu_left, .mem_new = cpu_new, .mem_free = cpu_free,    \
        .put = cpu_put, .get = cpu_get, .zero = cpu_zero, .copy = op_copy, .scale = op_scale, .sync = cpu_sync,   \
        .mat_elements = cpu_mat_elements, .int8 = true, .pairs = true, .mat_pack = op_mat_pack,                                  \
        .kv_page_elements = cpu_kv_page_elements, .kv_zero = cpu_kv_zero, .kv_copy = op_kv_copy, .qkv = op_qkv,   \
        .qkv_back = op_qkv_back, .attend = op_attend, .attend_back = op_attend_back, .embed = op_embed,           \
        .embed_back = op_embed_back, .rmsnorm = op_rmsnorm, .rmsnorm_back = op_rmsnorm_back, .matmul = op_matmul, \
        .matmul_dx = op_matmul_dx, .matmul_dw = op_matmul_dw, .bias_back = op_bias_back, .glu = op_glu,           \
        .glu_back = op_glu_back, .gather = op_gather, .scatter = op_scatter, .logprob = op_logprob,               \
        .logprob_back = op_logprob_back, .softcap = op_softcap, .sample = op_sample, .adamw = op_adamw,           \
        .sumsq = op_sumsq, .add = op_add, .hash = cpu_hash, .roof_flops = op_roof_flops,                          \
        .roof_bytes = op_roof_bytes, .workspace = op_workspace,                                                   \
    }
