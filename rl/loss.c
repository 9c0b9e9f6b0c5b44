/* loss.c: the policy losses. Not here: advantages (advantage.c), which tokens an update marks (loss_marks.c), and
 * how log-probabilities come about (the head).
 *
 * A further variant is a row of `losses` and, when its term differs, a function of one token below. Tested by
 * tests/test_rl_loss.c and tests/test_rl_zoo.c. */
#include "rl/loss.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    LossTerm term;
    LossSum sum;
    LossPick pick;
} losses[] = {
    {"grpo", TERM_CLIP, SUM_SEQUENCE, PICK_NONE},      {"dr_grpo", TERM_CLIP, SUM_CONSTANT, PICK_NONE},
    {"dapo", TERM_CLIP, SUM_TOKEN, PICK_NONE},         {"bnpo", TERM_CLIP, SUM_TOKEN, PICK_NONE},
    {"luspo", TERM_CLIP, SUM_SEQUENCE_SUM, PICK_NONE}, {"cispo", TERM_CISPO, SUM_TOKEN, PICK_NONE},
    {"sapo", TERM_SAPO, SUM_SEQUENCE, PICK_NONE},      {"vespo", TERM_VESPO, SUM_TOKEN, PICK_NONE},
    {"gmpo", TERM_GMPO, SUM_SEQUENCE, PICK_NONE},      {"gpg", TERM_GPG, SUM_TOKEN, PICK_NONE},
    {"clip_cov", TERM_CLIP, SUM_TOKEN, PICK_CLIP_COV}, {"kl_cov", TERM_RATIO, SUM_TOKEN, PICK_KL_COV},
};

static int name_find(const char *name, const char *const *names, int n) {
    for (int i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0) return i;
    return -1;
}

bool loss_find(const char *name, LossConf *conf) {
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        if (strcmp(name, losses[i].name) != 0) continue;
        conf->term = losses[i].term, conf->sum = losses[i].sum, conf->pick = losses[i].pick;
        return true;
    }
    return false;
}

bool loss_sum_find(const char *name, LossSum *sum) {
    static const char *const names[] = {[SUM_SEQUENCE] = "sequence",
                                        [SUM_CONSTANT] = "constant",
                                        [SUM_TOKEN] = "token",
                                        [SUM_SEQUENCE_SUM] = "sequence_sum"};
    int at = name_find(name, names, 4);
    if (at >= 0) *sum = (LossSum)at;
    return at >= 0;
}

bool ratio_level_find(const char *name, RatioLevel *level) {
    static const char *const names[] = {
        [LEVEL_TOKEN] = "token", [LEVEL_SEQUENCE] = "sequence", [LEVEL_SEQUENCE_TOKEN] = "sequence_token"};
    int at = name_find(name, names, 3);
    if (at >= 0) *level = (RatioLevel)at;
    return at >= 0;
}

bool kl_find(const char *name, KlKind *kind) {
    static const char *const names[] = {[KL_K1] = "k1", [KL_K2] = "k2", [KL_K3] = "k3"};
    int at = name_find(name, names, 3);
    if (at >= 0) *kind = (KlKind)at;
    return at >= 0;
}

/* ---- what is counted ---------------------------------------------------------------------------------------- */

/* Tokens of the sequence that are in the loss. A truncated sequence that is masked keeps its place among the
 * sequences, as in TRL, but none of its tokens. */
static long seq_tokens(const LossConf *conf, const LossSeq *seq) {
    long tokens = 0;
    if (seq_left_out(conf, seq)) return 0;
    for (int t = 0; t < seq->n; t++) tokens += seq_has(seq, t);
    return tokens;
}

static int mark_of(const LossSeq *seq, int t) { return seq->marks ? seq->marks[t] : 0; }

LossNorm loss_norm(const LossConf *conf, const LossSeq *seqs, int n) {
    LossNorm norm = {.sequences = n};
    for (int i = 0; i < n; i++) {
        norm.tokens += seq_tokens(conf, &seqs[i]);
        if (seq_left_out(conf, &seqs[i])) continue;
        for (int t = 0; t < seqs[i].n; t++)
            norm.active += seq_has(&seqs[i], t) && !(mark_of(&seqs[i], t) & MARK_CALM);
    }
    return norm;
}

bool loss_has_gradient(const LossConf *conf, const LossSeq *seq) {
    bool any = seq->advantage != 0 || conf->beta != 0 || conf->entropy_coef != 0 || conf->watch_entropy ||
               conf->pick == PICK_KL_COV;
    return any && !seq->unjudged && seq_tokens(conf, seq) > 0;
}

