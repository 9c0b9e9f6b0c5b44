/* pull.c: fetches a model's files over HTTP with libcurl: list, download, go on where it was cut off, check, keep.
 *
 * A file is written as NAME.part and takes its name only when size and hash are those of the hub's list. Tested by
 * tests/cmd_pull.sh.
 */
#include "rl/pull.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LIST = 64 << 20, MOST_NAME = 200 }; /* bytes */

typedef struct {
    const char *name, *hash; /* SHA-256, or git's SHA-1 of a blob */
    int64_t size;
    bool is_sha256;
} HubFile;

typedef struct {
    const PullConf *conf;
    CURL *curl;
    Arena arena;
    char *folder;
    HubFile *files;
    int n;
} Puller;

/* ---- HTTP ---- */

static bool curl_begin(Puller *p, const char *url, char *why) {
    CURL *c = p->curl;
    curl_easy_reset(c);
    why[0] = 0;
    return curl_easy_setopt(c, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_MAXREDIRS, 8L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 20L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 30L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_USERAGENT, "whet") == CURLE_OK;
}

static long status_of(const Puller *p) {
    long status = 0;
    curl_easy_getinfo(p->curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static const char *why_text(CURLcode code, const char *why) { return why[0] ? why : curl_easy_strerror(code); }

static void wait_before(int attempt) { usleep((useconds_t)(100000u << (attempt < 5 ? attempt : 5))); }

/* ---- the list of files ---- */

static size_t take_list(char *bytes, size_t size, size_t n, void *self) {
    Buf *buf = self;
    if (buf->n + size * n > MOST_LIST) return 0;
    buf_add(buf, bytes, size * n);
    return size * n;
}

static bool list_fetch(Puller *p, Buf *text, Err *err) {
    const PullConf *conf = p->conf;
    char *url = arena_format(&p->arena, "%s/api/models/%s/tree/%s?recursive=true", conf->base, conf->model,
                             conf->revision);
    char why[CURL_ERROR_SIZE];
    CURLcode code = CURLE_OK;
    for (int attempt = 0; attempt < conf->tries; attempt++) {
        if (attempt) wait_before(attempt);
        buf_clear(text);
        if (!curl_begin(p, url, why)) return err_set(err, "libcurl refuses its settings");
        curl_easy_setopt(p->curl, CURLOPT_WRITEFUNCTION, take_list);
        curl_easy_setopt(p->curl, CURLOPT_WRITEDATA, text);
        code = curl_easy_perform(p->curl);
        if (code == CURLE_OK) return true;
        if (status_of(p) == 401 || status_of(p) == 403 || status_of(p) == 404)
            return err_set(err, "%s: no such model at %s, or not open to everyone (status %ld): check the name",
                           conf->model, conf->base, status_of(p));
    }
    return err_set(err, "%s: the list of files can't be fetched (%s): check the network, then run again", url,
                   why_text(code, why));
}

/* A plain file name: it can lead nowhere but into the model's folder. */
static bool name_is_plain(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > MOST_NAME || name[0] == '.' || strchr(name, '/') || strchr(name, '\\')) return false;
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == '%' || *c == '?' || *c == '#') return false;
    return true;
}

static bool ends(const char *name, const char *end) {
    size_t n = strlen(name), k = strlen(end);
    return n >= k && strcmp(name + n - k, end) == 0;
}

/* What whet reads of a Hugging Face folder. */
static bool is_needed(const char *name) {
    static const char *const NAMES[] = {"config.json",           "generation_config.json", "tokenizer.json",
                                        "tokenizer_config.json", "chat_template.jinja",    "whet_template.txt"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(name, NAMES[i]) == 0) return true;
    return strncmp(name, "model", 5) == 0 && (ends(name, ".safetensors") || ends(name, ".safetensors.index.json"));
}

static bool is_asked(const PullConf *conf, const char *name, bool gguf_only) {
    for (const char *const *f = conf->files; f && *f; f++)
        if (strcmp(*f, name) == 0) return true;
    return !conf->files && (gguf_only ? ends(name, ".gguf") : is_needed(name));
}

