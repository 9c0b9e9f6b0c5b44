/* checkpoint.c: see checkpoint.h. */
#include "rl/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rl/reference.h"

/* ---- hashes ---- */

/* Of what is trained, in the order of Params, in one buffer after the other. */
static uint64_t hash_of(const Policy *policy, const Ten *buffers, int n_buffers) {
    const Params *params = &policy->params;
    Ten *parts = MEM_ARRAY(Ten, n_buffers * params->n + 1);
    int n = 0;
    for (int k = 0; k < n_buffers; k++)
        for (int i = 0; i < params->n; i++)
            if (params->items[i].trained) parts[n++] = params_view(params, i, buffers[k]);
    uint64_t value = k_hash(policy->dev, parts, n);
    free(parts);
    return value;
}

uint64_t weights_hash(const Policy *policy) { return hash_of(policy, &policy->master, 1); }

uint64_t moments_hash(const Policy *policy, Learner *learner) {
    Ten moment[2];
    learner_moments(learner, &moment[0], &moment[1]);
    return hash_of(policy, moment, 2);
}

/* ---- moments ---- */

/* Entry 2 i is the first moment of the i-th trained row, entry 2 i + 1 its second. */
typedef struct {
    Policy *policy;
    Ten moment[2];
    int *param; /* [n / 2] */
    TensorEntry *entries;
    int n;
    Arena arena;
} Moments;

static Moments moments_of(Policy *policy, Learner *learner) {
    Moments all = {.policy = policy};
    learner_moments(learner, &all.moment[0], &all.moment[1]);
    const Params *params = &policy->params;
    all.param = arena_alloc(&all.arena, (size_t)params->n, sizeof *all.param);
    all.entries = arena_alloc(&all.arena, 2 * (size_t)params->n, sizeof *all.entries);
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        if (!p->trained) continue;
        all.param[all.n / 2] = i;
        for (int k = 0; k < 2; k++)
            all.entries[all.n++] =
                (TensorEntry){arena_format(&all.arena, "%s.%s", p->name, k ? "exp_avg_sq" : "exp_avg"), p->rows,
                              p->cols, p->is_vector};
    }
    return all;
}

static bool moment_read(void *self, int index, float *out, Err *err) {
    (void)err;
    Moments *all = self;
    Ten t = params_view(&all->policy->params, all->param[index / 2], all->moment[index % 2]);
    if (sizeof(real) == sizeof(float)) {
        k_get(all->policy->dev, out, t);
        return true;
    }
    size_t n = (size_t)t.rows * (size_t)t.cols;
    real *wide = MEM_ARRAY(real, n);
    k_get(all->policy->dev, wide, t);
    for (size_t i = 0; i < n; i++) out[i] = (float)wide[i];
    free(wide);
    return true;
}

bool checkpoint_moments(const char *folder, Policy *policy, Learner *learner, Err *err) {
    char *path = NULL;
    if (asprintf(&path, "%s/optimizer.safetensors", folder) < 0) die("out of memory");
    Safetensors *file = safetensors_open(path, err);
    Moments all = moments_of(policy, learner);
    bool good = file != NULL;
    for (int i = 0; good && i < all.n; i++) {
        const TensorEntry *e = &all.entries[i];
        size_t n = (size_t)e->rows * (size_t)e->cols;
        float *host = MEM_ARRAY(float, n);
        real *wide = MEM_ARRAY(real, n);
        good = safetensors_read(file, e->name, e->rows, e->cols, host, err);
        for (size_t j = 0; j < n; j++) wide[j] = (real)host[j];
        if (good) k_put(policy->dev, params_view(&policy->params, all.param[i / 2], all.moment[i % 2]), wide);
        free(host);
        free(wide);
    }
    if (file) safetensors_close(file);
    arena_free(&all.arena);
    free(path);
    return good;
}

/* ---- counters ---- */

static bool file_write(const char *path, const char *text, size_t n, Err *err) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = file >= 0;
    for (size_t at = 0; good && at < n;) {
        ssize_t wrote = write(file, text + at, n - at);
        good = wrote > 0;
        if (good) at += (size_t)wrote;
    }
    good = good && fsync(file) == 0;
    int why = errno;
    if (file >= 0 && close(file) != 0) good = false;
    return good || err_set(err, "%s: cannot be written: %s", path, strerror(why));
}

