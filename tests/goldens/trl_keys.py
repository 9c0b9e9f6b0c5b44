"""Lists the keys of TRL's GRPO command with their defaults, one "name: default" a line, read from the sources.

usage: trl_keys.py TRL_FOLDER TRANSFORMERS_FOLDER > trl_keys.txt   (the package folders; made with 1.16.0 and 5.23.0)
"""
import ast, os, sys

trl, transformers = sys.argv[1:]
sources = [("trainer/grpo_config.py", "GRPOConfig"), ("trainer/base_config.py", "_BaseConfig"),
           ("trainer/model_config.py", "ModelConfig"), ("scripts/utils.py", "ScriptArguments"),
           ("scripts/grpo.py", "GRPOScriptArguments")]
sources = [(os.path.join(trl, path), name) for path, name in sources]
sources.append((os.path.join(transformers, "training_args.py"), "TrainingArguments"))

defaults = {}
for path, name in sources:  # the nearer class wins
    tree = ast.parse(open(path).read())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for field in body:
        if not isinstance(field, ast.AnnAssign):
            continue
        value = field.value
        if isinstance(value, ast.Call):
            value = next((k.value for k in value.keywords if k.arg == "default"), ast.Constant(None))
        try:
            value = ast.literal_eval(value)
        except ValueError:  # optim's default is a name: AdamW of PyTorch, fused
            value = "adamw_torch_fused"
        text = {None: "null", True: "true", False: "false"}.get(value) if not isinstance(value, (int, float)) or \
            isinstance(value, bool) else repr(value)
        defaults.setdefault(field.target.id, text if text is not None else f'"{value}"')
for name in sorted(defaults):
    print(f"{name}: {defaults[name]}")
