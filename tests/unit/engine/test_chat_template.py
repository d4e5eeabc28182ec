"""Templates render as transformers renders them; the sandbox holds; refusals are clear."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
import transformers

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest, ModelLoadError
from novacron.testing.tiny_tokenizers import byte_level, write_folder

CHATML = """\
{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
<|start_header_id|>system<|end_header_id|>

Today: {{ date_string }}
{% if tools is not none %}
Tools:
{% for tool in tools %}
{{ tool | tojson(indent=4) }}

{% endfor %}
{% endif %}
{{ system_message }}<|eot_id|>
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- for call in message.tool_calls %}
            {{- '{"name": "' + call.function.name + '", "parameters": ' }}
            {{- call.function.arguments | tojson }}
            {{- "}" }}
        {%- endfor %}
    {%- elif message.role in ("tool", "ipython") %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- else %}
        {{- '<|' + message['role'] + '|>\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""

MISTRAL = """\
{{ bos_token }}{% set ns = namespace(turn=0) %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (ns.turn % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant') }}
    {% endif %}
    {% set ns.turn = ns.turn + 1 %}
    {% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}
    {% else %}
{{ message['content'] + eos_token }}
    {% endif %}
{% endfor %}
"""

CONTROLS = """\
{% for message in messages %}
    {% if message.role == 'tool' %}{% continue %}{% endif %}
    {% if loop.index > 3 %}{% break %}{% endif %}
  {% if message.role == 'assistant' %}
    {% generation %}{{ message.content }}{% endgeneration %}
  {% else %}
    {{ message.content | tojson }} {{ dict(a=1, b=[message.content]) | tojson }}
  {% endif %}
  {{ (message.reasoning_content or 'none') if message.reasoning_content is defined }}
{% endfor %}
{{ tools | tojson(sort_keys=true, separators=(',', ':')) if tools }} {{ mood | default('calm') }}
"""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "controls": CONTROLS}

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <now> & \u00fcberall",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "K\u00f6ln"}},
}

TURNS = [
    {"role": "user", "content": "  What <is> 1 & 1?\n"},
    {"role": "assistant", "content": "Two \U0001f642 "},
    {"role": "user", "content": "Sure?"},
]
CHATS = {
    "turns": TURNS,
    "system": [{"role": "system", "content": " Be brief. "}, *TURNS],
    "reasoning": [*TURNS, {"role": "assistant", "content": "Yes", "reasoning": "I counted."}],
    "calls": [
        TURNS[0],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": '{"sun": true}', "name": "weather"},
    ],
}


def _both(folder: Path, template: str) -> tuple[Tokenizer, transformers.PreTrainedTokenizerBase]:
    write_folder(folder, byte_level(), chat_template=template)
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("generation_prompt", [True, False])
def test_renders_as_transformers_does(
    tmp_path: Path, name: str, chat: str, tools, generation_prompt: bool
) -> None:
    ours, theirs = _both(tmp_path, TEMPLATES[name])
    options = {"tools": tools, "add_generation_prompt": generation_prompt}
    try:
        expected = theirs.apply_chat_template(CHATS[chat], tokenize=False, **options)
    except Exception as refusal:
        with pytest.raises(InvalidRequest, match=re.escape(str(refusal))):
            ours.render_chat(CHATS[chat], **options)
        return
    assert ours.render_chat(CHATS[chat], **options) == expected
    ids = theirs.apply_chat_template(CHATS[chat], return_dict=False, **options)
    assert ours.apply_chat_template(CHATS[chat], **options) == ids


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chatml", "It is"),
        ("chatml", "It is "),
        ("chatml", [{"type": "text", "text": "It"}, {"type": "image"}]),
        ("llama3", "It is"),
        ("llama3", "It is "),  # this template trims it
    ],
)
def test_continues_the_final_message_as_transformers_does(tmp_path, name, content) -> None:
    template = TEMPLATES[name].replace(
        "message.content + '<|im_end|>'",
        "(message.content if message.content is string else message.content[0].text)"
        " + '<|im_end|>'",
    )
    ours, theirs = _both(tmp_path, template)
    chat = [TURNS[0], {"role": "assistant", "content": content}]
    expected = theirs.apply_chat_template(chat, tokenize=False, continue_final_message=True)
    rendered = ours.render_chat(chat, add_generation_prompt=False, continue_final_message=True)
    assert rendered == expected
    assert rendered.endswith(expected[-2:])
    assert chat[-1]["content"] == content


def test_template_kwargs_reach_the_template(tmp_path: Path) -> None:
    ours, theirs = _both(tmp_path, CONTROLS)
    expected = theirs.apply_chat_template(TURNS, tokenize=False, mood="merry")
    rendered = ours.render_chat(
        TURNS, add_generation_prompt=False, template_kwargs={"mood": "merry"}
    )
    assert rendered == expected
    assert "merry" in rendered


