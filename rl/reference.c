/* reference.c: see reference.h. */
#include "rl/reference.h"

#include <stdio.h>
#include <stdlib.h>

void reference_follow(Policy *reference, const Policy *policy, double alpha) {
    CHECK(reference->params.n_trained == policy->params.n_trained, "%lld and %lld trained elements",
          (long long)reference->params.n_trained, (long long)policy->params.n_trained);
    for (int i = 0; i < policy->params.n; i++) {
        const Param *p = &policy->params.items[i];
        if (!p->trained) continue;
        size_t n = (size_t)p->rows * (size_t)p->cols;
        real *from = MEM_ARRAY(real, n), *to = MEM_ARRAY(real, n);
        k_get(policy->dev, from, policy_master(policy, i));
        k_get(reference->dev, to, policy_master(reference, i));
        for (size_t j = 0; j < n; j++) to[j] = (real)(alpha * (double)from[j] + (1 - alpha) * (double)to[j]);
        k_put(reference->dev, policy_master(reference, i), to);
        free(from);
        free(to);
    }
    policy_pack(reference);
}

static char *path_of(const char *folder) {
    char *path = NULL;
    if (asprintf(&path, "%s/reference.safetensors", folder) < 0) die("out of memory");
    return path;
}

bool reference_write(const char *folder, Policy *reference, Err *err) {
    const Params *params = &reference->params;
    TensorEntry *entries = MEM_ARRAY(TensorEntry, params->n);
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        entries[i] = (TensorEntry){p->name, p->rows, p->cols, p->is_vector};
    }
    char *path = path_of(folder);
    bool good = safetensors_write(path, entries, params->n, false, policy_read, reference, NULL, err);
    free(path);
    free(entries);
    return good;
}

bool reference_read(const char *folder, Policy *reference, Err *err) {
    char *path = path_of(folder);
    Safetensors *file = safetensors_open(path, err);
    bool good = file != NULL;
    for (int i = 0; good && i < reference->params.n; i++) {
        const Param *p = &reference->params.items[i];
        if (!p->trained) continue;
        size_t n = (size_t)p->rows * (size_t)p->cols;
        float *host = MEM_ARRAY(float, n);
        real *wide = MEM_ARRAY(real, n);
        good = safetensors_read(file, p->name, p->rows, p->cols, host, err);
        for (size_t j = 0; j < n; j++) wide[j] = (real)host[j];
        if (good) k_put(reference->dev, policy_master(reference, i), wide);
        free(host);
        free(wide);
    }
    if (good) policy_pack(reference);
    if (file) safetensors_close(file);
    free(path);
    return good;
}
