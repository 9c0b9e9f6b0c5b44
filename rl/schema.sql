-- schema.sql: the tables of OUTPUT_DIR/run.db, and their documentation.
--
-- All that a run sampled, how it was judged and what was learnt from it. The trainer reads back what it wrote here,
-- so what a query shows is what was trained on. One training step is one transaction: a step is here whole or not at
-- all.
--
-- Everything but times is a function of the run: two runs of the same recipe on the same path hold the same rows,
-- ids included. Times stand in attempts, step_seconds, scores.microseconds and evals.seconds, and nowhere else; what
-- `whet rescore` adds later (score_sets, rescores, rescore_parts) is no part of the run.
--
-- Blobs are zlib streams of little-endian arrays; in Python:
--     numpy.frombuffer(zlib.decompress(blob), "<i4")    tokens
--     numpy.frombuffer(zlib.decompress(blob), "<f4")    log-probabilities
-- A REAL that is not a number is NULL (and -0.0 becomes 0.0).
-- Views stand at the end; they answer the usual questions and are good starting points for others.

PRAGMA application_id = 2003330420; -- "whet"
PRAGMA user_version = 2;            -- raised whenever a table changes; a newer store is refused, never guessed at

-- ---- runs ------------------------------------------------------------------------------------------------------

-- One training run: what was asked for, and what decides its bits.
CREATE TABLE runs (
    id          INTEGER PRIMARY KEY,
    recipe      TEXT NOT NULL,      -- as resolved, a JSON object: recipe ->> '$.learning_rate'
    path        TEXT NOT NULL,      -- device path, such as avx512_bf16: results are bit-equal only on the same one
    version     TEXT NOT NULL,      -- of whet
    weight_hash TEXT NOT NULL       -- of the weights before the first step
);

-- One start of the program for a run; the first has from_step 0, each resumption the step of its checkpoint.
CREATE TABLE attempts (
    id         INTEGER PRIMARY KEY,
    run        INTEGER NOT NULL REFERENCES runs,
    from_step  INTEGER NOT NULL,
    path       TEXT NOT NULL,
    version    TEXT NOT NULL,
    threads    INTEGER NOT NULL,
    started_at TEXT NOT NULL,       -- UTC, ISO 8601
    ended_at   TEXT,                -- NULL: still running, or killed
    outcome    TEXT                 -- finished, interrupted, failed; NULL: still running, or killed
);
CREATE INDEX attempts_run ON attempts (run);

-- ---- steps -----------------------------------------------------------------------------------------------------

-- One training step, counted from 1: groups sampled and judged, and what was learnt from. With several updates from
-- one batch of samples, the first of them has the groups; advantages say which samples each of them consumed.
CREATE TABLE steps (
    run         INTEGER NOT NULL REFERENCES runs,
    step        INTEGER NOT NULL,
    version     INTEGER NOT NULL,   -- of the policy after the step: counts updates of the weights
    weight_hash TEXT NOT NULL,      -- of the weights after the step: learning it again must reach the same
    moment_hash TEXT NOT NULL,      -- of AdamW's moments after the step, likewise
    PRIMARY KEY (run, step)
) WITHOUT ROWID;

