/* generate.c: problems made from a spec: sums, differences, products and chains of sums, with a part that is held
 * out of training by a rule on the numbers alone. Every problem of a kind has a number ("combo") from which its
 * numbers follow, so small spaces are listed and large ones drawn from. It must never learn of files or of
 * prompts. Tested by tests/test_datasets_generate.c.
 */
#include "datasets/internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PARTS_MAX = 8,
    TERMS_MAX = 8,
    LISTED_MAX = 1 << 20, /* spaces up to this are listed */
    SAMPLE_MAX = 1000,    /* problems held out of a space that is not */
    SAMPLE_TRIES = 1 << 21,
    DRAW_TRIES = 100000,
    TRIAL_DRAWS = 64,
    TRIAL_TRIES = 1000,
};

/* A kind of problem. To add one: write its three functions, add its row to `kinds`. */
typedef struct {
    const char *name;
    int terms; /* how many numbers; 0: as the spec says */
    bool (*valid)(const int64_t *numbers, int terms, uint64_t minus);
    char *(*text)(Arena *arena, const int64_t *numbers, int terms, uint64_t minus);
    int64_t (*answer)(const int64_t *numbers, int terms, uint64_t minus);
} Kind;

typedef struct {
    const Kind *kind;
    int64_t min, max;
    int terms;
    int64_t held[3]; /* A, B, M; M = 0: nothing is held out */
    uint64_t combos; /* all numbers and signs, valid or not */
    uint64_t *list;  /* [size] the combos of this part's side, or NULL when the space is too large */
    uint64_t size;
    const Problem **made; /* [size] the problems of the list, made when asked for */
} Part;

typedef struct {
    int part;
    uint64_t at; /* in the part's list */
} Step;

struct Generator {
    Part parts[PARTS_MAX];
    int n_parts;
    bool held_out;
    uint64_t seed;
    long size;
    Step *walk; /* [size] the held-out part in its order */
    Arena arena;
};

/* ---- the kinds; `minus` has a bit for each sign, the lowest for the sign before the second number ---- */

static bool any_valid(const int64_t *numbers, int terms, uint64_t minus) {
    (void)numbers, (void)terms, (void)minus;
    return true;
}

static bool difference_valid(const int64_t *numbers, int terms, uint64_t minus) {
    (void)terms, (void)minus;
    return numbers[0] >= numbers[1];
}

static char *sum_text(Arena *arena, const int64_t *numbers, int terms, uint64_t minus) {
    (void)terms, (void)minus;
    return arena_format(arena, "What is %lld + %lld?", (long long)numbers[0], (long long)numbers[1]);
}

static char *difference_text(Arena *arena, const int64_t *numbers, int terms, uint64_t minus) {
    (void)terms, (void)minus;
    return arena_format(arena, "What is %lld - %lld?", (long long)numbers[0], (long long)numbers[1]);
}

static char *product_text(Arena *arena, const int64_t *numbers, int terms, uint64_t minus) {
    (void)terms, (void)minus;
    return arena_format(arena, "What is %lld times %lld?", (long long)numbers[0], (long long)numbers[1]);
}

static int64_t sum_answer(const int64_t *numbers, int terms, uint64_t minus) {
    (void)terms, (void)minus;
    return numbers[0] + numbers[1];
}

static int64_t difference_answer(const int64_t *numbers, int terms, uint64_t minus) {
    (void)terms, (void)minus;
    return numbers[0] - numbers[1];
}

static int64_t product_answer(const int64_t *numbers, int terms, uint64_t minus) {
    (void)terms, (void)minus;
    return numbers[0] * numbers[1];
}

static int64_t chain_answer(const int64_t *numbers, int terms, uint64_t minus) {
    int64_t total = numbers[0];
    for (int i = 1; i < terms; i++) total += minus >> (i - 1) & 1 ? -numbers[i] : numbers[i];
    return total;
}

/* No step of a chain goes below zero. */
static bool chain_valid(const int64_t *numbers, int terms, uint64_t minus) {
    for (int n = 2; n <= terms; n++)
        if (chain_answer(numbers, n, minus) < 0) return false;
    return true;
}

static char *chain_text(Arena *arena, const int64_t *numbers, int terms, uint64_t minus) {
    char text[32 + TERMS_MAX * 16];
    int n = snprintf(text, sizeof text, "What is %lld", (long long)numbers[0]);
    for (int i = 1; i < terms; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %c %lld", minus >> (i - 1) & 1 ? '-' : '+',
                      (long long)numbers[i]);
    return arena_format(arena, "%s?", text);
}

