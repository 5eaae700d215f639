"""Chat templates of each family: what matters of the public ones, in few words."""

from __future__ import annotations

CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n"
JSON_CALL = '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'

PLAIN = "{% for m in messages %}" + CHATML + "{% endfor %}" + PROMPT + "{% endif %}"
"""Knows no tools."""

HERMES = (
    "{% if tools %}<|im_start|>system\n<tools>{% for t in tools %}\n{{ t | tojson }}{% endfor %}\n</tools>\n"
    "Answer with <tool_call></tool_call>.<|im_end|>\n{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% elif m.tool_calls %}<|im_start|>assistant{% if m.content %}\n{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls %}\n" + JSON_CALL + "{% endfor %}<|im_end|>\n"
    "{% else %}" + CHATML + "{% endif %}{% endfor %}" + PROMPT + "{% endif %}"
)
QWEN3 = HERMES.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Thinks unless it is told not to; writes both marks itself."""
QWEN3_THINKING = HERMES.removesuffix("{% endif %}") + "<think>\n{% endif %}"
"""Always thinks: its prompt opens the thought."""
QWEN_CODER = HERMES.replace(
    JSON_CALL, "<tool_call>\n<function={{ c.function.name }}>{{ c.function.arguments | tojson }}</function>"
)
GLM = HERMES.replace(
    JSON_CALL,
    "<tool_call>{{ c.function.name }}{% for k, v in c.function.arguments.items() %}\n<arg_key>{{ k }}</arg_key>\n"
    "<arg_value>{{ v if v is string else v | tojson }}</arg_value>{% endfor %}\n</tool_call>",
)
LLAMA = (
    "{% if not tools is defined %}{% set tools = none %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' or m.role == 'ipython' %}<|start_header_id|>ipython<|end_header_id|>\n\n"
    "{{ m.content | tojson }}<|eot_id|>"
    "{% elif 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|eot_id|>'
    "{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if tools is not none %}{{ tools | tojson }}{% endif %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{% if tools is defined and tools is not none %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.tool_calls is defined %}[TOOL_CALLS] [{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}"
    '{{ (c.function | tojson)[:-1] }}, "id": "{{ c.id }}"}{% if not loop.last %}, {% endif %}{% endfor %}]</s>'
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]"
    '{"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
MISTRAL_ARGS = (
    "{% if tools is defined %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{% else %}{{ m.content }}{% if m.tool_calls is defined %}{% for c in m.tool_calls %}"
    "{% set said = c.function.arguments %}[TOOL_CALLS]{{ c.function.name }}[ARGS]"
    "{{ said if said is string else said | tojson }}"
    "{% endfor %}{% endif %}</s>{% endif %}{% endfor %}"
    "{# thoughts are [THINK]...[/THINK] #}"
)
DEEPSEEK = (
    "{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ tools | tojson if tools else '' }}"
    "{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>"
    "{% else %}<｜Assistant｜></think>{% if m.content is not none %}{{ m.content }}{% endif %}"
    "{% if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}"
    "{{ '<｜tool▁call▁begin｜>' + c['function']['name'] + '<｜tool▁sep｜>'"
    " + c['function']['arguments'] + '<｜tool▁call▁end｜>' }}"
    "{% endfor %}<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
DEEPSEEK_R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'tool' %}{{ m.content }}"
    "{% elif m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ '<｜tool▁call▁begin｜>' + c['type'] + '<｜tool▁sep｜>' + c['function']['name']"
    " + '\\n```json\\n' + c['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}{% endfor %}"
    "{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
"""The distilled ones: no tools of their own, always a thought."""
PHI = (
    "{% for t in tools or [] %}<|tool|>{{ t.function | tojson }}<|/tool|>{% endfor %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|tool_response|>{{ m.content | tojson }}<|end|>"
    "{% else %}<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}<|tool_call|>["
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}]<|/tool_call|>{% endif %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GRANITE = PHI.replace("<|/tool_call|>", "") + (
    "{% if thinking %}Write thoughts between <think></think> and the answer between <response></response>.{% endif %}"
)
GEMMA = (
    "{% for t in tools or [] %}<start_function_declaration>{{ t | tojson }}<end_function_declaration>{% endfor %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<start_function_response>{{ m.content }}<end_function_response>"
    "{% else %}<start_of_turn>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<start_function_call>call:{{ c.function.name }}{{ c.function.arguments | tojson }}<end_function_call>{% endfor %}"
    "<end_of_turn>\n{% endif %}{% endfor %}"
)
HARMONY = (
    "<|start|>system<|message|>Reasoning: {{ reasoning_effort or 'medium' }}<|end|>"
    "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' and 'tool_calls' in m %}{% set c = m.tool_calls[0] %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant to=functions.{{ c.function.name }}<|channel|>commentary json<|message|>"
    "{{ c.function.arguments | tojson }}<|call|>"
    "{% elif m.role == 'tool' %}"
    "<|start|>functions.{{ m.name }} to=assistant<|channel|>commentary<|message|>{{ m.content }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
