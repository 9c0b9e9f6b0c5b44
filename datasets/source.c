/* source.c: a Source is a file's rows or a generator, in a fixed endless order of places. Here is only the order;
 * rows.c reads files and generate.c makes problems. Tested by tests/test_datasets_source.c.
 */
#include "datasets/internal.h"

#include <stdlib.h>
#include <string.h>

static const char generated[] = "generate:";

struct Source {
    Generator *generator; /* or NULL, and then rows hold the problems */
    Rows rows;
    bool shuffle;
    uint64_t seed;
    long *order;    /* [rows.n] the order of one epoch, when shuffled */
    uint64_t epoch; /* which epoch `order` is of, plus one; 0: none yet */
};

Source *source_open(const SourceConf *conf, Err *err) {
    Source *source = MEM_NEW(Source);
    source->shuffle = conf->shuffle;
    source->seed = conf->seed;
    bool good;
    if (conf->n_files) {
        good = rows_read(&source->rows, conf, err);
    } else if (!conf->name || !*conf->name) {
        good = err_set(err, "no data set is named: give a .jsonl file or generate:SPEC");
    } else if (strncmp(conf->name, generated, strlen(generated)) == 0) {
        source->generator = generator_open(conf->name + strlen(generated), conf, err);
        good = source->generator != NULL;
    } else {
        good = rows_read(&source->rows, conf, err);
    }
    if (good) return source;
    free(source);
    return NULL;
}

long source_size(const Source *source) {
    return source->generator ? generator_size(source->generator) : source->rows.n;
}

/* Fisher and Yates, driven by a key of seed and epoch alone. */
static void order_make(Source *source, uint64_t epoch) {
    long n = source->rows.n;
    if (!source->order) source->order = MEM_ARRAY(long, n);
    for (long i = 0; i < n; i++) source->order[i] = i;
    Rng rng = {rng_mix(rng_mix(source->seed, 0x6f72646572), epoch), 0}; /* "order" */
    for (long i = n - 1; i > 0; i--) {
        long j = (long)rng_below(&rng, (uint64_t)i + 1), kept = source->order[i];
        source->order[i] = source->order[j];
        source->order[j] = kept;
    }
    source->epoch = epoch + 1;
}

const Problem *source_at(Source *source, uint64_t place) {
    if (source->generator) return generator_at(source->generator, place);
    uint64_t n = (uint64_t)source->rows.n, epoch = place / n;
    long row = (long)(place % n);
    if (source->shuffle) {
        if (source->epoch != epoch + 1) order_make(source, epoch);
        row = source->order[row];
    }
    return &source->rows.rows[row];
}

long source_skipped(const Source *source) { return source->rows.skipped; }

const char *source_skipped_note(const Source *source) { return source->rows.note; }

void source_close(Source *source) {
    if (!source) return;
    generator_close(source->generator);
    rows_free(&source->rows);
    free(source->order);
    free(source);
}