static double token_weight(const LossConf *conf, const LossNorm *norm, long tokens) {
    double sequences = (double)norm->sequences;
    switch (conf->sum) {
    case SUM_SEQUENCE:
        return 1 / (sequences * (double)tokens);
    case SUM_CONSTANT:
        return 1 / (sequences * conf->max_completion_length);
    case SUM_TOKEN:
        return 1 / (double)norm->tokens;
    case SUM_SEQUENCE_SUM:
        return 1 / sequences;
    }
    CHECK(false, "sum %d", (int)conf->sum);
}

/* The bonus is the mean entropy of the active tokens, whatever the policy's term is divided by (TRL). */
double loss_entropy_coef(const LossConf *conf, const LossNorm *norm, const LossSeq *seq, int t) {
    bool in = conf->entropy_coef != 0 && !seq->unjudged && !seq_left_out(conf, seq) && seq_has(seq, t) &&
              !(mark_of(seq, t) & MARK_CALM);
    return in ? -conf->entropy_coef / (double)norm->active : 0;
}

/* ---- one token ---------------------------------------------------------------------------------------------- */

/* A term and its derivatives: by the logarithm of the ratio, through which it depends on one or all tokens of the
 * sequence, and directly by the token's log-probability. */
typedef struct {
    double value, by_ratio, by_logp;
} Term;

static double clip(double x, double low, double high) { return fmin(fmax(x, low), high); }

/* PPO's clipped surrogate, -min(w A, clip(w, 1 - epsilon, 1 + epsilon_high) A) with w = exp(logp - old_logp)
 * (arXiv 1707.06347; two bounds: DAPO). Where the clipped branch is the smaller one the slope is 0. delta bounds w
 * in the first branch: for A < 0 the loss ends at delta |A| (dual clip, arXiv 1912.09729; INTELLECT-2,
 * 2505.07291). */
static Term clip_term(const LossConf *conf, double w, double a) {
    double bound = conf->delta > 0 ? fmin(w, conf->delta) : w;
    double clipped = clip(w, 1 - conf->epsilon, 1 + conf->epsilon_high);
    if (bound * a <= clipped * a) return (Term){-bound * a, bound == w ? -w * a : 0, 0};
    return (Term){-clipped * a, 0, 0};
}

/* CISPO: the capped ratio is a constant weight of REINFORCE, so that no token loses its gradient; epsilon_high is
 * the cap itself (MiniMax-M1, arXiv 2506.13585; TRL). */
static Term cispo_term(const LossConf *conf, double w, double a, double logp) {
    double weight = fmin(w, conf->epsilon_high);
    return (Term){-weight * a * logp, 0, -weight * a};
}

/* SAPO: -(4 / tau) sigmoid(tau (w - 1)) A; a soft gate instead of the clip (arXiv 2511.20347). */
static Term sapo_term(const LossConf *conf, double w, double a) {
    double tau = a > 0 ? conf->sapo_pos : conf->sapo_neg, s = 1 / (1 + exp(-tau * (w - 1)));
    return (Term){-4 / tau * s * a, -4 * s * (1 - s) * w * a, 0};
}

/* VESPO: -phi A logp with phi = exp(lambda + k ln W - lambda W) a constant, W the whole sequence's ratio
 * (arXiv 2602.10693; TRL clamps ln W to ln 1e-8 .. 20). */
static Term vespo_term(const LossConf *conf, double log_w, double a, double logp) {
    double k = a >= 0 ? conf->vespo_k_pos : conf->vespo_k_neg;
    double lambda = fmax(a >= 0 ? conf->vespo_lambda_pos : conf->vespo_lambda_neg, 1e-4);
    double bounded = clip(log_w, log(1e-8), 20), phi = exp(lambda + k * bounded - lambda * exp(bounded));
    return (Term){-phi * a * logp, 0, -phi * a};
}

double kl_value(KlKind kind, double x) { return kind == KL_K1 ? x : kind == KL_K2 ? x * x / 2 : expm1(-x) + x; }

/* k1 = x; k2 = x^2 / 2; k3 = exp(-x) + x - 1, unbiased and never negative. expm1 keeps small differences exact. */
static Term kl_term(const LossConf *conf, double x, double w) {
    double slope = conf->kl == KL_K1 ? 1 : conf->kl == KL_K2 ? x : -expm1(-x), value = kl_value(conf->kl, x);
    if (!conf->kl_corrected) return (Term){value, 0, slope};
    return (Term){w * value, w * value, w * slope}; /* DeepSeek-V3.2, arXiv 2512.02556 */
}

/* ---- one sequence ------------------------------------------------------------------------------------------- */

/* What a sequence's tokens say together, and what they add up to. */
typedef struct {
    const LossConf *conf;
    const LossSeq *seq;
    const LossLogps *in;
    long tokens;
    double mean;    /* of logp - old_logp */
    double gmpo;    /* of the same, clipped on the side that A pushes to */
    double vespo;   /* sum of the same, each within +-20 */
    bool dropped;   /* off_policy */
    double through; /* the terms' derivatives by the sequence's ratio, summed */
    double policy, kl, ratio, max_ratio, entropy;
    long low, high, active;
} Seq;

