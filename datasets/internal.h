/* internal.h: what the files of datasets/ know of each other: the two kinds of Source. Nobody else includes it. */
#ifndef WHET_DATASETS_INTERNAL_H
#define WHET_DATASETS_INTERNAL_H

#include "datasets/datasets.h"

/* rows.c: the good rows of a JSONL file, all in memory, in the order of the file. */
typedef struct {
    Problem *rows; /* [n] */
    long n, skipped;
    char *note; /* names the first broken row, or NULL */
    Arena arena;
} Rows;
bool rows_read(Rows *rows, const SourceConf *conf, Err *err);
void rows_free(Rows *rows);

/* generate.c: problems made from a spec. */
typedef struct Generator Generator;
Generator *generator_open(const char *spec, const SourceConf *conf, Err *err);
long generator_size(const Generator *generator);
const Problem *generator_at(Generator *generator, uint64_t place);
void generator_close(Generator *generator);

#endif
