"""Tokens a second of llama.cpp, by llama-cpp-python's low-level calls: a prompt of 512, and decoding 1, 8 and 64 sequences.

usage: llama.py MODEL.gguf THREADS PROMPT NEW RUNS; prints one JSON object. Keys and values of each sequence are apart, and the
best of RUNS runs counts, of flash attention on and off (llama.cpp's own choice may be either).
"""
import json, sys, time
import llama_cpp as L

path, threads, n_prompt, n_new, runs = sys.argv[1], *map(int, sys.argv[2:6])
L.llama_backend_init()
model = L.llama_model_load_from_file(path.encode(), L.llama_model_default_params())


def run(sequences, prompt, new, flash):
    params = L.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = sequences * (prompt + new + 8), 512, 512
    params.n_seq_max, params.n_threads, params.n_threads_batch = sequences, threads, threads
    if hasattr(params, "kv_unified"):
        params.kv_unified = False
    params.flash_attn_type = flash
    context = L.llama_init_from_model(model, params)
    batch = L.llama_batch_init(512, 0, 1)

    def put(items):
        batch.n_tokens = len(items)
        for i, (token, position, sequence, wanted) in enumerate(items):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        assert L.llama_decode(context, batch) == 0

    items = [(100 + (7 * i + s) % 1000, i, s, i == prompt - 1) for s in range(sequences) for i in range(prompt)]
    began = time.perf_counter()
    for i in range(0, len(items), 512):
        put(items[i : i + 512])
    read = time.perf_counter()
    for i in range(new):
        put([(200 + i, prompt + i, s, True) for s in range(sequences)])
    done = time.perf_counter()
    L.llama_batch_free(batch)
    L.llama_free(context)
    return sequences * prompt / (read - began), sequences * new / (done - read) if new else 0


def best(sequences, prompt, new, which):
    return max(run(sequences, prompt, new, flash)[which] for flash in (0, 1) for _ in range(runs))


out = {"prompt_512": best(1, 512, 0, 0)}
for sequences in (1, 8, 64):
    out["decode_%d" % sequences] = best(sequences, n_prompt, n_new, 1)
print(json.dumps(out))