def test_strftime_now_is_the_present(tmp_path: Path) -> None:
    ours, _ = _both(tmp_path, "{{ strftime_now('%Y') }}")
    assert ours.render_chat(TURNS) == str(datetime.now().year)


def test_named_templates_and_tool_use(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "with tools"},
    ]
    write_folder(tmp_path, byte_level(), tokenizer_config={"chat_template": named})
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.render_chat(TURNS) == "plain"
    assert tokenizer.render_chat(TURNS, tools=[TOOL]) == "with tools"


def test_several_templates_without_a_default(tmp_path: Path) -> None:
    named = [{"name": "rag", "template": "a"}, {"name": "sql", "template": "b"}]
    write_folder(tmp_path, byte_level(), tokenizer_config={"chat_template": named})
    with pytest.raises(InvalidRequest, match=r"rag, sql.*--chat-template"):
        Tokenizer.load(tmp_path).render_chat(TURNS)


def test_override_beats_file_beats_config(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "model", byte_level(), tokenizer_config={"chat_template": "from config"}
    )
    assert Tokenizer.load(folder).render_chat(TURNS) == "from config"
    (folder / "chat_template.jinja").write_text("from file")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("for tools")
    assert Tokenizer.load(folder).render_chat(TURNS) == "from file"
    assert Tokenizer.load(folder).render_chat(TURNS, tools=[TOOL]) == "for tools"
    (tmp_path / "mine.jinja").write_text("mine")
    assert Tokenizer.load(folder, tmp_path / "mine.jinja").render_chat(TURNS) == "mine"


@pytest.mark.parametrize("value", [3, {"a": 1}, [{"name": "default"}], ["x"]])
def test_wrong_type_of_template_is_named(tmp_path: Path, value: object) -> None:
    write_folder(tmp_path, byte_level(), tokenizer_config={"chat_template": value})
    with pytest.raises(ModelLoadError, match=r"tokenizer_config\.json: .*chat_template"):
        Tokenizer.load(tmp_path)


def test_broken_template_is_named_when_loading(tmp_path: Path) -> None:
    write_folder(tmp_path, byte_level(), chat_template="fine\n{% if %}")
    with pytest.raises(ModelLoadError, match=r"chat_template\.jinja: .* invalid at line 2"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ModelLoadError, match=r"absent\.jinja cannot be read"):
        Tokenizer.load(tmp_path, tmp_path / "absent.jinja")


def test_a_model_without_a_template_says_what_to_do(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_folder(tmp_path, byte_level()))
    assert not tokenizer.has_chat_template
    with pytest.raises(InvalidRequest, match=r"/v1/completions, or start .*--chat-template"):
        tokenizer.apply_chat_template(TURNS)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append({}) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ '{0.__class__}'.format_map({'0': 1}) }}",
        "{% include '/etc/hostname' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ dict.__globals__ }}",
    ],
)
def test_the_sandbox_holds(tmp_path: Path, template: str) -> None:
    tokenizer, _ = _both(tmp_path, template)
    try:
        rendered = tokenizer.render_chat(TURNS)
    except InvalidRequest:
        return
    assert rendered == ""


@pytest.mark.parametrize(
    ("messages", "options", "expected"),
    [
        ([], {}, "messages is empty"),
        (["hello"], {}, "must be an object"),
        ([{"role": "user"}], {}, "no attribute 'content'"),
        ([{"role": 1, "content": "x"}], {}, "TypeError"),
        (TURNS, {"continue_final_message": True}, "exclude each other"),
        (TURNS, {"template_kwargs": {"messages": []}}, "may not set messages"),
        ([{"role": "user", "content": object()}], {}, "not plain JSON data"),
    ],
)
def test_refusals(tmp_path: Path, messages, options, expected: str) -> None:
    tokenizer, _ = _both(tmp_path, CHATML)
    with pytest.raises(InvalidRequest, match=expected):
        tokenizer.render_chat(messages, **options)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 'no content here' }}", {"role": "assistant", "content": "a"}),
        ("{{ messages[0].content }}", {"role": "assistant", "content": "a"}),
        (CHATML, {"role": "assistant", "content": []}),
        (CHATML, {"role": "assistant", "content": None}),
    ],
)
def test_nothing_to_continue(tmp_path: Path, template: str, message) -> None:
    tokenizer, _ = _both(tmp_path, template)
    with pytest.raises(InvalidRequest, match="continue_final_message"):
        tokenizer.render_chat(
            [TURNS[0], message], add_generation_prompt=False, continue_final_message=True
        )