static bool state_write(const char *folder, const TrainState *s, Err *err) {
    char hash[17], base[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, s->weight_hash);
    snprintf(base, sizeof base, "%016" PRIx64, s->base_hash);
    json_t *object =
        json_pack("{s:I, s:I, s:I, s:I, s:s, s:s*, s:I, s:f, s:f, s:f, s:s}", "global_step", (json_int_t)s->step,
                  "next_place", (json_int_t)s->next_place, "version", (json_int_t)s->version, "num_tokens",
                  (json_int_t)s->num_tokens, "weight_hash", hash, "base_hash", s->base_hash ? base : NULL,
                  "best_step", (json_int_t)s->best_step, "best_value", s->best_value, "entropy_coef",
                  s->entropy.coef, "last_entropy", s->entropy.entropy, "path", s->path);
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(17)), *path = NULL;
    if (!text || asprintf(&path, "%s/trainer_state.json", folder) < 0) die("out of memory");
    bool good = file_write(path, text, strlen(text), err);
    json_decref(object);
    free(text);
    free(path);
    return good;
}

bool checkpoint_state(const char *folder, TrainState *s, Err *err) {
    char *path = NULL;
    if (asprintf(&path, "%s/trainer_state.json", folder) < 0) die("out of memory");
    json_error_t why;
    json_t *object = json_load_file(path, 0, &why);
    json_int_t step, place, version, tokens, best;
    const char *hash, *base = NULL, *device;
    bool good =
        object &&
        json_unpack_ex(object, &why, 0, "{s:I, s:I, s:I, s:I, s:s, s?s, s:I, s:F, s?F, s?F, s:s}", "global_step",
                       &step, "next_place", &place, "version", &version, "num_tokens", &tokens, "weight_hash",
                       &hash, "base_hash", &base, "best_step", &best, "best_value", &s->best_value, "entropy_coef",
                       &s->entropy.coef, "last_entropy", &s->entropy.entropy, "path", &device) == 0;
    if (good) {
        s->step = (long)step, s->next_place = (uint64_t)place, s->version = version, s->num_tokens = tokens;
        s->best_step = (long)best, s->weight_hash = strtoull(hash, NULL, 16);
        s->base_hash = base ? strtoull(base, NULL, 16) : 0;
        snprintf(s->path, sizeof s->path, "%s", device);
    } else {
        err_set(err, "%s: no checkpoint that can be gone on from: %s", path, why.text);
    }
    json_decref(object);
    free(path);
    return good;
}

/* ---- folders ---- */

static bool folder_sync(const char *path) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = folder >= 0 && fsync(folder) == 0;
    if (folder >= 0) close(folder);
    return good;
}

static void parent_sync(const char *path) {
    const char *slash = strrchr(path, '/');
    char *parent = slash == path ? mem_text("/")
                   : slash       ? mem_text_n(path, (size_t)(slash - path))
                                 : mem_text(".");
    folder_sync(parent); /* what can't be synced is left to the file system */
    free(parent);
}

bool folder_make(const char *path, Err *err) {
    char *copy = mem_text(path);
    bool good = true;
    for (char *p = copy + 1; good; p++) {
        if (*p && *p != '/') continue;
        char end = *p;
        *p = 0;
        struct stat info;
        if (mkdir(copy, 0777) == 0)
            parent_sync(copy); /* a folder that a power failure takes away takes all that lies in it */
        else if (stat(copy, &info) != 0 || !S_ISDIR(info.st_mode))
            good = err_set(err, "%s: the folder cannot be made: %s", copy, strerror(errno));
        *p = end;
        if (!end) break;
    }
    free(copy);
    return good;
}

/* Removes a folder of plain files. */
static void folder_remove(const char *path) {
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder) closedir(folder);
    rmdir(path);
}

/* The step of a checkpoint's folder name; 0 for what is none, and -1 for what a crash left half written. */
static long checkpoint_step(const char *name) {
    long step;
    int end = 0;
    if (sscanf(name, "checkpoint-%ld%n", &step, &end) == 1 && step > 0 && name[end] == 0) return step;
    return strncmp(name, "tmp-checkpoint-", 15) == 0 ? -1 : 0;
}

static int compare_steps(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* Steps of all checkpoints, ascending; leftovers are removed when asked. */
static long *checkpoint_list(const char *output_dir, bool clean, int *n) {
    long *steps = NULL;
    *n = 0;
    DIR *folder = opendir(output_dir);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        long step = checkpoint_step(entry->d_name);
        if (step > 0) {
            steps = mem_grow(steps, (size_t)*n + 1, sizeof *steps);
            steps[(*n)++] = step;
        } else if (step < 0 && clean) {
            char *path = NULL;
            if (asprintf(&path, "%s/%s", output_dir, entry->d_name) < 0) die("out of memory");
            folder_remove(path);
            free(path);
        }
    }
    if (folder) closedir(folder);
    if (*n) qsort(steps, (size_t)*n, sizeof *steps, compare_steps);
    return steps;
}

char *checkpoint_find(const char *output_dir, const char *which) {
    char *path = NULL;
    if (strcmp(which, "last") != 0) return mem_text(which);
    int n;
    long *steps = checkpoint_list(output_dir, false, &n);
    if (n && asprintf(&path, "%s/checkpoint-%ld", output_dir, steps[n - 1]) < 0) die("out of memory");
    free(steps);
    return path;
}