/* A part of a split model whose first part it is not. */
static bool is_later_part(const char *name) {
    int number, count;
    size_t n = strlen(name);
    return n > 20 && sscanf(name + n - 20, "-%5d-of-%5d.gguf", &number, &count) == 2 && number > 1;
}

static bool entry_take(Puller *p, const json_t *entry, Err *err) {
    const json_t *lfs = json_object_get(entry, "lfs");
    const char *name = json_string_value(json_object_get(entry, "path"));
    const char *hash = json_string_value(json_object_get(lfs ? lfs : entry, "oid"));
    const json_t *size = json_object_get(lfs ? lfs : entry, "size");
    if (hash && strncmp(hash, "sha256:", 7) == 0) hash += 7;
    if (!json_is_integer(size) || json_integer_value(size) < 0 || !hash || strlen(hash) != (lfs ? 64u : 40u))
        return err_set(err, "%s: the hub's list has no size or hash for %.100s", p->conf->model, name);
    p->files[p->n++] = (HubFile){arena_text(&p->arena, name, strlen(name)),
                                 arena_text(&p->arena, hash, strlen(hash)), json_integer_value(size), lfs != NULL};
    return true;
}

static bool files_choose(Puller *p, const json_t *list, Err *err) {
    const json_t *entry;
    size_t i;
    bool weights = false;
    int ggufs = 0, asked = 0;
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "path"));
        if (!name) continue;
        weights |= strncmp(name, "model", 5) == 0 && ends(name, ".safetensors");
        ggufs += ends(name, ".gguf") && !strchr(name, '/') && !is_later_part(name);
    }
    if (!p->conf->files && !weights && ggufs != 1)
        return err_set(err,
                       ggufs ? "%s: holds %d GGUF models: say by --files which to fetch"
                             : "%s: holds no model.safetensors and %d GGUF files: it is no model that whet reads",
                       p->conf->model, ggufs);
    p->files = arena_alloc(&p->arena, json_array_size(list), sizeof *p->files);
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "path")),
                   *type = json_string_value(json_object_get(entry, "type"));
        if (!name || !type || strcmp(type, "file") != 0 || !is_asked(p->conf, name, !weights)) continue;
        if (!name_is_plain(name)) return err_set(err, "%s: %.100s is no plain file name", p->conf->model, name);
        if (!entry_take(p, entry, err)) return false;
    }
    for (const char *const *f = p->conf->files; f && *f; f++) asked++;
    if (p->n == 0 || (asked && p->n != asked))
        return err_set(err, "%s: has %d of the %d files that are asked for: check the names", p->conf->model, p->n,
                       asked);
    return true;
}

static bool list_read(Puller *p, Err *err) {
    Buf text = {0};
    bool ok = list_fetch(p, &text, err);
    if (ok) {
        json_t *list = json_loadb(text.p ? text.p : "", text.n, 0, NULL);
        ok = json_is_array(list) ? files_choose(p, list, err)
                                 : err_set(err, "%s: the answer of %s is no list of files: check the base address",
                                           p->conf->model, p->conf->base);
        json_decref(list);
    }
    buf_free(&text);
    return ok;
}

/* ---- one file ---- */

typedef struct {
    const Puller *puller;
    const HubFile *file;
    int fd;
    int64_t have; /* bytes in the part */
    double said;
    int error; /* errno of a failed write, or 0 */
} Part;

static void progress_say(Part *part) {
    FILE *out = part->puller->conf->out;
    double now = clock_seconds();
    if (now - part->said < 1 || !out || !isatty(fileno(out))) return;
    part->said = now;
    fprintf(out, "\r%s: %.1f of %.1f MB", part->file->name, (double)part->have * 1e-6,
            (double)part->file->size * 1e-6);
    fflush(out);
}

static size_t take_bytes(char *bytes, size_t size, size_t n, void *self) {
    Part *part = self;
    size *= n;
    if (part->have + (int64_t)size > part->file->size) size = (size_t)(part->file->size - part->have) + 1;
    for (size_t done = 0; done < size;) {
        ssize_t k = write(part->fd, bytes + done, size - done);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            part->error = errno ? errno : EIO;
            return 0;
        }
        done += (size_t)k;
        part->have += k;
    }
    progress_say(part);
    return part->have > part->file->size ? 0 : size;
}

