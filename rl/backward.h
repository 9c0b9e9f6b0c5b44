/* backward.h: the gradient of one batch: walks the tape of rollout/forward.c in reverse and mirrors it function by
 * function. Knows: the network. Must never know: losses, samples. Tested by tests/test_rl_learn.c. */
#ifndef WHET_RL_BACKWARD_H
#define WHET_RL_BACKWARD_H

#include "rollout/rollout.h"

/* The gradient's activations, for batches of up to max_rows rows. */
typedef struct {
    int max_rows;
    bool fresh;         /* the caller's: gradients of matrices are stored, not added to what was there */
    Ten dx_low;         /* [M, dim] compute type: the residual stream's gradient as products take it */
    Ten dnormed;        /* [M, dim] compute type */
    Ten dact;           /* [M, hidden] compute type */
    Ten dgate_up;       /* [M, 2 hidden] compute type */
    Ten dout;           /* [M, heads head_dim] compute type */
    Ten dq;             /* the same in K_REAL */
    Ten dqkv;           /* [M, (heads + 2 kv_heads) head_dim] compute type */
    Ten dturned;        /* the same in K_REAL, of heads after their norms; only where they are normed */
    Ten dlow_sum, dlow; /* [M, R] K_REAL and compute type: between an adapter's matrices */
} BackWork;

size_t back_work_bytes(const Conf *conf, DType type, int max_rows);
bool back_work_open(BackWork *back, Policy *policy, int max_rows, Err *err);
void back_work_close(BackWork *back, Policy *policy);

/* dstream[M, dim] K_REAL comes in as the gradient of what forward() returned, and leaves as that of the
 * embedding's rows. Adds to `grads` (the layout of the policy's masters; see BackWork.fresh) and to the pages of
 * dkv. */
void backward(Policy *policy, Ten grads, const Rows *rows, Kv *kv, Kv *dkv, const Tape *tape, Work *work,
              BackWork *back, Ten dstream);

#endif
