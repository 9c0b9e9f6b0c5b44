/* loss.c: the policy losses. Not here: advantages (advantage.c), and how log-probabilities come about (the head).
 *
 * A further variant is a case of loss_find's table, of token_weight (what its sum is divided by) and, when its
 * policy term differs, of policy_term. Tested by tests/test_rl_loss.c. */
#include "rl/loss.h"

#include <math.h>
#include <string.h>

bool loss_find(const char *name, LossKind *kind) {
    static const char *const names[] = {[LOSS_GRPO] = "grpo", [LOSS_DR_GRPO] = "dr_grpo", [LOSS_DAPO] = "dapo"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *kind = (LossKind)i;
            return true;
        }
    }
    return false;
}

/* ---- what is counted ---------------------------------------------------------------------------------------- */

static bool seq_has(const LossSeq *seq, int t) { return !seq->mask || seq->mask[t]; }

/* Tokens of the sequence that are in the loss. A truncated sequence that is masked keeps its place among the
 * sequences, as in TRL, but none of its tokens. */
static long seq_tokens(const LossConf *conf, const LossSeq *seq) {
    long tokens = 0;
    if (conf->mask_truncated_completions && seq->truncated) return 0;
    for (int t = 0; t < seq->n; t++) tokens += seq_has(seq, t);
    return tokens;
}

LossNorm loss_norm(const LossConf *conf, const LossSeq *seqs, int n) {
    LossNorm norm = {.sequences = n};
    for (int i = 0; i < n; i++) norm.tokens += seq_tokens(conf, &seqs[i]);
    return norm;
}

bool loss_has_gradient(const LossConf *conf, const LossSeq *seq) {
    return !seq->unjudged && (seq->advantage != 0 || conf->beta != 0) && seq_tokens(conf, seq) > 0;
}

/* What one token's loss is multiplied by: the aggregation, with B sequences in the update and L tokens in this
 * one. grpo:    mean over sequences of their mean over tokens, 1 / (B L)        DeepSeekMath, arXiv 2402.03300
 *   dr_grpo: a constant instead of the length, 1 / (B max_completion_length) Dr. GRPO, arXiv 2503.20783
 *   dapo:    mean over all tokens of the update                              DAPO, arXiv 2503.14476 */
static double token_weight(const LossConf *conf, const LossNorm *norm, long tokens) {
    double sequences = (double)norm->sequences;
    switch (conf->kind) {
    case LOSS_GRPO:
        return 1 / (sequences * (double)tokens);
    case LOSS_DR_GRPO:
        return 1 / (sequences * conf->max_completion_length);
    case LOSS_DAPO:
        return 1 / (double)norm->tokens;
    }
    CHECK(false, "loss kind %d", (int)conf->kind);
}

/* ---- one token ---------------------------------------------------------------------------------------------- */

typedef struct {
    double value, slope; /* the term, and its derivative by logp */
} Term;

/* PPO's clipped surrogate, -min(w A, clip(w, 1 - epsilon, 1 + epsilon_high) A) with w = exp(logp - old_logp)
 * (arXiv 1707.06347; two bounds: DAPO). Where the clipped branch is the smaller one the slope is 0. */
static Term policy_term(const LossConf *conf, double ratio, double advantage) {
    if (advantage == 0) return (Term){0, 0};
    double clipped = fmin(fmax(ratio, 1 - conf->epsilon), 1 + conf->epsilon_high);
    if (ratio * advantage <= clipped * advantage) return (Term){-ratio * advantage, -ratio * advantage};
    return (Term){-clipped * advantage, 0};
}

/* k3 = exp(-x) + x - 1 with x = logp - ref_logp: unbiased and never negative (J. Schulman, "Approximating KL
 * divergence", 2020). expm1 keeps small differences exact. */
static Term kl_term(double x) {
    double e = expm1(-x);
    return (Term){e + x, -e};
}

/* ---- one sequence ------------------------------------------------------------------------------------------- */

/* What the tokens of one sequence add up to. */
typedef struct {
    double policy, kl, ratio, max_ratio;
    long low, high;
} SeqSums;