/* One attempt; true when it is worth another one or done, false on what time won't heal. */
static bool part_attempt(Puller *p, Part *part, const char *url, char *why, Err *err) {
    if (!curl_begin(p, url, why)) return err_set(err, "libcurl refuses its settings");
    curl_easy_setopt(p->curl, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(p->curl, CURLOPT_WRITEDATA, part);
    curl_easy_setopt(p->curl, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)part->have);
    CURLcode code = curl_easy_perform(p->curl);
    long status = status_of(p);
    if (part->error)
        return err_set(err,
                       "%s/%s.part: writing failed (%s): make room and run again, it goes on where it stopped",
                       p->folder, part->file->name, strerror(part->error));
    if (status >= 400 && status < 500 && status != 408 && status != 416 && status != 429)
        return err_set(err, "%s: the hub answers with status %ld", url, status);
    /* The hub can't go on in the middle, or what is here is no beginning of the file: from the front. */
    if (code == CURLE_RANGE_ERROR || status == 416 || part->have > part->file->size) {
        if (ftruncate(part->fd, 0) != 0 || lseek(part->fd, 0, SEEK_SET) != 0)
            return err_set(err, "%s.part: %s", part->file->name, strerror(errno));
        part->have = 0;
    }
    if (code != CURLE_OK && !why[0]) snprintf(why, CURL_ERROR_SIZE, "%s", curl_easy_strerror(code));
    return true;
}

static bool part_fetch(Puller *p, Part *part, Err *err) {
    char why[CURL_ERROR_SIZE] = "";
    char *url = arena_format(&p->arena, "%s/%s/resolve/%s/%s", p->conf->base, p->conf->model, p->conf->revision,
                             part->file->name);
    for (int attempt = 0; part->have < part->file->size || part->file->size == 0;) {
        int64_t before = part->have;
        if (!part_attempt(p, part, url, why, err)) return false;
        if (part->have == part->file->size) return true;
        attempt = part->have > before ? 0 : attempt + 1;
        if (attempt >= p->conf->tries)
            return err_set(err,
                           "%s: cut off after %lld of %lld bytes (%s): check the network, then run again, it goes "
                           "on there",
                           url, (long long)part->have, (long long)part->file->size,
                           why[0] ? why : "no more bytes");
        if (p->conf->out && part->have < part->file->size)
            fprintf(p->conf->out, "%s: cut off after %lld of %lld bytes, going on\n", part->file->name,
                    (long long)part->have, (long long)part->file->size);
        wait_before(attempt);
    }
    return true;
}

/* Whether the bytes of the part have the hub's hash: SHA-256, or the SHA-1 of git, which counts a head with them.
 */