static const Kind kinds[] = {
    {"sums", 2, any_valid, sum_text, sum_answer},
    {"differences", 2, difference_valid, difference_text, difference_answer},
    {"products", 2, any_valid, product_text, product_answer},
    {"chains", 0, chain_valid, chain_text, chain_answer},
};

static const char kind_names[] = "sums, differences, products, chains";

/* ---- from a combo to its numbers, and which side it is on ---- */

static uint64_t combo_numbers(const Part *part, uint64_t combo, int64_t *numbers) {
    uint64_t range = (uint64_t)(part->max - part->min) + 1;
    for (int i = part->terms - 1; i >= 0; i--, combo /= range) numbers[i] = part->min + (int64_t)(combo % range);
    return combo; /* what is left: the signs, for chains */
}

static int number_order(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The rule that keeps a problem out of training. It does not see the order of the numbers, nor the signs. */
static bool numbers_held(const Part *part, const int64_t *numbers) {
    const int64_t *held = part->held;
    if (!held[2]) return false;
    int64_t sorted[TERMS_MAX];
    memcpy(sorted, numbers, sizeof *sorted * (size_t)part->terms);
    qsort(sorted, (size_t)part->terms, sizeof *sorted, number_order);
    if (part->terms == 2) return (held[0] * sorted[0] + held[1] * sorted[1]) % held[2] == 0;
    uint64_t hash = rng_mix((uint64_t)held[0], (uint64_t)held[1]);
    for (int i = 0; i < part->terms; i++) hash = rng_mix(hash, (uint64_t)sorted[i]);
    return hash % (uint64_t)held[2] == 0;
}

/* An earlier part of the same kind whose range takes in these numbers already has the problem. */
static bool numbers_repeat(const Generator *generator, const Part *part, const int64_t *numbers) {
    for (const Part *other = generator->parts; other < part; other++) {
        bool inside = other->kind == part->kind && other->terms == part->terms;
        for (int i = 0; inside && i < part->terms; i++)
            inside = numbers[i] >= other->min && numbers[i] <= other->max;
        if (inside) return true;
    }
    return false;
}

static bool combo_wanted(const Generator *generator, const Part *part, uint64_t combo) {
    int64_t numbers[TERMS_MAX];
    uint64_t minus = combo_numbers(part, combo, numbers);
    return part->kind->valid(numbers, part->terms, minus) && numbers_held(part, numbers) == generator->held_out &&
           !numbers_repeat(generator, part, numbers);
}

static const Problem *problem_make(Arena *arena, const Part *part, uint64_t combo) {
    int64_t numbers[TERMS_MAX];
    uint64_t minus = combo_numbers(part, combo, numbers);
    Problem *problem = arena_alloc(arena, 1, sizeof *problem);
    problem->problem = part->kind->text(arena, numbers, part->terms, minus);
    problem->kind = part->kind->name;
    problem->answer = arena_format(arena, "%lld", (long long)part->kind->answer(numbers, part->terms, minus));
    Buf id = {0};
    buf_text(&id, part->kind->name);
    for (int i = 0; i < part->terms; i++)
        buf_format(&id, "%c%lld", i && minus >> (i - 1) & 1 ? '~' : ':', (long long)numbers[i]);
    problem->id = arena_text(arena, id.p, id.n);
    buf_free(&id);
    return problem;
}

/* ---- the spec ---- */

static bool number_read(const char **text, char stop, int64_t lowest, int64_t highest, int64_t *out) {
    char *end;
    if (!(**text >= '0' && **text <= '9')) return false;
    long long value = strtoll(*text, &end, 10);
    if (value < lowest || value > highest || *end != stop) return false;
    *out = value;
    *text = end + (stop != 0);
    return true;
}

static bool setting_read(Part *part, const char *key, const char *value, Err *err) {
    const char *from = value;
    int64_t terms, *held = part->held;
    if (strcmp(key, "min") == 0 && number_read(&from, 0, 0, 1000000000, &part->min)) return true;
    if (strcmp(key, "max") == 0 && number_read(&from, 0, 0, 1000000000, &part->max)) return true;
    if (strcmp(key, "terms") == 0 && !part->kind->terms && number_read(&from, 0, 3, TERMS_MAX, &terms)) {
        part->terms = (int)terms;
        return true;
    }
    if (strcmp(key, "held") == 0 && number_read(&from, ',', 0, 1000000, &held[0]) &&
        number_read(&from, ',', 0, 1000000, &held[1]) && number_read(&from, 0, 2, 1000000, &held[2]))
        return true;
    return err_set(
        err, "generate:%s: bad setting %s=%s; there are min=N, max=N (0 to 1000000000), held=A,B,M (M from 2)%s",
        part->kind->name, key, value, part->kind->terms ? "" : " and terms=3 to 8");
}

static const Kind *kind_find(const char *name) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
    return NULL;
}

