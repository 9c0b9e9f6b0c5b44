/* pull.h: fetches a model from a hub in Hugging Face's layout into a cache, and finds what is there.
 *
 * Knows: the hub's list of files (sizes, hashes), HTTP, the cache's folders. Must never know: what is in the
 * files. Ownership: PullConf's texts are the caller's; what cache_find returns is freed by the caller. Tested by
 * tests/cmd_pull.sh against a server on this machine.
 */
#ifndef WHET_RL_PULL_H
#define WHET_RL_PULL_H

#include "kernels/base.h"

#include <stdio.h>

typedef struct {
    const char *model; /* ORG/MODEL */
    const char *base, *revision, *cache;
    const char *const *files; /* names to fetch, NULL-terminated; NULL: what whet needs of the model */
    int tries;                /* of a file without any byte of progress */
    FILE *out;                /* progress: a line for each file */
} PullConf;

/* Fetches all files; what is there already is kept, what was cut off goes on. Hashes are checked. *path becomes
 * the folder, or the one .gguf file; the caller frees it. */
bool pull(const PullConf *conf, char **path, Err *err);

/* The cache's folder: `given`, or WHET_CACHE, or whet in XDG_CACHE_HOME or ~/.cache; the caller frees it. */
char *cache_folder(const char *given);
/* The folder of ORG/MODEL in the cache, when `name` is one and it is there; NULL otherwise. */
char *cache_find(const char *name);
bool cache_name(const char *name); /* whether it looks like ORG/MODEL */

#endif
