"""Chat templates in the style of the model families that they are named for, and chats to put into them."""

from __future__ import annotations

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}\n    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
        "{{ '<|im_end|>\\n' }}\n{% endfor %}\n{% if add_generation_prompt %}\n"
        "{{ '<|im_start|>assistant\\n' }}\n{% endif %}"
    ),
    "llama-2": (
        "{% if messages[0].role == 'system' %}"
        "{% set system = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
        "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('user and assistant must alternate') }}{% endif %}"
        "{% set content = system ~ m.content if loop.first else m.content %}"
        "{% if m.role == 'user' %}{{ bos_token ~ '[INST] ' ~ content.strip() ~ ' [/INST]' }}"
        "{% else %}{{ ' ' ~ content.strip() ~ ' ' ~ eos_token }}{% endif %}{% endfor %}"
    ),
    "llama-3": (
        "{{- bos_token }}{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
        "{{- m['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
    ),
    "mistral": (
        "{%- set rest = messages %}{%- if messages[0]['role'] == 'system' %}{%- set first = messages[0]['content'] %}"
        "{%- set rest = messages[1:] %}{%- endif %}{{- bos_token }}{%- for m in rest %}{%- if m['role'] == 'user' %}"
        "{%- if loop.last and first is defined %}"
        "{{- '[INST] ' + first + '\n\n' + m['content'] + '[/INST]' }}{%- else %}"
        "{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}{%- elif m['role'] == 'assistant' %}"
        "{{- ' ' + m['content'] | trim + eos_token }}{%- else %}{{- raise_exception('unknown role') }}{%- endif %}"
        "{%- endfor %}"
    ),
    "gemma": (
        "{{ bos_token }}{% set ns = namespace(before='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.before = m.content | trim ~ '\n\n' %}{% continue %}{% endif %}"
        "{% set role = 'model' if m.role == 'assistant' else m.role %}{{ '<start_of_turn>' + role + '\n' }}"
        "{{ ns.before if m.role == 'user' }}{{ m.content | trim }}{{ '<end_of_turn>\n' }}{% set ns.before = '' %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "zephyr": (
        "{% for m in messages %}\n{% if m['role'] in ['user', 'system', 'assistant'] %}\n"
        "{{ '<|' ~ m['role'] ~ '|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
    "phi-3": (
        "{% for m in messages %}{% if m['role'] == 'system' and m['content'] %}"
        "{{ '<|system|>\n' + m['content'] + '<|end|>\n' }}"
        "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}"
        "{% elif m['role'] == 'assistant' %}"
        "{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "qwen": (
        "{%- macro turn(role, text) %}{{- '<|im_start|>' ~ role ~ '\n' ~ text ~ '<|im_end|>\n' }}{%- endmacro %}"
        "{%- if tools %}{{- 'tools: ' ~ tools | tojson }}{%- endif %}"
        "{%- if messages[0].role != 'system' %}{{- turn('system', 'You are a helpful assistant.') }}{%- endif %}"
        "{%- for m in messages %}{%- set text = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{{- turn(m.role, text) }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
        "{%- endif %}{%- endif %}"
    ),
    "olmo": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + '\n' }}"
        "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '\n' }}{% else %}"
        "{% generation %}{{ '<|assistant|>\n' + m['content'] + (eos_token if loop.last else eos_token + '\n') }}"
        "{% endgeneration %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}"
        "{% endif %}{% endfor %}"
    ),
    "dictionary": (
        "{% set names = dict(user='Q', assistant='A', system='S') %}{% for m in messages | selectattr('content') %}"
        "{{ names.get(m.role, '?') ~ ': ' ~ m.content | replace('\n', ' ') | indent(2) }}\n{% endfor %}"
        "{{ messages | map(attribute='role') | unique | join(',') | upper }} "
        "{{ {'n': messages | length} | tojson(indent=1) }}"
    ),
}
CHATS = {
    "one": [("user", "The quick fox?")],
    "system": [("system", " Be brief. "), ("user", "Größe\nund Maß")],
    "turns": [("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHello! 日本語 "), ("user", " And\n\nthen? ")],
    "all": [
        ("system", "S"),
        ("user", "a & <b> 'c'"),
        ("assistant", "d"),
        ("user", "e"),
        ("assistant", "f"),
        ("user", "👍"),
    ],
}