static double log_ratio(const LossLogps *in, int t) {
    return (double)in->logp[t] - (double)(in->old_logp ? in->old_logp : in->logp)[t];
}

/* GMPO clips the logarithm, for A > 0 above and for A < 0 below (arXiv 2507.20673; verl's geo_mean). */
static bool gmpo_open(const LossConf *conf, double d, double a) {
    return a > 0 ? d <= conf->epsilon_high : a < 0 ? d >= -conf->epsilon : true;
}

static Seq seq_of(const LossConf *conf, const LossSeq *seq, const LossLogps *in, long tokens) {
    Seq s = {.conf = conf, .seq = seq, .in = in, .tokens = tokens};
    for (int t = 0; t < seq->n; t++) {
        if (!seq_has(seq, t)) continue;
        double d = log_ratio(in, t);
        s.mean += d;
        s.gmpo += gmpo_open(conf, d, seq->advantage) ? d
                  : seq->advantage > 0               ? conf->epsilon_high
                                                     : -conf->epsilon;
        s.vespo += clip(d, -20, 20);
    }
    s.mean /= (double)tokens, s.gmpo /= (double)tokens;
    /* Off-policy sequence mask, DeepSeek-V3.2, arXiv 2512.02556. */
    s.dropped = conf->off_policy > 0 && seq->advantage < 0 && -s.mean > conf->off_policy;
    return s;
}

/* GMPO has one ratio for a sequence too, but clips tokens. */
static bool clips_sequences(const LossConf *conf) { return conf->level != LEVEL_TOKEN && conf->term != TERM_GMPO; }

/* The ratio that token t's policy term and KL see. */
static double ratio_at(const Seq *s, double d) {
    if (s->conf->term == TERM_GMPO) return exp(s->gmpo);
    return exp(s->conf->level == LEVEL_TOKEN ? d : s->mean);
}

static Term policy_term(const Seq *s, int t, double w) {
    const LossConf *conf = s->conf;
    double a = s->seq->advantage, logp = (double)s->in->logp[t];
    if (a == 0 || s->dropped || mark_of(s->seq, t) & (MARK_CALM | MARK_CUT)) return (Term){0, 0, 0};
    switch (conf->term) {
    case TERM_CLIP:
        return clip_term(conf, w, a);
    case TERM_RATIO:
    case TERM_GMPO:
        return (Term){-w * a, -w * a, 0};
    case TERM_CISPO:
        return cispo_term(conf, w, a, logp);
    case TERM_SAPO:
        return sapo_term(conf, w, a);
    case TERM_VESPO:
        return vespo_term(conf, s->vespo, a, logp);
    case TERM_GPG: /* REINFORCE: -logp A (arXiv 2504.02546; verl) */
        return (Term){-a * logp, 0, -a};
    }
    CHECK(false, "term %d", (int)conf->term);
}

/* TRL's definitions: low counts ratios below the lower bound with A < 0, high those above the upper with A > 0;
 * once for a sequence whose tokens share one ratio. */
static void count_clips(Seq *s, double d, double w) {
    const LossConf *conf = s->conf;
    double a = s->seq->advantage;
    bool low = w<1 - conf->epsilon, high = w> 1 + conf->epsilon_high;
    if (conf->term == TERM_CISPO) low = false, high = w > conf->epsilon_high;
    if (conf->term == TERM_GMPO) low = high = !gmpo_open(conf, d, a);
    s->low += low && a < 0;
    s->high += high && a > 0;
}

/* Token t's derivative without what goes through a sequence's ratio, which is added to s->through. */
static double token_slope(Seq *s, int t) {
    const LossConf *conf = s->conf;
    double d = log_ratio(s->in, t), w = ratio_at(s, d), kl_ratio = conf->level == LEVEL_TOKEN ? exp(d) : w;
    Term policy = policy_term(s, t, w), kl = {0, 0, 0};
    if (conf->beta != 0) kl = kl_term(conf, (double)s->in->logp[t] - (double)s->in->ref_logp[t], kl_ratio);
    if (mark_of(s->seq, t) & MARK_HELD) { /* kl_cov, arXiv 2505.22617 */
        policy.value += conf->cov_kl * fabs(d);
        policy.by_logp += conf->cov_kl * (d > 0 ? 1 : d < 0 ? -1 : 0);
    }
    if (s->in->weight) {
        double weight = (double)s->in->weight[t];
        policy = (Term){weight * policy.value, weight * policy.by_ratio, weight * policy.by_logp};
    }
    s->policy += policy.value;
    s->kl += kl.value;
    s->ratio += w;
    s->max_ratio = fmax(s->max_ratio, w);
    if (!clips_sequences(conf)) count_clips(s, d, w);
    double slope = policy.by_logp + conf->beta * kl.by_logp;
    if (conf->term == TERM_GMPO || conf->level == LEVEL_SEQUENCE)
        s->through += policy.by_ratio;
    else
        slope += policy.by_ratio;
    if (conf->level == LEVEL_SEQUENCE)
        s->through += conf->beta * kl.by_ratio;
    else
        slope += conf->beta * kl.by_ratio;
    return slope;
}