-- Its metrics under TRL's names (reward, completions/mean_length, clip_ratio/low_mean, loss, grad_norm, ...).
CREATE TABLE step_metrics (
    run   INTEGER NOT NULL,
    step  INTEGER NOT NULL,
    name  TEXT NOT NULL,
    value REAL,
    PRIMARY KEY (run, step, name),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;

-- What looked wrong with it (rl/guard.h has the thresholds): one line that says what it means and what to try.
--   SELECT step, name, line FROM step_guards;
CREATE TABLE step_guards (
    run  INTEGER NOT NULL,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (run, step, name),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;

-- How long its phases took (sample, judge, forward, backward, ...).
CREATE TABLE step_seconds (
    run     INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    phase   TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (run, step, phase),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;

-- ---- what was asked --------------------------------------------------------------------------------------------

-- Problems that were used at least once, in the order of their first use.
CREATE TABLE problems (
    id      INTEGER PRIMARY KEY,
    source  TEXT NOT NULL,          -- the file or generator, as the recipe names it
    name    TEXT NOT NULL,          -- its id inside the source
    kind    TEXT NOT NULL,
    problem TEXT NOT NULL,
    answer  TEXT,                   -- the expected answer
    fields  TEXT                    -- the whole row of the source, a JSON object; NULL for generated problems
);
CREATE INDEX problems_name ON problems (source, name);

-- One problem put to the policy: its samples share the prompt.
CREATE TABLE groups (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL,
    step          INTEGER NOT NULL,
    position      INTEGER NOT NULL, -- inside the step, from 0: the order in which it was learnt from
    problem_id    INTEGER NOT NULL REFERENCES problems,
    place         INTEGER NOT NULL, -- in the endless order of the source
    key           INTEGER NOT NULL, -- of its random numbers
    prompt        TEXT NOT NULL,    -- the rendered template
    n_prompt      INTEGER NOT NULL, -- its length in tokens
    prompt_tokens BLOB NOT NULL,
    reward_mean   REAL,             -- over judged samples; NULL when there are none
    reward_std    REAL,             -- sample standard deviation (n - 1)
    judged        INTEGER NOT NULL, -- samples that could be judged
    signal        INTEGER NOT NULL, -- 1: rewards differ, so there is something to learn
    UNIQUE (run, step, position),
    FOREIGN KEY (run, step) REFERENCES steps
);
CREATE INDEX groups_problem ON groups (problem_id);

-- ---- what was answered -----------------------------------------------------------------------------------------

-- One answer. The arrays hold one element for each token after the group's prompt.
CREATE TABLE samples (
    id             INTEGER PRIMARY KEY,
    group_id       INTEGER NOT NULL REFERENCES groups,
    number         INTEGER NOT NULL, -- inside the group, from 0
    parent_id      INTEGER REFERENCES samples, -- the sample that this one goes on from
    stage          TEXT NOT NULL,    -- what it was sampled for: train
    n_prompt       INTEGER NOT NULL, -- tokens before the policy's own (the group's prompt, or more)
    n_tokens       INTEGER NOT NULL, -- tokens after n_prompt: the length of the answer
    tokens         BLOB NOT NULL,
    logprobs       BLOB NOT NULL,    -- log-softmax of logits/temperature over the whole vocabulary; the loss's
    draw_logprobs  BLOB NOT NULL,    -- inside the set that top_k, top_p and min_p kept
    segments       TEXT NOT NULL,    -- JSON: [{"start", "n", "role", "trained", "version"}, ...], prompt included
    text           TEXT NOT NULL,    -- the answer, decoded; U+FFFD for what is no UTF-8
    finish         TEXT NOT NULL,    -- stop, length, cancelled
    policy_version INTEGER NOT NULL, -- of the policy that wrote its last token
    reward         REAL,             -- weighted sum of the scores; NULL: unjudged, and not learnt from
    class          TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    UNIQUE (group_id, number)
);
CREATE INDEX samples_class ON samples (class, n_tokens);

-- What each part of the reward said of a sample.
CREATE TABLE scores (
    sample_id    INTEGER NOT NULL REFERENCES samples,
    part         INTEGER NOT NULL,   -- place in reward_funcs, from 0
    name         TEXT NOT NULL,      -- as reward_funcs names it
    value        REAL,               -- before its weight; NULL: unjudged
    class        TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    verdict      TEXT,               -- equal-exact, no-answer, ...
    reason       TEXT,               -- a sentence
    detail       TEXT,               -- a JSON object
    microseconds REAL NOT NULL,      -- what judging took
    PRIMARY KEY (sample_id, part)
) WITHOUT ROWID;
CREATE INDEX scores_verdict ON scores (name, verdict);

-- What was learnt from: the step that consumed a sample, and with which advantage.
CREATE TABLE advantages (
    run       INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    sample_id INTEGER NOT NULL REFERENCES samples,
    advantage REAL NOT NULL,
    PRIMARY KEY (run, step, sample_id),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;
CREATE INDEX advantages_sample ON advantages (sample_id);

-- ---- what other rewards would have said ---------------------------------------------------------------------------

-- One `whet rescore`: the samples of a run judged anew, by other rewards. What was learnt from stays as it was.
CREATE TABLE score_sets (
    id       INTEGER PRIMARY KEY,
    run      INTEGER NOT NULL REFERENCES runs,
    rewards  TEXT NOT NULL,          -- JSON: {"reward_funcs": [...], "reward_weights": [...], "scale_rewards": ...}
    version  TEXT NOT NULL,          -- of whet
    made_at  TEXT NOT NULL           -- UTC, ISO 8601
);
CREATE INDEX score_sets_run ON score_sets (run);

-- What the set says of a sample, beside what samples and advantages hold.
CREATE TABLE rescores (
    set_id    INTEGER NOT NULL REFERENCES score_sets ON DELETE CASCADE,
    sample_id INTEGER NOT NULL REFERENCES samples,
    reward    REAL,                  -- NULL: unjudged
    class     TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    advantage REAL,                  -- with which the sample would have been learnt from; NULL: unjudged
    PRIMARY KEY (set_id, sample_id)
) WITHOUT ROWID;

-- Its parts, like scores.
CREATE TABLE rescore_parts (
    set_id       INTEGER NOT NULL,
    sample_id    INTEGER NOT NULL,
    part         INTEGER NOT NULL,
    name         TEXT NOT NULL,
    value        REAL,
    class        TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    verdict      TEXT,
    reason       TEXT,
    detail       TEXT,
    microseconds REAL NOT NULL,
    PRIMARY KEY (set_id, sample_id, part),
    FOREIGN KEY (set_id, sample_id) REFERENCES rescores ON DELETE CASCADE
) WITHOUT ROWID;

-- ---- evaluations -----------------------------------------------------------------------------------------------

-- Accuracy on problems that are not trained on, measured after a step (0: the untouched model).
CREATE TABLE evals (
    run         INTEGER NOT NULL REFERENCES runs,
    step        INTEGER NOT NULL,
    name        TEXT NOT NULL,       -- of the data
    n           INTEGER NOT NULL,    -- answers judged
    accuracy    REAL,                -- a fraction
    ci_low      REAL,                -- Wilson interval, 95 %
    ci_high     REAL,
    mean_length REAL,                -- tokens of an answer
    seconds     REAL NOT NULL,
    PRIMARY KEY (run, step, name)
) WITHOUT ROWID;

CREATE TABLE eval_answers (
    run      INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    name     TEXT NOT NULL,
    position INTEGER NOT NULL,
    problem_id INTEGER NOT NULL REFERENCES problems,
    text     TEXT NOT NULL,
    n_tokens INTEGER NOT NULL,
    finish   TEXT NOT NULL,
    reward   REAL,
    class    TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    verdict  TEXT,
    PRIMARY KEY (run, step, name, position),
    FOREIGN KEY (run, step, name) REFERENCES evals ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX eval_answers_problem ON eval_answers (problem_id);

-- ---- views -----------------------------------------------------------------------------------------------------

-- Every answer beside its problem:
--   SELECT problem, answer, text FROM answers WHERE step = 20 AND class = 'wrong';
CREATE VIEW answers AS
SELECT s.id AS sample_id, g.run, g.step, g.position, s.number, p.problem, p.answer, s.text, s.class, s.reward,
       (SELECT a.advantage FROM advantages a WHERE a.sample_id = s.id ORDER BY a.step LIMIT 1) AS advantage,
       s.n_tokens, s.finish, p.id AS problem_id, p.kind
FROM samples s
JOIN groups g ON g.id = s.group_id
JOIN problems p ON p.id = g.problem_id;

-- How the run went:
--   SELECT * FROM reward_by_step;
CREATE VIEW reward_by_step AS
SELECT g.run, g.step, avg(s.reward) AS reward, avg(s.class = 'right') AS accuracy, avg(s.n_tokens) AS mean_length,
       avg(s.finish = 'length') AS clipped_ratio, sum(s.class = 'unjudged') AS unjudged,
       sum(s.n_tokens) / (SELECT sum(seconds) FROM step_seconds t WHERE t.run = g.run AND t.step = g.step)
           AS tokens_per_second
FROM groups g JOIN samples s ON s.group_id = g.id
GROUP BY g.run, g.step;

-- Problems by how rarely they are solved:
--   SELECT problem, asked, right_share FROM hardest_problems LIMIT 10;
CREATE VIEW hardest_problems AS
SELECT p.id AS problem_id, p.problem, p.answer, p.kind, count(*) AS asked, avg(s.class = 'right') AS right_share,
       avg(s.reward) AS reward, min(g.step) AS first_step, max(g.step) AS last_step
FROM problems p JOIN groups g ON g.problem_id = p.id JOIN samples s ON s.group_id = g.id
WHERE s.class <> 'unjudged'
GROUP BY p.id
ORDER BY right_share, asked DESC, p.id;

-- Right answers, the longest first (ORDER BY n_tokens for the shortest):
--   SELECT n_tokens, problem, text FROM longest_right LIMIT 3;
CREATE VIEW longest_right AS
SELECT s.n_tokens, g.step, p.problem, p.answer, s.text, s.id AS sample_id, g.run
FROM samples s JOIN groups g ON g.id = s.group_id JOIN problems p ON p.id = g.problem_id
WHERE s.class = 'right'
ORDER BY s.n_tokens DESC, s.id;

-- Why answers were judged as they were:
--   SELECT name, verdict, sum(n) FROM verdicts GROUP BY name, verdict ORDER BY 3 DESC;
CREATE VIEW verdicts AS
SELECT g.run, g.step, c.name, c.class, c.verdict, count(*) AS n, avg(c.value) AS value,
       avg(c.microseconds) AS microseconds
FROM scores c JOIN samples s ON s.id = c.sample_id JOIN groups g ON g.id = s.group_id
GROUP BY g.run, g.step, c.name, c.class, c.verdict;

-- How much of each step there was to learn from:
--   SELECT step, with_signal, all_right, all_wrong FROM signal_by_step;
CREATE VIEW signal_by_step AS
SELECT run, step, count(*) AS groups, sum(signal) AS with_signal,
       sum(NOT signal AND n_right = judged AND judged > 0) AS all_right,
       sum(NOT signal AND n_right = 0 AND judged > 0) AS all_wrong
FROM (SELECT g.run, g.step, g.signal, g.judged, sum(s.class = 'right') AS n_right
      FROM groups g JOIN samples s ON s.group_id = g.id
      GROUP BY g.id)
GROUP BY run, step;

-- Answers to the same problems at the first and at the last evaluation:
--   SELECT problem, before, after FROM before_after WHERE class_before = 'wrong' AND class_after = 'right';
CREATE VIEW before_after AS
SELECT b.run, b.name, p.problem, p.answer, b.text AS before, a.text AS after, b.class AS class_before,
       a.class AS class_after, b.step AS step_before, a.step AS step_after, b.position
FROM eval_answers b
JOIN eval_answers a ON a.run = b.run AND a.name = b.name AND a.position = b.position
JOIN problems p ON p.id = b.problem_id
WHERE b.step = (SELECT min(step) FROM evals e WHERE e.run = b.run AND e.name = b.name)
  AND a.step = (SELECT max(step) FROM evals e WHERE e.run = b.run AND e.name = b.name);

-- Every answer with the rewards that it was learnt from and those of a later `whet rescore`:
--   SELECT problem, text, reward, new_reward FROM side_by_side WHERE set_id = 1 AND class <> new_class;
CREATE VIEW side_by_side AS
SELECT r.set_id, s.id AS sample_id, g.run, g.step, g.position, s.number, p.problem, p.answer, s.text, s.reward,
       r.reward AS new_reward, s.class, r.class AS new_class,
       (SELECT a.advantage FROM advantages a WHERE a.sample_id = s.id ORDER BY a.step LIMIT 1) AS advantage,
       r.advantage AS new_advantage
FROM rescores r
JOIN samples s ON s.id = r.sample_id
JOIN groups g ON g.id = s.group_id
JOIN problems p ON p.id = g.problem_id;
