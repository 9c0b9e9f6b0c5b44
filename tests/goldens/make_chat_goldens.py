"""Makes chat-goldens.json.gz: chat templates as models carry them and some that try Jinja's parts, and what transformers' apply_chat_template makes of
several conversations with each: [{"name", "template", "bos", "eos", "cases": [{"messages", "text"}]}], where text is
null when the template refuses the conversation.

    python tests/goldens/make_chat_goldens.py [FILE.gguf ...]     the templates of these files are added
"""

import gzip
import json
import pathlib
import sys

from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
QWEN25 = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools" }}
    {{- "<|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
QWEN3 = r"""{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""
LLAMA31 = r"""{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
GEMMA3 = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {{ message['content'] | trim }}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""".replace('loop.first else "") }}\n    {{ message', 'loop.first else "") -}}\n    {{ message').replace("| trim }}\n    {{ '<end", "| trim -}}\n    {{ '<end")
MISTRAL3 = (
    "{%- if messages[0][\"role\"] == \"system\" %}{%- set system_message = messages[0][\"content\"] %}{%- set loop_messages = messages[1:] %}"
    "{%- else %}{%- set loop_messages = messages %}{%- endif %}{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if (message[\"role\"] == \"user\") != (loop.index0 % 2 == 0) %}{{- raise_exception(\"roles must alternate\") }}{%- endif %}"
    "{%- if message[\"role\"] == \"user\" %}{%- if loop.last and system_message is defined %}"
    "{{- \"[INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}{%- else %}"
    "{{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}{%- endif %}"
    "{%- elif message[\"role\"] == \"assistant\" %}{{- \" \" + message[\"content\"]|trim + eos_token }}{%- endif %}{%- endfor %}"
)
NEMO = MISTRAL3.replace('\"[INST] \"', '\"[INST]\"').replace('\" \" + message[\"content\"]|trim', 'message[\"content\"]')
DEEPSEEK_R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}"
    "{%- endfor -%}{% if add_generation_prompt %}{{'<｜Assistant｜>'}}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}" + ALTERNATE +
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
S, E = "<s>", "</s>"
TEMPLATES = [
    ("chatml", CHATML, "<|im_start|>", "<|im_end|>"),
    ("qwen2", "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful "
     "assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}", "<|endoftext|>", "<|im_end|>"),
    ("qwen2.5", QWEN25, "<|endoftext|>", "<|im_end|>"),
    ("qwen3", QWEN3, "<|endoftext|>", "<|im_end|>"),
    ("qwen3-thinking", QWEN3.replace("assistant\\n' }}\n    {%- if enable", "assistant\\n<think>\\n' }}\n    {%- if enable"), "<|endoftext|>", "<|im_end|>"),
    ("llama2", LLAMA2, S, E),
    ("llama3", "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
     "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
     "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
     "<|begin_of_text|>", "<|eot_id|>"),
    ("llama3.1", LLAMA31, "<|begin_of_text|>", "<|eot_id|>"),
    ("mistral-v0.1", "{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
     "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% else %}"
     "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}", S, E),
    ("mistral-v0.2", "{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
     "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}"
     "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}", S, E),
    ("mistral-v3", MISTRAL3, S, E),
    ("mistral-nemo", NEMO, S, E),
    ("gemma", "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
     "{% for message in messages %}" + ALTERNATE + "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
     "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}", "<bos>", "<eos>"),
    ("gemma3", GEMMA3, "<bos>", "<eos>"),
    ("phi3", "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
     "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
     "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
     "{% else %}{{ eos_token }}{% endif %}", S, "<|endoftext|>"),
    ("phi4", "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}"
     "{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}"
     "{% elif (message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}", "<|endoftext|>", "<|im_end|>"),
    ("phi4-mini", "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}", "<|endoftext|>", "<|endoftext|>"),
    ("deepseek-r1", DEEPSEEK_R1, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ("deepseek-r1-thinking", DEEPSEEK_R1.replace("{{'<｜Assistant｜>'}}", "{{'<｜Assistant｜><think>\\n'}}"), "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ("deepseek-llm", "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}"
     "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
     "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
     "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
]
# Kinds of these that models carry, too: without BOS, with a default system message, with line ends after roles.
BY_NAME = {name: rest for name, *rest in TEMPLATES}
DEFAULT_ON = "{% elif true == true and not '<<SYS>>' in messages[0]['content'] %}{% set loop_messages = messages %}" + (
    "{% set system_message = 'You are kind.\\nIt\\'s short.' %}{% else %}"
)
TEMPLATES += [
    ("gemma-no-bos", BY_NAME["gemma"][0].replace("{{ bos_token }}", ""), "<bos>", "<eos>"),
    ("llama2-default", LLAMA2.replace("{% else %}", DEFAULT_ON, 1).replace("bos_token + '[INST] '", "'[INST] '"), S, E),
    ("phi3-small", "{{ bos_token }}" + BY_NAME["phi4-mini"][0].replace("'|>' +", "'|>' + '\n' +").replace("<|end|>'", "<|end|>\n'")
     .replace("'<|assistant|>'", "'<|assistant|>\n'"), S, "<|endoftext|>"),
    ("phi3-mini", "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') %}{{'<|user|>' + '\n' + m['content'] + '<|end|>' + '\n' + "
     "'<|assistant|>' + '\n'}}{% elif (m['role'] == 'assistant') %}{{m['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}", S, "<|endoftext|>"),
    ("mistral-v1", "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}"
     "{%- else %}{%- set loop_messages = messages %}{%- endif %}{{- bos_token }}{%- for message in loop_messages %}" + ALTERNATE +
     "{%- if message['role'] == 'user' %}{%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\\n\\n' + "
     "message['content'] + ' [/INST]' }}{%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}"
     "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token}}{%- endif %}{%- endfor %}", S, E),
    ("mistral-v7", "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
     "{% elif message['role'] == 'system' %}{{ '[SYSTEM_PROMPT] ' + message['content'] + '[/SYSTEM_PROMPT]' }}"
     "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}", S, E),
]  # fmt: skip

# Of no model: the parts of Jinja that templates are put together from.
BY_HAND = [
    ("scopes", """{# a comment #}
{%- set ns = namespace(n=0, last='') %}
{%- macro mark(role, end=false) -%}
    {{ '<' ~ ('/' if end else '') ~ role ~ '>' }}
{%- endmacro %}
{% for message in messages if message.role != 'system' %}
    {% set n = ns.n %}
  {{- mark(message.role) + message['content'].strip() }}{{ mark(message.role, end=true) }}
    {%- set ns.n = n + 1 %}{% set ns.last = message.role %}
    {% if loop.last -%}  {{ loop.index }}/{{ loop.length }} {% elif loop.first %} first {% else %} - {% endif %}
{% else %}none{% endfor %}
{{ ns.n * 2 - 1 }} {{ n is defined }} {{ ns.last | upper }} {{ loop is undefined }}
""", S, E),
    ("texts", """{%- for m in messages %}{% set c = m.content %}
{{ c | length }}|{{ c[:3] }}|{{ c[-2:] }}|{{ c[::-1] }}|{{ c.split('</think>')[-1].lstrip('\\n') }}|{{ c.split() | join('+') }}
{{- c.startswith('<think>') }} {{ 'a' in c }} {{ c.replace('a', 'bb') | trim }} {{ c.rstrip('.?!') ~ c.find('e') }}
{%- if '<think>' in c and not c.endswith('x') %}{{ c.split('<think>')[1].split('</think>', 1)[0].strip('\\n') }}{% endif %}
{{ c | tojson }} {{ m.get('name', 'no') }} {{ m.tool_calls is defined and m.tool_calls }}{{ m.nothing }}
{%- endfor %}""", S, E),
    ("lists", """{% set list = [1, 'two', none, true] + [messages | length] %}
{{- list | first }}{{ list[-1] }} {{ list | length }} {{ (messages | map(attribute='role') | list)[::-1] | join(',') }}
{% for key, value in {'a': 1, 'b': [2, 3]}.items() %}{{ key }}={{ value if value is number else value | join('/') }};{% endfor %}
{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m.content }}{{ ' ' if not loop.last }}{% endfor %}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{%- set block %} [{{ messages[0].role | capitalize }}] {% endset %}{{ block | trim }}{{ 7 // 2 }}{{ -7 // 2 }}{{ -7 % 3 }}
{% if messages[-1].role not in ['assistant', 'tool'] or (false and x.y) %}{{ messages[1:][0].content if messages[1:] else 'one' }}{% endif %}
{{ missing | default('d') }} {{ '' | default('e', true) }} {{ "q\\"\\u00e9" 'z' }} {{ messages[0] is mapping }} {{ 3 is odd }}
{% generation %}{{ eos_token }}{% endgeneration %}""", S, E),
]  # fmt: skip
TEMPLATES += BY_HAND


def turns(*pairs):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[r], "content": t} for r, t in pairs]


CONVERSATIONS = [
    turns(("u", "What is 7 + 8?")),
    turns(("u", "  two lines,\n blanks around \n")),
    turns(("s", "Be short."), ("u", "Hello")),
    turns(("s", " Answer in French. \n"), ("u", " Hi"), ("a", " Bonjour ! "), ("u", "Again\n")),
    turns(("u", "a"), ("a", "b"), ("u", "c"), ("a", "d"), ("u", "e")),
    turns(("u", "Think."), ("a", "<think>\nseven\n</think>\n\nIt is 15."), ("u", "And 9?")),
    turns(("u", "")),
    turns(("s", "  "), ("u", "\n"), ("a", ""), ("u", "b")),
    turns(("u", "q"), ("a", "<think>\nabc\n</think>\n\n  ans \n"), ("u", "r"), ("a", "<think></think>z"), ("u", "t")),
    turns(("s", "S </think>"), ("u", "u"), ("a", "pre </think> mid </think>\n\npost"), ("u", "<think> only")),
    turns(("s", "S"), ("u", "  q <|im_end|> "), ("a", " \n a\n\n"), ("u", "\t\tz\u00a0\u3000 ")),
    turns(("u", "a"), ("u", "b")),
    turns(("s", "1"), ("u", "u"), ("a", "b"), ("s", "2"), ("u", "c")),
    turns(("a", "hi"), ("u", "x /no_think")),
    turns(("s", "Sum."), ("u", "{problem} {{ x }} {% if %}"), ("a", "'quoted' \"text\" \\n"), ("u", "naïve 世界 😀")),
]


def render(template, bos, eos, messages):
    tok = PreTrainedTokenizerFast(tokenizer_file=str(HERE / "tiny-llama/tokenizer.json"), bos_token=bos, eos_token=eos)
    try:
        return tok.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    except Exception as e:
        print("   refused:", str(e)[:80])
        return None


def of_gguf(path):
    import gguf

    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"]
    text = lambda key: bytes(tokens.parts[tokens.data[int(fields[key].contents())]]).decode()
    return pathlib.Path(path).stem, fields["tokenizer.chat_template"].contents(), text("tokenizer.ggml.bos_token_id"), text("tokenizer.ggml.eos_token_id")


def main():
    rows = []
    for name, template, bos, eos in TEMPLATES + [of_gguf(p) for p in sys.argv[1:]]:
        print(name)
        cases = [{"messages": m, "text": render(template, bos, eos, m)} for m in CONVERSATIONS]
        rows.append({"name": name, "template": template, "bos": bos, "eos": eos, "cases": cases})
    (HERE / "chat-goldens.json.gz").write_bytes(gzip.compress(json.dumps(rows, ensure_ascii=False).encode(), mtime=0))


if __name__ == "__main__":
    main()