static bool part_count(Part *part, Err *err) {
    uint64_t range = (uint64_t)(part->max - part->min) + 1, most = (uint64_t)1 << 60;
    part->combos = (uint64_t)1 << (part->kind->terms ? 0 : part->terms - 1);
    for (int i = 0; i < part->terms; i++) {
        if (part->combos > most / range)
            return err_set(err, "generate:%s: %d numbers from %lld to %lld are more problems than can be counted",
                           part->kind->name, part->terms, (long long)part->min, (long long)part->max);
        part->combos *= range;
    }
    return true;
}

static bool part_read(Part *part, char *spec, Err *err) {
    char *rest, *name = strtok_r(spec, ":", &rest);
    part->kind = name ? kind_find(name) : NULL;
    if (!part->kind) return err_set(err, "generate: no kind %s; there are %s", name ? name : "\"\"", kind_names);
    part->min = 2;
    part->max = strcmp(name, "products") == 0 ? 12 : 20;
    part->terms = part->kind->terms ? part->kind->terms : 3;
    for (char *setting; (setting = strtok_r(NULL, ":", &rest));) {
        char *equals = strchr(setting, '=');
        if (!equals) return err_set(err, "generate:%s: %s lacks its value (key=value)", name, setting);
        *equals = 0;
        if (!setting_read(part, setting, equals + 1, err)) return false;
    }
    if (part->min > part->max)
        return err_set(err, "generate:%s: min=%lld is above max=%lld", name, (long long)part->min,
                       (long long)part->max);
    return part_count(part, err);
}

static bool spec_read(Generator *generator, const char *spec, Err *err) {
    Buf copy = {0};
    buf_text(&copy, spec);
    char *rest;
    bool good = true;
    for (char *one = strtok_r(copy.p, "+", &rest); good && one; one = strtok_r(NULL, "+", &rest)) {
        if (generator->n_parts == PARTS_MAX)
            good = err_set(err, "generate: more than %d kinds are joined", PARTS_MAX);
        else
            good = part_read(&generator->parts[generator->n_parts++], one, err);
    }
    if (good && !generator->n_parts) good = err_set(err, "generate: no kind is named; there are %s", kind_names);
    /* One rule for each kind, or the training part of one could hold what another holds out. */
    for (int i = 0; good && i < generator->n_parts; i++)
        for (int j = 0; good && j < i; j++) {
            const Part *a = &generator->parts[i], *b = &generator->parts[j];
            if (a->kind == b->kind && a->terms == b->terms && memcmp(a->held, b->held, sizeof a->held) != 0)
                good = err_set(err, "generate: %s stands twice with different held=", a->kind->name);
        }
    buf_free(&copy);
    return good;
}

/* ---- the parts ---- */

static void part_list(const Generator *generator, Part *part) {
    uint64_t room = 0;
    for (uint64_t combo = 0; combo < part->combos; combo++) {
        if (!combo_wanted(generator, part, combo)) continue;
        if (part->size == room) {
            room = room ? 2 * room : 256;
            part->list = mem_grow(part->list, room, sizeof *part->list);
        }
        part->list[part->size++] = combo;
    }
    part->made = MEM_ARRAY(const Problem *, part->size);
}

static bool combo_draw(const Generator *generator, const Part *part, Rng *rng, long most_tries, uint64_t *combo) {
    for (long tries = 0; tries < most_tries; tries++) {
        *combo = rng_below(rng, part->combos);
        if (combo_wanted(generator, part, *combo)) return true;
    }
    return false;
}

/* Is the training side of a space too large to list dense enough that a draw never fails? Draws that all succeed
 * in so few tries mean a share above one half per cent, and then DRAW_TRIES tries do. */
static bool part_dense(const Generator *generator, const Part *part) {
    Rng rng = {0x74726961, 0}; /* "tria" */
    uint64_t combo;
    for (int i = 0; i < TRIAL_DRAWS; i++)
        if (!combo_draw(generator, part, &rng, TRIAL_TRIES, &combo)) return false;
    return true;
}