/* TRL's definitions: low counts ratios below the lower bound with A < 0, high those above the upper with A > 0. */
static void count_clips(SeqSums *sums, const LossConf *conf, double ratio, double advantage) {
    sums->low += ratio < 1 - conf->epsilon && advantage < 0;
    sums->high += ratio > 1 + conf->epsilon_high && advantage > 0;
}

static void report_add(LossReport *report, const LossConf *conf, const SeqSums *sums, long tokens, double weight) {
    double low = (double)sums->low / (double)tokens, high = (double)sums->high / (double)tokens;
    report->low_min = report->sequences == 0 ? low : fmin(report->low_min, low);
    report->high_max = report->sequences == 0 ? high : fmax(report->high_max, high);
    report->policy_loss += weight * sums->policy;
    report->loss += weight * (sums->policy + conf->beta * sums->kl);
    report->kl += sums->kl;
    report->low += sums->low;
    report->high += sums->high;
    report->tokens += tokens;
    report->sequences++;
}

bool loss_coefs(real *coef, LossReport *report, const LossConf *conf, const LossNorm *norm, const LossSeq *seq,
                const real *logp, const real *old_logp, const real *ref_logp) {
    CHECK((ref_logp != NULL) == (conf->beta != 0), "beta %g, reference %p", conf->beta, (const void *)ref_logp);
    for (int t = 0; t < seq->n; t++) coef[t] = 0;
    if (!loss_has_gradient(conf, seq)) {
        loss_skip(report, conf, seq);
        return true;
    }
    long tokens = seq_tokens(conf, seq);
    double weight = token_weight(conf, norm, tokens);
    SeqSums sums = {0};
    for (int t = 0; t < seq->n; t++) {
        if (!seq_has(seq, t)) continue;
        double ratio = exp((double)logp[t] - (double)(old_logp ? old_logp : logp)[t]);
        Term policy = policy_term(conf, ratio, seq->advantage), kl = {0, 0};
        if (ref_logp) kl = kl_term((double)logp[t] - (double)ref_logp[t]);
        coef[t] = (real)(weight * (policy.slope + conf->beta * kl.slope));
        count_clips(&sums, conf, ratio, seq->advantage);
        sums.policy += policy.value;
        sums.kl += kl.value;
        sums.ratio += ratio;
        sums.max_ratio = fmax(sums.max_ratio, ratio);
        if (!isfinite(coef[t]) || !isfinite(sums.policy) || !isfinite(sums.kl) || !isfinite(sums.ratio)) {
            for (int i = 0; i < seq->n; i++) coef[i] = 0;
            return false;
        }
    }
    report_add(report, conf, &sums, tokens, weight);
    report->ratio += sums.ratio;
    report->ratio_tokens += tokens;
    report->max_ratio = fmax(report->max_ratio, sums.max_ratio);
    return true;
}

void loss_skip(LossReport *report, const LossConf *conf, const LossSeq *seq) {
    CHECK(!loss_has_gradient(conf, seq), "a sequence of %d tokens with advantage %g was skipped", seq->n,
          seq->advantage);
    long tokens = seq_tokens(conf, seq);
    SeqSums none = {0};
    if (tokens > 0) report_add(report, conf, &none, tokens, 0);
}

LossMetrics loss_metrics(const LossReport *report) {
    double tokens = fmax(1, (double)report->tokens), ratios = (double)report->ratio_tokens;
    return (LossMetrics){
        .loss = report->loss,
        .policy_loss = report->policy_loss,
        .kl = report->kl / tokens,
        .ratio_mean = report->ratio_tokens > 0 ? report->ratio / ratios : 1,
        .ratio_max = report->ratio_tokens > 0 ? report->max_ratio : 1,
        .clip_low_mean = (double)report->low / tokens,
        .clip_low_min = report->low_min,
        .clip_high_mean = (double)report->high / tokens,
        .clip_high_max = report->high_max,
        .clip_region_mean = (double)(report->low + report->high) / tokens,
    };
}
