/* code.h: the parts of the code rewarder. Private to reward/.
 *
 * The caller's side (code.c) only sends and receives; the worker process (code_worker.c) runs jobs in slots
 * (code_slot.c), each with two boxes (sandbox.h). A Job is one row: the program, its tests, and what came out. */
#ifndef WHET_REWARD_CODE_H
#define WHET_REWARD_CODE_H

#include <jansson.h>

#include "reward/reward.h"
#include "reward/sandbox.h"

typedef enum {
    VERDICT_PASS,
    VERDICT_WRONG_ANSWER,
    VERDICT_TIME,
    VERDICT_MEMORY,
    VERDICT_OUTPUT,
    VERDICT_PROCESSES,
    VERDICT_RUNTIME,
    VERDICT_COMPILE,
    VERDICT_NO_CODE,
    VERDICT_SANDBOX,
    VERDICT_COUNT
} Verdict;

const char *verdict_name(Verdict verdict);
Verdict verdict_named(const char *name); /* VERDICT_COUNT when there is none of this name */

/* A language: one row of the table in code_job.c. */
typedef struct {
    const char *names[8];  /* as rows and fenced blocks call it, NULL at the end */
    const char *suffix;    /* of its source file; NULL: the warm Python runs it */
    const char *compiler;  /* JSON members for box.py's run_compile */
    const char *main_mark; /* a text that whole programs contain; NULL: none */
} Language;

const Language *language_find(const char *name); /* NULL when there is none */
bool language_has_name(const Language *language, const char *name, size_t n);

/* The program in a response, or NULL when there is none. The caller frees it. */
char *code_extract(const char *completion, const char *prompt, const char *entry_point, const Language *language);

typedef enum { COMPARE_LINES, COMPARE_TOKENS, COMPARE_FLOATS } Compare;
bool outputs_equal(const char *expected, size_t n_expected, const char *got, size_t n_got, Compare compare,
                   double tolerance);

typedef struct {
    Verdict verdict;
    bool run; /* false: not reached after a failure */
    double seconds;
    char *reason;
    char *output; /* kept only for a custom checker */
    size_t n_output;
} TestResult;

typedef struct Job {
    struct Job *next;
    uint32_t id;
    int attempts; /* runs that were cut off by something that was not the program's doing */
    json_t *row;  /* owns the texts below it */
    char *code;
    const Language *language;
    bool calls;        /* asserts or check; else stdin and stdout */
    const char *fault; /* why the row itself can't be judged, or NULL */
    json_t *cases;     /* of stdin and stdout: an array of objects */
    const char *checker;
    Compare compare;
    double tolerance;
    bool share; /* the reward is the share of passed tests */
    Limits limits;
    int n_tests;
    TestResult *results;
    double seconds;
    int64_t bytes, peak;
    const char *weak; /* names of layers that do not hold, or NULL */
} Job;

Job *job_new(const char *completion, const char *prompt, const char *fields, bool share);
void job_free(Job *job);
void job_restart(Job *job); /* forgets the results, for a second attempt */
void job_set(Job *job, int test, Verdict verdict, double seconds, const char *reason);
void job_set_rest(Job *job, int from, Verdict verdict, const char *reason); /* all from this test on */
Verdict job_verdict(const Job *job);
double job_value(const Job *job);
const char *job_reason(const Job *job);
char *job_detail(const Job *job); /* JSON text, the caller's */

/* ---- slots ----------------------------------------------------------------------------------------------------
 */

typedef struct Cache Cache; /* compiled programs by content */
Cache *cache_new(void);
void cache_free(Cache *cache);
int cache_get(Cache *cache, const Job *job);               /* a descriptor of the cache's, or -1 */
void cache_put(Cache *cache, const Job *job, int program); /* takes the descriptor */

/* FINISHED: the job can be answered. CLEANING: it was, but some of its processes are not gone yet. */
typedef enum {
    SLOT_IDLE,
    SLOT_COMPILE,
    SLOT_OUTPUT,
    SLOT_CALLS,
    SLOT_CHECKER,
    SLOT_FINISHED,
    SLOT_CLEANING
} SlotPhase;

enum { SLOT_FDS = 5, SLOT_DROPPED = 8 };

typedef struct {
    SlotPhase phase;
    Box boxes[2];  /* by BoxRole */
    Cell cells[2]; /* the same */
    int pipes[3];  /* read ends: stdout and stderr of the run, the judge's verdict; -1 */
    Buf texts[3];
    int64_t n_out; /* bytes that came from stdout, kept or not */
    int program;   /* of the compile: where it goes */
    int test;      /* which one runs */
    double next_watch;
    int judged;                  /* rows that the judge's process has done */
    int channel;                 /* the judge's end of it, to cut it when the run is stopped */
    pid_t dropped[SLOT_DROPPED]; /* boxes that were killed and not yet reaped */
    int n_dropped;
    double judge_seen; /* when the judge last was at work */
    char nonce[33];
    Job *job;
    Cache *cache;
} Slot;

bool slot_open(Slot *slot, int number, const char *python, bool weak, bool quick, Cache *cache, Err *err);
void slot_close(Slot *slot);
void slot_release(Slot *slot);                   /* the job was answered */
void slot_take(Slot *slot, Job *job);            /* the slot is idle and owns the job until it has finished */
bool slot_is_slow(const Slot *slot, double now); /* the same run has been going on for long */
/* The descriptors to poll for reading; -1 where there is none. */
void slot_fds(const Slot *slot, int fds[SLOT_FDS]);
void slot_step(Slot *slot, double now); /* reads what there is, watches limits, goes on to the next stage */

/* ---- messages between the caller and the worker ---------------------------------------------------------------
 */

/* Each message: its length (4 bytes), a letter, the parts. Texts: their length (4 bytes), the bytes. */
void wire_begin(Buf *buf, char letter, size_t *start);
void wire_end(Buf *buf, size_t start);
void wire_u32(Buf *buf, uint32_t value);
void wire_f64(Buf *buf, double value);
void wire_text(Buf *buf, const char *text); /* NULL stays NULL */
typedef struct {
    const char *p, *end;
    bool bad;
} WireReader;
bool wire_next(const Buf *in, size_t *at, char *letter, WireReader *reader); /* false: no whole message yet */
uint32_t wire_read_u32(WireReader *r);
double wire_read_f64(WireReader *r);
char *wire_read_text(WireReader *r); /* a copy, or NULL */

/* What the worker tells when it is ready. */
enum { WORKER_FD = 3 };
#define WORKER_NAME "whet-code-worker"                  /* argv[0] that makes a program the worker */
int worker_main(bool weak, int slots, unsigned layers); /* layers: as measured before, or 0 */

#endif