static bool part_check(const Part *part) {
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    unsigned char digest[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1], *chunk = mem_alloc(1, 1 << 20);
    unsigned length = 0;
    CHECK(sum && EVP_DigestInit_ex(sum, part->file->is_sha256 ? EVP_sha256() : EVP_sha1(), NULL), "no hash");
    if (!part->file->is_sha256) {
        int n = snprintf(hex, sizeof hex, "blob %lld", (long long)part->file->size);
        EVP_DigestUpdate(sum, hex, (size_t)n + 1);
    }
    int64_t at = 0;
    for (ssize_t k; (k = pread(part->fd, chunk, 1 << 20, at)) > 0; at += k)
        EVP_DigestUpdate(sum, chunk, (size_t)k);
    free(chunk);
    EVP_DigestFinal_ex(sum, digest, &length);
    EVP_MD_CTX_free(sum);
    for (unsigned i = 0; i < length; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return at == part->file->size && strcmp(hex, part->file->hash) == 0;
}

static bool part_finish(const Puller *p, Part *part, const char *temporary, const char *final, Err *err) {
    if (fsync(part->fd) != 0 || rename(temporary, final) != 0)
        return err_set(err, "%s: can't be kept (%s): make room and run again", final, strerror(errno));
    if (p->conf->out)
        fprintf(p->conf->out, "%s%s: %.1f MB, hash right\n", isatty(fileno(p->conf->out)) ? "\r" : "",
                part->file->name, (double)part->file->size * 1e-6);
    return true;
}

static bool file_fetch(Puller *p, const HubFile *file, Err *err) {
    char *final = arena_format(&p->arena, "%s/%s", p->folder, file->name);
    char *temporary = arena_format(&p->arena, "%s.part", final);
    struct stat st;
    if (stat(final, &st) == 0 && st.st_size == file->size) {
        if (p->conf->out) fprintf(p->conf->out, "%s: there already\n", file->name);
        return true;
    }
    Part part = {.puller = p, .file = file, .fd = open(temporary, O_RDWR | O_CREAT | O_CLOEXEC, 0666)};
    if (part.fd < 0) return err_set(err, "%s: can't be written (%s)", temporary, strerror(errno));
    part.have = lseek(part.fd, 0, SEEK_END);
    bool ok = false, right = false;
    for (int attempt = 0; attempt < 2 && !right; attempt++) {
        ok = part_fetch(p, &part, err);
        right = ok && part_check(&part);
        if (!ok || right) break;
        if (ftruncate(part.fd, 0) != 0 || lseek(part.fd, 0, SEEK_SET) != 0) break;
        part.have = 0;
        if (p->conf->out) fprintf(p->conf->out, "%s: the hash is wrong, fetching it anew\n", file->name);
    }
    if (ok && !right)
        ok = err_set(err, "%s: the hash is not %s, twice: what %s gives is damaged or not what it lists",
                     file->name, file->hash, p->conf->base);
    ok = ok && part_finish(p, &part, temporary, final, err);
    close(part.fd);
    if (!ok && part.have == 0) unlink(temporary);
    return ok;
}

/* ---- the cache ---- */

char *cache_folder(const char *given) {
    Buf path = {0};
    const char *own = getenv("WHET_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (given || (own && own[0]))
        buf_text(&path, given ? given : own);
    else if (xdg && xdg[0])
        buf_format(&path, "%s/whet", xdg);
    else
        buf_format(&path, "%s/.cache/whet", home && home[0] ? home : "/tmp");
    return path.p;
}

/* ORG/MODEL, out of letters, digits, dots, dashes and underscores. */
bool cache_name(const char *name) {
    static const char GOOD[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strspn(name, GOOD), k = name[n] == '/' ? strspn(name + n + 1, GOOD) : 0;
    return n && k && !name[n + 1 + k] && name[0] != '.' && name[n + 1] != '.' && n + k < MOST_NAME;
}

char *cache_find(const char *name) {
    if (!cache_name(name)) return NULL;
    Buf path = {0};
    char *folder = cache_folder(NULL);
    buf_format(&path, "%s/%s", folder, name);
    free(folder);
    struct stat st;
    if (stat(path.p, &st) == 0) return path.p;
    buf_free(&path);
    return NULL;
}

static bool folders_make(char *path, Err *err) {
    for (char *slash = path;;) {
        slash = strchr(slash + 1, '/');
        if (slash) *slash = 0;
        bool ok = mkdir(path, 0777) == 0 || errno == EEXIST;
        if (!ok) err_set(err, "%s: can't be made (%s)", path, strerror(errno));
        if (slash) *slash = '/';
        if (!ok || !slash) return ok;
    }
}

static bool pull_all(Puller *p, Err *err) {
    char *cache = cache_folder(p->conf->cache);
    p->folder = arena_format(&p->arena, "%s/%s", cache, p->conf->model);
    free(cache);
    if (!list_read(p, err) || !folders_make(p->folder, err)) return false;
    for (int i = 0; i < p->n; i++)
        if (!file_fetch(p, &p->files[i], err)) return false;
    return true;
}

bool pull(const PullConf *conf, char **path, Err *err) {
    if (!cache_name(conf->model))
        return err_set(err, "%.100s: not the name of a model, which looks like ORG/MODEL", conf->model);
    Puller p = {.conf = conf, .curl = curl_easy_init()};
    bool ok = p.curl ? pull_all(&p, err) : err_set(err, "libcurl can't be started");
    if (ok) *path = mem_text(p.folder);
    curl_easy_cleanup(p.curl);
    arena_free(&p.arena);
    return ok;
}