/* The held-out side of such a space: a sample of it, the same for every seed, kept as a list. */
static void part_sample(const Generator *generator, Part *part) {
    part->list = MEM_ARRAY(uint64_t, SAMPLE_MAX);
    part->made = MEM_ARRAY(const Problem *, SAMPLE_MAX);
    Rng rng = {0x68656c64, 0}; /* "held" */
    for (long tries = 0; tries < SAMPLE_TRIES && part->size < SAMPLE_MAX; tries++) {
        uint64_t combo = rng_below(&rng, part->combos), i = 0;
        if (!combo_wanted(generator, part, combo)) continue;
        while (i < part->size && part->list[i] != combo) i++;
        if (i == part->size) part->list[part->size++] = combo;
    }
}

static bool part_open(const Generator *generator, Part *part, Err *err) {
    if (generator->held_out && !part->held[2])
        return err_set(err, "generate:%s holds nothing out; say held=A,B,M (such as held=7,3,4)",
                       part->kind->name);
    if (part->combos <= LISTED_MAX)
        part_list(generator, part);
    else if (generator->held_out)
        part_sample(generator, part);
    else
        part->size = part_dense(generator, part) ? part->combos : 0;
    if (part->size) return true;
    return err_set(err,
                   "generate:%s: the %s part has no problems, or next to none; widen the range or change held=",
                   part->kind->name, generator->held_out ? "held-out" : "training");
}

/* The order of the held-out part is one for every seed, and mixed: the first of it are a fair sample. */
static void walk_make(Generator *generator, uint64_t total) {
    generator->walk = MEM_ARRAY(Step, total);
    uint64_t n = 0;
    for (int p = 0; p < generator->n_parts; p++)
        for (uint64_t i = 0; i < generator->parts[p].size; i++) generator->walk[n++] = (Step){p, i};
    Rng rng = {0x77616c6b, 0}; /* "walk" */
    for (uint64_t i = n - 1; i > 0; i--) {
        uint64_t j = rng_below(&rng, i + 1);
        Step kept = generator->walk[i];
        generator->walk[i] = generator->walk[j];
        generator->walk[j] = kept;
    }
}

Generator *generator_open(const char *spec, const SourceConf *conf, Err *err) {
    Generator *generator = MEM_NEW(Generator);
    generator->held_out = conf->held_out;
    generator->seed = conf->seed;
    bool good = spec_read(generator, spec, err);
    uint64_t total = 0;
    for (int p = 0; good && p < generator->n_parts; p++) {
        good = part_open(generator, &generator->parts[p], err);
        total += generator->parts[p].size;
    }
    if (!good) {
        generator_close(generator);
        return NULL;
    }
    if (generator->held_out) walk_make(generator, total);
    if (total > LONG_MAX) total = LONG_MAX;
    if (conf->max_problems && total > (uint64_t)conf->max_problems) total = (uint64_t)conf->max_problems;
    generator->size = (long)total;
    return generator;
}

long generator_size(const Generator *generator) { return generator->size; }

static const Problem *listed_at(Generator *generator, Part *part, uint64_t at) {
    if (!part->made[at]) part->made[at] = problem_make(&generator->arena, part, part->list[at]);
    return part->made[at];
}

const Problem *generator_at(Generator *generator, uint64_t place) {
    if (generator->held_out) {
        uint64_t at = place % (uint64_t)generator->size;
        return listed_at(generator, &generator->parts[generator->walk[at].part], generator->walk[at].at);
    }
    Part *part = &generator->parts[place % (uint64_t)generator->n_parts]; /* so each kind comes equally often */
    Rng rng = {rng_mix(rng_mix(generator->seed, 0x64726177), place), 0};  /* "draw" */
    if (part->list) return listed_at(generator, part, rng_below(&rng, part->size));
    uint64_t combo;
    CHECK(combo_draw(generator, part, &rng, DRAW_TRIES, &combo), "%s: nothing to draw at %llu", part->kind->name,
          (unsigned long long)place);
    return problem_make(&generator->arena, part, combo);
}

void generator_close(Generator *generator) {
    if (!generator) return;
    for (int p = 0; p < generator->n_parts; p++) {
        free(generator->parts[p].list);
        free(generator->parts[p].made);
    }
    free(generator->walk);
    arena_free(&generator->arena);
    free(generator);
}
