/* workspace.h: how much the ops of this back may ask of dev_scratch, for the memory plan. Each line below stands
 * for the calls of dev_scratch in the file that it names. Needs the other parts of body.h before it. Tested by
 * tests/test_rl_memory.c, which trains and compares. */

static size_t whole_of(int n, int to) { return (size_t)((n + to - 1) / to * to); }
static size_t most_of(size_t a, size_t b) { return a > b ? a : b; }

/* attend_back.h. The head's width is not given, but it is at most kv and HEAD_DIM_MAX. */
static size_t workspace_attend(int threads, int q, int kv) {
    int width = kv < HEAD_DIM_MAX ? kv : HEAD_DIM_MAX, group = q / kv;
    int wide_c = (int)whole_of(BACK_CHAINS > group ? BACK_CHAINS : group, 32), wide_e = (int)whole_of(width, 32);
    size_t each = back_scratch(wide_e, wide_c, wide_e);
    return (3 * (size_t)wide_c + each * (size_t)threads) * sizeof(real);
}

static size_t op_workspace(int threads, int m, int dim, int hidden, int vocab, int q, int kv) {
    size_t rows = whole_of(m, 32), span = most_of(whole_of(m < SUM_MOST ? m : SUM_MOST, 32), 32);
    size_t input = most_of(whole_of(dim, 32), most_of(whole_of(q, 32), whole_of(hidden, 32)));
    size_t widest =
        most_of(most_of(input, HEAD_SPAN), most_of(whole_of(2 * hidden, 32), whole_of(q + 2 * kv, 32)));
    size_t blocks = (size_t)ceil_div(vocab, HEAD_BLOCK), cores = (size_t)threads;
    size_t each[] = {
        /* matmul.h: left_of, turn_of; attend.h, optim.h: less */
        most_of(rows * whole_of((int)widest, DW_ROWS) * sizeof(real), (size_t)SUMSQ_PIECE * sizeof(double)),
        /* matmul.h: right_of, of a layer and of the head; attend_back.h; sample.h */
        most_of(most_of(span * input, rows * whole_of(dim, 32)) * sizeof(real),
                most_of(workspace_attend(threads, q, kv), cores * (size_t)(vocab + 1) * sizeof(Candidate))),
        /* head.h: logits of a block for each thread; matmul.h: sums of product_dw */
        cores * most_of(sizeof(HeadRoom), DW_ROWS * DW_PANELS * 16 * sizeof(real)),
        /* head.h: log-sum-exps of the blocks; dlogits of a span (two of them in bf16), and a copy of x */
        most_of(rows * blocks * sizeof(HeadPart), rows * (HEAD_SPAN + whole_of(dim, 32)) * sizeof(real) + 64),
#ifdef TILES
        cores * int8_room((int)input / 2), /* matmul.h: panels of int8 on their way into tiles */
#endif
    };
    size_t sum = 0;
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        sum += each[i] + each[i] / 4 + 64; /* as dev_scratch grows */
    return sum;
}
