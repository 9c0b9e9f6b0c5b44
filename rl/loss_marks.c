/* loss_marks.c: which tokens of an update are treated apart: those of low entropy, and those with an unusual
 * covariance of advantage and log-probability. Both are questions to the whole update. Not here: what a mark does
 * to a token (loss.c). Tested by tests/test_rl_zoo.c. */
#include "rl/loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double value;
    uint64_t tie; /* smaller goes first among equals */
    int seq, token;
} Place;

static int by_value(const void *a, const void *b) {
    const Place *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->tie < y->tie ? -1 : x->tie > y->tie;
}

bool loss_needs_marks(const LossConf *conf) {
    return conf->pick != PICK_NONE || (conf->top_entropy > 0 && conf->top_entropy < 1);
}

/* All tokens that are in the loss, in order; unjudged sequences have no say. */
static Place *places_of(const LossConf *conf, const LossSeq *seqs, int n, long *count) {
    long room = 0, at = 0;
    for (int i = 0; i < n; i++) room += seqs[i].n;
    Place *places = MEM_ARRAY(Place, room + 1);
    for (int i = 0; i < n; i++) {
        if (seqs[i].unjudged || seq_left_out(conf, &seqs[i])) continue;
        for (int t = 0; t < seqs[i].n; t++)
            if (seq_has(&seqs[i], t)) places[at] = (Place){.tie = (uint64_t)at, .seq = i, .token = t}, at++;
    }
    *count = at;
    return places;
}

/* Tokens whose entropy is below the quantile 1 - top_entropy of all tokens' (arXiv 2506.01939). The quantile lies
 * between two values where they do, as torch.quantile's. */
static void mark_calm(const LossConf *conf, LossSeq *seqs, const LossLogps *in, Place *places, long n) {
    for (long i = 0; i < n; i++) places[i].value = (double)in[places[i].seq].entropy[places[i].token];
    qsort(places, (size_t)n, sizeof *places, by_value);
    double at = (1 - conf->top_entropy) * (double)(n - 1);
    long below = (long)floor(at), above = below + 1 < n ? below + 1 : below;
    double limit = places[below].value + (at - (double)below) * (places[above].value - places[below].value);
    for (long i = 0; i < n; i++)
        if (places[i].value < limit) seqs[places[i].seq].marks[places[i].token] |= MARK_CALM;
}

/* cov = (A - mean A) (logp - mean logp) of each token. */
static void covariances(const LossSeq *seqs, const LossLogps *in, Place *places, long n) {
    double advantage = 0, logp = 0;
    for (long i = 0; i < n; i++) {
        advantage += seqs[places[i].seq].advantage;
        logp += (double)in[places[i].seq].logp[places[i].token];
    }
    advantage /= (double)n, logp /= (double)n;
    for (long i = 0; i < n; i++)
        places[i].value =
            (seqs[places[i].seq].advantage - advantage) * ((double)in[places[i].seq].logp[places[i].token] - logp);
}

static long most_picked(const LossConf *conf, long n) { return (long)fmax(1, floor(conf->cov_share * (double)n)); }

/* kl_cov: the tokens of the greatest covariance (arXiv 2505.22617; verl). */
static void mark_held(const LossConf *conf, LossSeq *seqs, Place *places, long n) {
    for (long i = 0; i < n; i++) places[i].value = -places[i].value;
    qsort(places, (size_t)n, sizeof *places, by_value);
    for (long i = 0; i < n && i < most_picked(conf, n); i++)
        seqs[places[i].seq].marks[places[i].token] |= MARK_HELD;
}

static bool is_clipped(const LossConf *conf, const LossSeq *seq, const LossLogps *in, int t) {
    if (!in->old_logp) return false;
    double w = exp((double)in->logp[t] - (double)in->old_logp[t]), a = seq->advantage;
    return fmin(fmax(w, 1 - conf->epsilon), 1 + conf->epsilon_high) * a < w * a;
}

/* clip_cov: some, at random, of the tokens with a covariance between the bounds that PPO's clip does not stop
 * already. The choice is a function of the key and the token's place. */
static void mark_cut(const LossConf *conf, LossSeq *seqs, const LossLogps *in, Place *places, long n) {
    long candidates = 0, most = most_picked(conf, n);
    for (long i = 0; i < n; i++) {
        Place p = places[i];
        if (!(p.value > conf->cov_low && p.value < conf->cov_high)) continue;
        if (is_clipped(conf, &seqs[p.seq], &in[p.seq], p.token)) continue;
        p.value = 0, p.tie = rng_mix(conf->key, (uint64_t)i);
        places[candidates++] = p;
    }
    qsort(places, (size_t)candidates, sizeof *places, by_value);
    for (long i = 0; i < candidates && i < most; i++) seqs[places[i].seq].marks[places[i].token] |= MARK_CUT;
}

void loss_marks(const LossConf *conf, LossSeq *seqs, const LossLogps *in, int n) {
    long count;
    for (int i = 0; i < n; i++) memset(seqs[i].marks, 0, (size_t)seqs[i].n);
    Place *places = places_of(conf, seqs, n, &count);
    if (count > 0 && conf->pick != PICK_NONE) {
        covariances(seqs, in, places, count);
        if (conf->pick == PICK_KL_COV)
            mark_held(conf, seqs, places, count);
        else
            mark_cut(conf, seqs, in, places, count);
    }
    if (count > 0 && conf->top_entropy > 0 && conf->top_entropy < 1) {
        free(places);
        places = places_of(conf, seqs, n, &count);
        mark_calm(conf, seqs, in, places, count);
    }
    free(places);
}