static void report_clips(LossReport *report, const LossConf *conf, long low, long high, long tokens) {
    long of = clips_sequences(conf) ? 1 : tokens;
    double low_share = (double)low / (double)of, high_share = (double)high / (double)of;
    report->low_min = report->sequences == 0 ? low_share : fmin(report->low_min, low_share);
    report->high_max = report->sequences == 0 ? high_share : fmax(report->high_max, high_share);
    report->low += low, report->high += high, report->clip_of += of;
    report->tokens += tokens;
    report->sequences++;
}

static void report_seq(LossReport *report, const Seq *s, double weight, double bonus) {
    report_clips(report, s->conf, s->low, s->high, s->tokens);
    report->policy_loss += weight * s->policy;
    report->loss += weight * (s->policy + s->conf->beta * s->kl) + bonus;
    report->kl += s->kl;
    report->entropy += s->entropy;
    report->active += s->active;
    report->ratio += s->ratio;
    report->ratio_tokens += s->tokens;
    report->max_ratio = fmax(report->max_ratio, s->max_ratio);
}

bool loss_coefs(real *coef, LossReport *report, const LossConf *conf, const LossNorm *norm, const LossSeq *seq,
                const LossLogps *in) {
    CHECK((in->ref_logp != NULL) == (conf->beta != 0), "beta %g, reference %p", conf->beta,
          (const void *)in->ref_logp);
    CHECK(in->entropy || conf->entropy_coef == 0, "an entropy bonus of %g without entropies", conf->entropy_coef);
    for (int t = 0; t < seq->n; t++) coef[t] = 0;
    if (!loss_has_gradient(conf, seq)) {
        loss_skip(report, conf, seq);
        return true;
    }
    long tokens = seq_tokens(conf, seq);
    double weight = token_weight(conf, norm, tokens);
    Seq s = seq_of(conf, seq, in, tokens);
    bool finite = true;
    for (int t = 0; t < seq->n; t++) {
        if (!seq_has(seq, t)) continue;
        coef[t] = (real)(weight * token_slope(&s, t));
        finite = finite && isfinite(coef[t]);
        if (in->entropy && !(mark_of(seq, t) & MARK_CALM)) s.entropy += (double)in->entropy[t], s.active++;
    }
    double bonus = conf->entropy_coef != 0 ? -conf->entropy_coef * s.entropy / (double)norm->active : 0;
    if (clips_sequences(conf)) count_clips(&s, s.mean, exp(s.mean));
    double shared =
        weight * s.through / (double)tokens; /* d mean / d logp[t] = 1 / tokens, where it is not clipped */
    for (int t = 0; shared != 0 && t < seq->n; t++)
        if (seq_has(seq, t) && (conf->term != TERM_GMPO || gmpo_open(conf, log_ratio(in, t), seq->advantage)))
            coef[t] = (real)((double)coef[t] + shared);
    finite = finite && isfinite(s.policy) && isfinite(s.kl) && isfinite(s.ratio) && isfinite(s.through) &&
             isfinite(bonus);
    if (!finite) {
        for (int t = 0; t < seq->n; t++) coef[t] = 0;
        return false;
    }
    report_seq(report, &s, weight, bonus);
    return true;
}

void loss_skip(LossReport *report, const LossConf *conf, const LossSeq *seq) {
    CHECK(!loss_has_gradient(conf, seq), "a sequence of %d tokens with advantage %g was skipped", seq->n,
          seq->advantage);
    long tokens = seq_tokens(conf, seq);
    if (tokens > 0) report_clips(report, conf, 0, 0, tokens);
}

LossMetrics loss_metrics(const LossReport *report) {
    double tokens = fmax(1, (double)report->tokens), of = fmax(1, (double)report->clip_of);
    return (LossMetrics){
        .loss = report->loss,
        .policy_loss = report->policy_loss,
        .kl = report->kl / tokens,
        .entropy = report->entropy / fmax(1, (double)report->active),
        .ratio_mean = report->ratio_tokens > 0 ? report->ratio / (double)report->ratio_tokens : 1,
        .ratio_max = report->ratio_tokens > 0 ? report->max_ratio : 1,
        .clip_low_mean = (double)report->low / of,
        .clip_low_min = report->low_min,
        .clip_high_mean = (double)report->high / of,
        .clip_high_max = report->high_max,
        .clip_region_mean = (double)(report->low + report->high) / of,
    };
}
