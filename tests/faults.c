/* faults.c: a library for LD_PRELOAD that makes the writes of a program go wrong. Used by tests/crash.py.
 *
 * What counts is each call that changes files below $FAULT_ROOT (write, pwrite, ftruncate, rename, unlink, mkdir,
 * rmdir, fsync, fdatasync, open that creates), numbered from 1. $FAULT_AT says at which of them $FAULT_KIND
 * happens: kill     the process is killed before the call power    the same, and what was not synced is lost, as
 * after a power failure: files fall back to what they held at their last sync, and folders to the names that they
 * had at theirs power-names, power-data    of these only the names, only the data are lost error    the call fails
 * with EIO, once full     this call and all later ones that need room fail with ENOSPC; a write puts down half of
 * its bytes first $FAULT_LOG takes a line for each call: its number, what it is, the file.
 *
 * For power failures every sync copies the file (or the names of the folder) into $FAULT_SHADOW, an empty folder
 * of the same process, by inode; at the failure the tree is made anew from there: what a folder named when it was
 * synced, with what each file held when that was synced. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int file, const void *bytes, size_t n, off64_t at);
int ftruncate64(int file, off64_t n);
int open64(const char *path, int flags, ...);

static char root[PATH_MAX], shadow[PATH_MAX];
static const char *kind = "";
static long at = -1, calls;
static int trace = -1;
static bool full;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static __thread bool inside; /* our own calls count nothing */

static void start_note(void);

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("FAULT_ROOT"), *when = getenv("FAULT_AT"), *how = getenv("FAULT_KIND"),
               *copies = getenv("FAULT_SHADOW");
    if (where && !realpath(where, root)) snprintf(root, sizeof root, "%s", where);
    if (when) at = atol(when);
    if (how) kind = how;
    if (copies && strncmp(kind, "power", 5) == 0) snprintf(shadow, sizeof shadow, "%s", copies);
    inside = true;
    const char *log = getenv("FAULT_LOG");
    if (log) trace = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    inside = false;
    start_note();
}

/* ---- which files ---- */

