/* attend_tiles.h: attention over pages of bf16 with AMX's tiles: q k and p v for up to 32 chains. Included by
 * attend.h where TILES is defined. A page lies as tiles do: keys in pairs of features, values in pairs of keys. A
 * chain's row of a tile is its own arithmetic, so its bits do not depend on its neighbours. */

/* Tiles for this many chains; told once for as long as it stays the same. */
static inline void chains_shape(Chains *s, int chains) {
    if (s->shaped == chains) return;
    tiles_shape(chains);
    s->shaped = chains;
}

/* Fetches what lies `ahead` of a block, as far as it is another one. */
static inline void block_fetch(const uint16_t *block, int dim, ptrdiff_t ahead) {
    const char *p = (const char *)block;
    for (int i = 0; ahead && i < dim * KV_PAGE * 2; i += 64) __builtin_prefetch(p + ahead + i);
}

/* 16 pairs from pair `from` on, those from `end` on zero: as they lie, or copied to `room`. */
static const uint16_t *tile_of_pairs(const uint16_t *block, int from, int end, int row, uint16_t *room) {
    const uint16_t *p = block + (size_t)from * (size_t)row;
    if (end - from >= 16) return p;
    memcpy(room, p, (size_t)(end - from) * (size_t)row * sizeof *p);
    memset(room + (end - from) * row, 0, (size_t)(16 - end + from) * (size_t)row * sizeof *p);
    return room;
}

/* Scores of chains from .. to-1 with a block's 32 keys. */
static void tiles_scores(Chains *s, int from, int to, const uint16_t *k, int dim, ptrdiff_t ahead) {
    _Alignas(64) uint16_t room[16 * 2 * KV_PAGE];
    const size_t a_row = HEAD_DIM_MAX * 2, p_row = KV_PAGE * sizeof(real);
    const bool two = to - from > 16;
    const uint16_t *q = s->q_pairs + from * HEAD_DIM_MAX;
    real *p = s->p + from * KV_PAGE;
    chains_shape(s, to - from);
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int e = 0; e < dim; e += 32) {
        const uint16_t *b = tile_of_pairs(k, e / 2, dim / 2, 2 * KV_PAGE, room);
        TILE_LOAD(4, q + e, a_row);
        TILE_LOAD(6, b, 4 * KV_PAGE);
        TILE_LOAD(7, b + 32, 4 * KV_PAGE);
        TILE_DOT(0, 4, 6);
        TILE_DOT(1, 4, 7);
        if (!two) continue;
        TILE_LOAD(5, q + e + 16 * HEAD_DIM_MAX, a_row);
        TILE_DOT(2, 5, 6);
        TILE_DOT(3, 5, 7);
    }
    TILE_STORE(0, p, p_row);
    TILE_STORE(1, p + 16, p_row);
    if (two) {
        TILE_STORE(2, p + 16 * KV_PAGE, p_row);
        TILE_STORE(3, p + 16 * KV_PAGE + 16, p_row);
    }
    block_fetch(k, dim, ahead);
}

/* Output of chains from .. to-1: their probabilities times the values of a block's first `keys` keys. */
static void tiles_values(Chains *s, int from, int to, size_t wide, const uint16_t *v, int dim, int keys,
                         ptrdiff_t ahead) {
    _Alignas(64) uint16_t room[16 * 2 * HEAD_DIM_MAX + 32];
    const size_t o_row = wide * sizeof(real), v_row = (size_t)dim * 4;
    const bool two = to - from > 16;
    const uint16_t *p = s->p_pairs + from * KV_PAGE;
    const bool whole = keys == KV_PAGE && dim % 16 == 0; /* a tile ends at the block's end */
    const uint16_t *b = v;
    if (!whole) {
        memset(room, 0, 16 * v_row + 64);
        memcpy(room, v, (size_t)(keys / 2) * v_row);
        for (int e = 0; keys % 2 && e < dim; e++) room[(keys / 2 * dim + e) * 2] = v[(keys / 2 * dim + e) * 2];
        b = room;
    }
    chains_shape(s, to - from);
    TILE_LOAD(4, p, 2 * KV_PAGE);
    if (two) TILE_LOAD(5, p + 16 * KV_PAGE, 2 * KV_PAGE);
    for (int e = 0; e < dim; e += 32) {
        const bool more = e + 16 < dim;
        real *o = s->out + (size_t)from * wide + e, *below = o + 16 * wide;
        TILE_LOAD(6, b + 2 * e, v_row);
        TILE_LOAD(0, o, o_row);
        TILE_DOT(0, 4, 6);
        if (more) {
            TILE_LOAD(7, b + 2 * e + 32, v_row);
            TILE_LOAD(1, o + 16, o_row);
            TILE_DOT(1, 4, 7);
        }
        if (two) {
            TILE_LOAD(2, below, o_row);
            TILE_DOT(2, 5, 6);
        }
        if (two && more) {
            TILE_LOAD(3, below + 16, o_row);
            TILE_DOT(3, 5, 7);
            TILE_STORE(3, below + 16, o_row);
        }
        TILE_STORE(0, o, o_row);
        if (more) TILE_STORE(1, o + 16, o_row);
        if (two) TILE_STORE(2, below, o_row);
    }
    block_fetch(v, dim, ahead);
}
