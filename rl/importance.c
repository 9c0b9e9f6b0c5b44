/* importance.c: see importance.h. */
#include "rl/importance.h"

#include <math.h>
#include <string.h>

bool importance_find(const char *mode, double clip_min, double clip_max, ImportanceConf *conf) {
    static const char *const modes[] = {"token_truncate", "token_mask", "sequence_truncate", "sequence_mask"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(mode, modes[i]) != 0) continue;
        *conf = (ImportanceConf){i >= 2, i % 2 == 1, clip_min, clip_max > 0 ? clip_max : INFINITY};
        return true;
    }
    return false;
}

static double bounded(const ImportanceConf *conf, double rho) {
    if (rho >= conf->least && rho <= conf->most) return rho;
    return conf->mask ? 0 : rho < conf->least ? conf->least : conf->most;
}

static void report_add(ImportanceReport *report, double weight) {
    bool first = report->weights++ == 0;
    report->weight_sum += weight;
    report->weight_least = first ? weight : fmin(report->weight_least, weight);
    report->weight_most = first ? weight : fmax(report->weight_most, weight);
}

void importance_weights(real *weight, ImportanceReport *report, const ImportanceConf *conf, const real *old_logp,
                        const real *sampled_logp, const bool *mask, int n) {
    double sum = 0;
    for (int t = 0; t < n; t++) {
        weight[t] = 0;
        if (mask && !mask[t]) continue;
        double diff = (double)old_logp[t] - (double)sampled_logp[t];
        sum += diff;
        report->tokens++, report->diff_sum += fabs(diff), report->diff_most = fmax(report->diff_most, fabs(diff));
        if (conf->sequence) continue;
        double one = bounded(conf, exp(diff));
        weight[t] = (real)one;
        report_add(report, one);
    }
    if (!conf->sequence) return;
    double one = bounded(conf, exp(sum));
    report_add(report, one);
    for (int t = 0; t < n; t++)
        if (!mask || mask[t]) weight[t] = (real)one;
}