char *checkpoint_before(const char *output_dir, long step) {
    char *path = NULL;
    int n;
    long *steps = checkpoint_list(output_dir, false, &n), best = -1;
    for (int i = 0; i < n; i++)
        if (steps[i] <= step && steps[i] > best) best = steps[i];
    if (best >= 0 && asprintf(&path, "%s/checkpoint-%ld", output_dir, best) < 0) die("out of memory");
    free(steps);
    return path;
}

/* Under another name first: what a crash leaves of it is then no checkpoint, and goes at the next start. */
static void checkpoint_remove(const char *output_dir, const char *path, long step) {
    char *aside = NULL;
    if (asprintf(&aside, "%s/tmp-checkpoint-%ld-old", output_dir, step) < 0) die("out of memory");
    folder_remove(aside);
    folder_remove(rename(path, aside) == 0 ? aside : path);
    free(aside);
}

void checkpoint_prune(const char *output_dir, long keep, long best_step) {
    int n;
    long *steps = checkpoint_list(output_dir, true, &n);
    for (int i = 0; keep > 0 && i < n - keep; i++) {
        char *path = NULL;
        if (steps[i] == best_step) continue;
        if (asprintf(&path, "%s/checkpoint-%ld", output_dir, steps[i]) < 0) die("out of memory");
        checkpoint_remove(output_dir, path, steps[i]);
        free(path);
    }
    free(steps);
}

bool run_remove(const char *output_dir, Err *err) {
    static const char *const files[] = {"run.db", "run.db-wal", "run.db-shm", "run.db-journal", "metrics.jsonl"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = NULL;
        if (asprintf(&path, "%s/%s", output_dir, files[i]) < 0) die("out of memory");
        bool good = unlink(path) == 0 || errno == ENOENT;
        if (!good) err_set(err, "%s: cannot be removed: %s", path, strerror(errno));
        free(path);
        if (!good) return false;
    }
    int n;
    long *steps = checkpoint_list(output_dir, true, &n);
    for (int i = 0; i < n; i++) {
        char *path = NULL;
        if (asprintf(&path, "%s/checkpoint-%ld", output_dir, steps[i]) < 0) die("out of memory");
        folder_remove(path);
        free(path);
    }
    free(steps);
    return true;
}

/* ---- save ---- */

/* The whole model, or the adapters where these alone learn. */
static bool write_weights(const char *folder, const CheckpointParts *parts, Err *err) {
    const Params *params = &parts->policy->params;
    if (parts->policy->conf.lora.r)
        return adapter_save(folder, parts->policy, parts->tok, parts->chat_template, parts->prompt_template, err);
    TensorEntry *entries = MEM_ARRAY(TensorEntry, params->n);
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        entries[i] = (TensorEntry){p->name, p->rows, p->cols, p->is_vector};
    }
    bool good = model_save(folder, &parts->policy->conf, parts->tok, parts->chat_template, parts->prompt_template,
                           entries, params->n, false, policy_read, parts->policy, err);
    free(entries);
    return good;
}

static bool write_parts(const char *folder, const TrainState *state, const CheckpointParts *parts, Err *err) {
    if (!write_weights(folder, parts, err)) return false;
    Moments all = moments_of(parts->policy, parts->learner);
    char *path = NULL;
    if (asprintf(&path, "%s/optimizer.safetensors", folder) < 0) die("out of memory");
    bool good = safetensors_write(path, all.entries, all.n, false, moment_read, &all, NULL, err);
    free(path);
    arena_free(&all.arena);
    if (good && parts->reference) good = reference_write(folder, parts->reference, err);
    return good && state_write(folder, state, err);
}

bool checkpoint_save(const char *output_dir, const TrainState *state, const CheckpointParts *parts, Err *err) {
    char *partial = NULL, *final = NULL;
    if (asprintf(&partial, "%s/tmp-checkpoint-%ld", output_dir, state->step) < 0 ||
        asprintf(&final, "%s/checkpoint-%ld", output_dir, state->step) < 0)
        die("out of memory");
    folder_remove(partial);
    bool good = folder_make(partial, err) && write_parts(partial, state, parts, err);
    if (good) {
        /* A checkpoint of the same step, made by a run that was learnt again: the same bytes. */
        checkpoint_remove(output_dir, final, state->step);
        good = folder_sync(partial) && rename(partial, final) == 0 && folder_sync(output_dir);
        if (!good) err_set(err, "%s: the checkpoint cannot be put in place: %s", final, strerror(errno));
    }
    if (!good) folder_remove(partial);
    free(partial);
    free(final);
    return good;
}