static bool below(const char *path) {
    size_t n = strlen(root);
    return n > 0 && strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static bool path_of(int file, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return false;
    path[n] = 0;
    return below(path);
}

static char named[PATH_MAX]; /* the file of the last call that is ours */

static bool ours(int file) { return root[0] && !inside && path_of(file, named); }

static bool ours_named(int folder, const char *path) {
    char base[PATH_MAX] = "";
    if (!root[0] || inside) return false;
    if (path[0] != '/' && (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(folder, base))) return false;
    snprintf(named, sizeof named, "%.2000s%s%.2000s", base, base[0] ? "/" : "", path);
    return below(named);
}

/* ---- what is on the disk for sure ---- */

/* Every inode that was ever noted stays open: its number is not given to another file, and what it holds can be
 * read also when it has lost its name. */
static struct {
    unsigned long inode;
    int file;
} pins[4096];
static int n_pins;

static int pin(const char *path, unsigned long inode) {
    for (int i = 0; i < n_pins; i++)
        if (pins[i].inode == inode) return pins[i].file;
    if (!path || n_pins == 4096) abort();
    pins[n_pins].inode = inode;
    if ((pins[n_pins].file = open(path, O_RDONLY | O_CLOEXEC)) < 0) abort();
    return pins[n_pins++].file;
}

static void shadow_path(char out[PATH_MAX], const char *sort, unsigned long inode) {
    snprintf(out, PATH_MAX, "%.3000s/%s-%lu", shadow, sort, inode);
}

static void copy(const char *from, const char *to) {
    char bytes[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    for (ssize_t n; in >= 0 && out >= 0 && (n = read(in, bytes, sizeof bytes)) > 0;)
        if (write(out, bytes, (size_t)n) != n) abort();
    if (in < 0 || out < 0) abort();
    close(in);
    close(out);
}

static void data_note(const char *path, unsigned long inode) {
    char to[PATH_MAX];
    pin(path, inode);
    shadow_path(to, "data", inode);
    copy(path, to);
}

/* The names of a folder: a line "KIND INODE NAME" for each. `all`: and all that lies in it, with its data. */
static void names_note(const char *path, unsigned long inode, bool all) {
    char to[PATH_MAX], name[PATH_MAX];
    shadow_path(to, "names", inode);
    pin(path, inode);
    FILE *list = fopen(to, "w");
    DIR *folder = opendir(path);
    if (!list || !folder) abort();
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        struct stat one;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(name, sizeof name, "%.2000s/%.1000s", path, entry->d_name);
        if (stat(name, &one) != 0) continue;
        pin(name, one.st_ino);
        fprintf(list, "%c %lu %s\n", S_ISDIR(one.st_mode) ? 'd' : 'f', (unsigned long)one.st_ino, entry->d_name);
        if (all && S_ISDIR(one.st_mode)) names_note(name, one.st_ino, all);
        if (all && S_ISREG(one.st_mode)) data_note(name, one.st_ino);
    }
    closedir(folder);
    fclose(list);
}

/* What is there when the program starts is taken to be on the disk. */
static void start_note(void) {
    struct stat info;
    if (!shadow[0] || stat(root, &info) != 0) return;
    inside = true;
    names_note(root, info.st_ino, true);
    inside = false;
}

static void synced(int file) {
    char path[PATH_MAX];
    struct stat info;
    if (!shadow[0] || !path_of(file, path) || fstat(file, &info) != 0) return;
    inside = true;
    if (S_ISDIR(info.st_mode))
        names_note(path, info.st_ino, false);
    else
        data_note(path, info.st_ino);
    inside = false;
}

/* ---- the power fails ---- */

static void remove_tree(const char *path) {
    char command[PATH_MAX + 16];
    unsetenv("LD_PRELOAD");
    snprintf(command, sizeof command, "rm -rf '%.3000s'", path);
    if (system(command) != 0) abort();
}

/* Only what files hold falls back: every name stays. */
static void fall_data(const char *path) {
    char name[PATH_MAX], from[PATH_MAX];
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        struct stat one;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(name, sizeof name, "%.2000s/%.1000s", path, entry->d_name);
        if (stat(name, &one) != 0) continue;
        shadow_path(from, "data", one.st_ino);
        if (S_ISDIR(one.st_mode))
            fall_data(name);
        else if (access(from, F_OK) == 0)
            copy(from, name);
        else if (truncate(name, 0) != 0)
            abort();
    }
    if (folder) closedir(folder);
}

/* Makes `to` what the folder with this inode was at its last sync. data: files hold what they held at theirs; else
 * what they hold now. */
static void rebuild(unsigned long inode, const char *to, bool data) {
    char path[PATH_MAX], name[PATH_MAX], line[PATH_MAX], from[PATH_MAX];
    if (mkdir(to, 0777) != 0) abort();
    shadow_path(path, "names", inode);
    FILE *list = fopen(path, "r"); /* none: it was never synced, and is empty */
    while (list && fgets(line, sizeof line, list)) {
        char sort;
        unsigned long one;
        int n = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%c %lu %n", &sort, &one, &n) != 2) abort();
        snprintf(name, sizeof name, "%.2000s/%.1000s", to, line + n);
        shadow_path(from, "data", one);
        if (!data) snprintf(from, sizeof from, "/proc/self/fd/%d", pin(NULL, one));
        if (sort == 'd')
            rebuild(one, name, data);
        else if (access(from, F_OK) == 0)
            copy(from, name);
        else
            close(open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666));
    }
    if (list) fclose(list);
}

static void power_fails(void) {
    char fresh[PATH_MAX];
    struct stat info;
    inside = true;
    if (strcmp(kind, "power-data") == 0) {
        fall_data(root);
        return;
    }
    if (stat(root, &info) != 0) abort();
    snprintf(fresh, sizeof fresh, "%.3000s.fresh", root);
    rebuild(info.st_ino, fresh, strcmp(kind, "power") == 0);
    remove_tree(root);
    if (rename(fresh, root) != 0) abort();
}

