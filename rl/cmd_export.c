/* cmd_export.c: `whet export`: writes a model anew, as a Hugging Face folder or a GGUF file.
 *
 * The weights go from file to file; no device is opened. Tested by tests/test_rollout_export.c (what is written),
 * tests/long_export.sh and tests/long_gguf.sh. */
#include <stdio.h>
#include <string.h>

#include "rl/cmd.h"
#include "rl/open.h"
#include "rl/options.h"
#include "rollout/rollout.h"

static const char usage[] =
    "usage: whet export --model MODEL --format hf|gguf [--dtype TYPE] --output PATH\n\n"
    "Writes the model for other programs: a Hugging Face folder for transformers (dtype f32, f16 or bf16), or a "
    "GGUF\n"
    "file for llama.cpp (also q8_0 and q4_0). MODEL is a folder (a checkpoint of whet is one) or a .gguf file.\n"
    "Adapters (LoRA) are merged into the weights: W + s B A, rounded once.\n";

/* llama.cpp knows no sliding window in some families: such a file's context ends where the window would begin to
 * matter. */
static void say_context(const ModelFile *file, const char *output) {
    Err err = {0};
    ModelFile *written = model_file_open(output, &err);
    if (!written) die("export: %s", err.msg);
    int model = model_file_conf(file)->max_positions, context = model_file_conf(written)->max_positions;
    if (context < model)
        printf("%s: takes texts of up to %d tokens, the model's sliding window, which a GGUF of this family can't "
               "say; "
               "a Hugging Face folder takes %d\n",
               output, context, model);
    model_file_close(written);
}

int cmd_export(int argc, char **argv) {
    const char *path = NULL, *format = NULL, *dtype = "bf16", *output = NULL;
    int64_t shard = (int64_t)5 << 30;
    Arena arena = {0};
    const Option table[] = {
        {"model", KEY_TEXT, &path, 0, 0, "the model to read: a folder, a .gguf file or ORG/MODEL in the cache"},
        {"format", KEY_TEXT, &format, 0, 0, "hf: a Hugging Face folder; gguf: one file"},
        {"dtype", KEY_TEXT, &dtype, 0, 0, "f32, f16, bf16; in a GGUF also q8_0, q4_0"},
        {"output", KEY_TEXT, &output, 0, 0, "the folder or file to write"},
        {"shard_size", KEY_BYTES, &shard, 0, 0, "hf: the most bytes of one file of weights (default: 5G)"},
    };
    options_read(usage, table, sizeof table / sizeof *table, argc, argv, &arena);
    if (!path || !format || !output) die("export: --model, --format and --output must be given");
    bool gguf = strcmp(format, "gguf") == 0;
    if (!gguf && strcmp(format, "hf") != 0) die("export: --format is %s and must be hf or gguf", format);
    if (shard < 1) die("export: --shard_size must be a size above zero, such as 5G");
    Err err = {0};
    ModelFile *file = model_file_named(path, &err);
    if (file) model_file_merge(file);
    Tokenizer *tok = file ? tokenizer_open(file, &err) : NULL;
    double begin = clock_seconds();
    if (!tok || !(gguf ? model_export_gguf(file, tok, dtype, output, &err)
                       : model_export_hf(file, tok, dtype, shard, output, &err)))
        die("export: %s", err.msg);
    printf("%s: written as %s %s in %.1f s\n", output, format, dtype, clock_seconds() - begin);
    if (gguf) say_context(file, output);
    tokenizer_close(tok);
    model_file_close(file);
    arena_free(&arena);
    return 0;
}