/* ---- one call ---- */

/* Counts a call; true when it must fail, with errno. */
static bool fails(const char *what, bool needs_room) {
    bool fail = false;
    pthread_mutex_lock(&lock);
    calls++;
    if (trace >= 0) dprintf(trace, "%ld %s %s\n", calls, what, named);
    if (calls == at) {
        if (strcmp(kind, "kill") == 0 || strncmp(kind, "power", 5) == 0) {
            if (kind[0] == 'p') power_fails();
            kill(getpid(), SIGKILL);
            pause();
        }
        fail = strcmp(kind, "error") == 0;
        full = full || strcmp(kind, "full") == 0;
        if (fail) errno = EIO;
    }
    if (full && needs_room) fail = true, errno = ENOSPC;
    pthread_mutex_unlock(&lock);
    return fail;
}

/* On a full disk some bytes still find room. */
static ssize_t part(ssize_t (*put)(int, const void *, size_t, off64_t), int file, const void *bytes, size_t n,
                    off64_t where) {
    if (errno == ENOSPC && n > 1 && calls == at) return put(file, bytes, n / 2, where);
    return -1;
}

ssize_t pwrite64(int file, const void *bytes, size_t n, off64_t where) {
    __typeof__(&pwrite64) put = REAL(pwrite64);
    if (!ours(file)) return put(file, bytes, n, where);
    return fails("pwrite", true) ? part(put, file, bytes, n, where) : put(file, bytes, n, where);
}
ssize_t pwrite(int file, const void *bytes, size_t n, off_t where) { return pwrite64(file, bytes, n, where); }

ssize_t write(int file, const void *bytes, size_t n) {
    __typeof__(&write) put = REAL(write);
    if (!ours(file) || !fails("write", true)) return put(file, bytes, n);
    return errno == ENOSPC && n > 1 && calls == at ? put(file, bytes, n / 2) : -1;
}

int ftruncate64(int file, off64_t n) {
    struct stat info;
    bool grows = fstat(file, &info) == 0 && n > info.st_size;
    return ours(file) && fails("truncate", grows) ? -1 : REAL(ftruncate64)(file, n);
}
int ftruncate(int file, off_t n) { return ftruncate64(file, n); }

int fsync(int file) {
    if (!ours(file)) return REAL(fsync)(file);
    if (fails("fsync", false)) return -1;
    int result = REAL(fsync)(file);
    if (result == 0) synced(file);
    return result;
}

int fdatasync(int file) {
    if (!ours(file)) return REAL(fdatasync)(file);
    if (fails("fdatasync", false)) return -1;
    int result = REAL(fdatasync)(file);
    if (result == 0) synced(file);
    return result;
}

int rename(const char *from, const char *to) {
    return ours_named(AT_FDCWD, to) && fails("rename", true) ? -1 : REAL(rename)(from, to);
}
int unlink(const char *path) {
    return ours_named(AT_FDCWD, path) && fails("unlink", false) ? -1 : REAL(unlink)(path);
}
int unlinkat(int folder, const char *path, int flags) {
    return ours_named(folder, path) && fails("unlink", false) ? -1 : REAL(unlinkat)(folder, path, flags);
}
int rmdir(const char *path) {
    return ours_named(AT_FDCWD, path) && fails("rmdir", false) ? -1 : REAL(rmdir)(path);
}
int mkdir(const char *path, mode_t mode) {
    return ours_named(AT_FDCWD, path) && fails("mkdir", true) ? -1 : REAL(mkdir)(path, mode);
}

static bool creates(const char *path, int flags) {
    return (flags & O_CREAT) && access(path, F_OK) != 0 && ours_named(AT_FDCWD, path);
}

int open64(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return creates(path, flags) && fails("create", true) ? -1 : REAL(open64)(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return creates(path, flags) && fails("create", true) ? -1 : REAL(open)(path, flags, mode);
}
