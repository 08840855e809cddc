"""Invariant: a chat is what its tokenizer's template renders, id by id, and every character of a message is its own turn's,
whatever the template writes around it; nothing is known of a template but what it renders.

The templates are written for these tests, in the styles that are in use.
"""

from __future__ import annotations

from typing import Any

import families
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import tl_scopes as tls
from tl_scopes.model.prompts import EncodedPrompt, encode_prompts

SPECIALS = ["<s>", "</s>", "<|open|>", "<|close|>", "[INST]", "[/INST]", "<turn>", "</turn>", "<|head|>", "<|body|>"]
SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Which city is the capital of France?"}
SAY = {"role": "assistant", "content": "Paris."}
MORE = {"role": "user", "content": "user"}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": 'Pa"ris', "days": 2}}}],
}
TOOL = {"role": "tool", "name": "weather", "content": "<b>sunny</b>"}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}}
]
DOCUMENTS = [{"title": "Map", "text": "Paris is in France."}, {"title": "Sea", "text": "Nice is on the sea."}]

MARKS = (
    "{% for m in messages %}<|open|>{{ m.role }}\n{{ m.content }}<|close|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m['role'] }}<|body|>\n\n{{ m['content'] | trim }}<|close|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|body|>\n\n{% endif %}"
)
SYSTEM_IN_USER = (
    "{{ bos_token }}{% set first = messages[0].role == 'system' %}"
    "{% for m in (messages[1:] if first else messages) %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if first and loop.first %}{{ messages[0].content }}\n\n{% endif %}{{ m.content | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
INSTRUCTIONS = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, user first') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
WITH_TOOLS = (
    "{% if tools %}<|open|>system\nYou may call:\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|close|>\n{% endif %}"
    "{% for m in messages %}<|open|>{{ m.role }}\n{% if m.content %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}<|close|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)
WITH_DOCUMENTS = (
    "{{ bos_token }}{% for d in documents or [] %}[{{ loop.index }}] {{ d.title | upper }}: {{ d.text }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|open|>{{ m.role }}\n{% set c = m.content %}{% set r = m.reasoning_content or '' %}"
    "{% if m.role == 'assistant' and '</think>' in c %}{% set r = c.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'assistant' and (loop.last or keep) %}<think>\n{{ r }}\n</think>\n\n{% endif %}"
    "{{ c }}<|close|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% if not think %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
PARTS = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% else %}<image>{% endif %}{% endfor %}{% endif %}</turn>"
    "{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
ESCAPED = "{{ bos_token }}{{ messages | tojson }}{% if add_generation_prompt %}\nassistant:{% endif %}"
PLAIN = (
    "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
)
STYLES: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "marks": (MARKS, [SYSTEM, ASK, SAY, MORE], {}),
    "headers": (HEADERS, [SYSTEM, {"role": "user", "content": "  Which city?\n"}, SAY, MORE], {}),
    "system in the user's turn": (SYSTEM_IN_USER, [SYSTEM, ASK, SAY, MORE], {}),
    "instructions": (INSTRUCTIONS, [ASK, SAY, MORE], {}),
    "tools": (WITH_TOOLS, [ASK, CALL, TOOL], {"tools": TOOLS}),
    "documents": (WITH_DOCUMENTS, [ASK], {"documents": DOCUMENTS}),
    "thinking": (THINKING, [ASK, {**SAY, "content": "<think>\nA map says.\n</think>\n\nParis."}, MORE], {"keep": True}),
    "parts": (PARTS, [{"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image"}]}], {}),
    "escaped": (ESCAPED, [{"role": "user", "content": 'A "word"\nand more'}, SAY], {}),
    "no marks at all": (PLAIN, [MORE, SAY, MORE], {}),
}


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """Bytes, and the marks of all templates, with a BOS put before plain texts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(mark, special=True) for mark in SPECIALS])
    bos = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        name_or_path="tiny",
        add_bos_token=True,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    made.add_special_tokens({"additional_special_tokens": SPECIALS[2:]})
    made.chat_template = template
    return made


@pytest.fixture
def reader(demo_model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Encodes prompts by the demo model with a tokenizer of a template."""

    def read(template: str | None, prompt: Any, **keywords: Any) -> EncodedPrompt:
        monkeypatch.setattr(demo_model, "tokenizer", tokenizer(template))
        monkeypatch.setattr(demo_model.cfg, "n_ctx", 2000)
        (found,) = encode_prompts(demo_model, prompt, pos=-1, **{"prepend_bos": None, **keywords})
        return found

    return read


def named(prompt: EncodedPrompt) -> list[tuple[str, str]]:
    assert prompt.text is not None
    return [(unit.name, prompt.text[unit.start : unit.end]) for unit in prompt.units]


# -- as the tokenizer renders it ---------------------------------------------------------------------------


@pytest.mark.one_lens
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("prompted", [True, False])
def test_ids_are_those_of_apply_chat_template(style: str, prompted: bool, reader: Any) -> None:
    template, chat, options = STYLES[style]
    given = options if prompted else {**options, "add_generation_prompt": False}
    found = reader(template, chat, chat_options=given or None)
    made = tokenizer(template)
    wanted = made.apply_chat_template(chat, add_generation_prompt=prompted, return_dict=False, **options)
    assert found.tokens.tolist() == wanted
    assert found.text == made.apply_chat_template(chat, add_generation_prompt=prompted, tokenize=False, **options)
    assert wanted.count(made.bos_token_id) == ("bos_token" in template), "as often as the template says"
    assert [note for note in found.notes if "writes no" not in note] == []
    assert bool(found.notes) == ("bos_token" not in template), "a chat that gets no BOS says so"


TURNS: dict[str, list[tuple[str, str]]] = {
    "marks": [("system", "Be brief."), ("user", ASK["content"]), ("assistant", "Paris."), ("user", "user")],
    "headers": [("system", "Be brief."), ("user", "Which city?"), ("assistant", "Paris."), ("user", "user")],
    "system in the user's turn": [
        ("system", "Be brief."), ("user", ASK["content"]), ("assistant", "Paris."), ("user", "user")
    ],
    "instructions": [("user", ASK["content"]), ("assistant", "Paris."), ("user", "user")],
    "tools": [
        ("tools", 'weather", "description": "Tells it.'), ("user", ASK["content"]),
        ("assistant", 'weather", "arguments": {"city": "Pa\\"ris'), ("tool", "<b>sunny</b>"),
    ],
    "documents": [
        ("document", "MAP: Paris is in France."), ("document", "SEA: Nice is on the sea."), ("user", ASK["content"])
    ],
    "thinking": [
        ("user", ASK["content"]), ("thinking", "<think>\nA map says.\n</think>"), ("assistant", "Paris."), ("user", "user")
    ],
    "parts": [("user", "Look:")],
    "escaped": [("user", 'A \\"word\\"\\nand more'), ("assistant", "Paris.")],
    "no marks at all": [("user", "user"), ("assistant", "Paris."), ("user", "user")],
}  # fmt: skip


@pytest.mark.one_lens
@pytest.mark.parametrize("style", STYLES)
def test_turns_are_the_characters_of_their_messages(style: str, reader: Any) -> None:
    template, chat, options = STYLES[style]
    found = reader(template, chat, chat_options=options or None)
    assert named(found) == TURNS[style]
    if style == "no marks at all":
        assert [unit.start for unit in found.units] == [4, 17, 27], "the text of a role is never taken for a message's"


@pytest.mark.one_lens
def test_thinking_that_a_template_leaves_out_has_no_unit_and_a_field_of_that_name_is_one(reader: Any) -> None:
    template, chat, _ = STYLES["thinking"]
    assert named(reader(template, chat)) == [("user", ASK["content"]), ("assistant", "Paris."), ("user", "user")]
    field = [ASK, {**SAY, "reasoning_content": "A map says."}]
    assert named(reader(template, field, chat_options={"keep": True}))[1:] == [
        ("thinking", "A map says."), ("assistant", "Paris.")
    ]  # fmt: skip


@pytest.mark.one_lens
def test_a_part_that_cannot_be_marked_without_changing_the_rest_has_no_unit_and_the_others_have(reader: Any) -> None:
    length = "{% if m.role == 'system' %}{{ m.content | length }}: {% endif %}"
    counted = "{% for m in messages %}" + length + "{{ m.content }}\n{% endfor %}"
    assert named(reader(counted, [SYSTEM, ASK, SAY])) == [("user", ASK["content"]), ("assistant", "Paris.")]


@pytest.mark.one_lens
def test_a_message_may_be_continued_and_options_reach_the_template(reader: Any) -> None:
    going = reader(MARKS, [ASK, SAY], chat_options={"continue_final_message": True})
    assert going.text is not None and going.text.endswith("Paris.") and named(going)[-1] == ("assistant", "Paris.")
    assert "<think>" not in reader(THINKING, [ASK], chat_options={"think": True}).text
    assert named(reader(None, [ASK], chat_options={"chat_template": PLAIN})) == [("user", ASK["content"])]

    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: where.
        """
        return city

    assert named(reader(WITH_TOOLS, [ASK], chat_options={"tools": [weather]}))[0][0] == "tools"


@pytest.mark.one_lens
def test_bos_is_there_once_and_is_added_only_where_asked(reader: Any) -> None:
    bos = tokenizer(None).bos_token_id
    for template, times in ((MARKS, 1), (HEADERS, 1)):
        found = reader(template, [ASK], prepend_bos=True)
        assert found.tokens.tolist().count(bos) == times and int(found.tokens[0]) == bos
        assert named(found) == [("user", ASK["content"])] and found.offsets is not None
    assert bos not in reader(MARKS, [ASK], prepend_bos=None).tokens.tolist()


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.one_lens
@pytest.mark.parametrize(
    ("template", "chat", "options", "said"),
    [
        (
            None,
            [ASK],
            None,
            r"this model's tokenizer has no chat template .*chat_options=\{'chat_template",
        ),
        (INSTRUCTIONS, [SAY], None, "does not take these messages: roles must alternate, user first"),
        (MARKS, [{"content": "x"}], None, r"prompt\[0\]=\{'content': 'x'\}\): a message is .* it has no role"),
        (
            MARKS,
            [ASK],
            {"tokenize": False},
            r"\(chat_options=\.\.\.\): 'tokenize' says what apply_chat_template gives back",
        ),
        (WITH_TOOLS, [ASK], {"tools": [len]}, r"\(chat_options={'tools': ...}\): number 0, 'len', cannot be described"),
        (MARKS, "text", {"tools": []}, "they are for chats, and prompt is not a list of messages"),
    ],
)
def test_what_cannot_be_rendered_is_refused_with_the_remedy(
    template: Any, chat: Any, options: Any, said: str, reader: Any
) -> None:
    with pytest.raises(ValueError, match=said):
        reader(template, chat, chat_options=options)


def test_a_model_without_a_tokenizer_takes_no_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.build("gpt2", families.kinds_available()[-1]).model
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(ValueError, match=r"semantic_scope\(prompt=.*no tokenizer, so no chat template"):
        tls.semantic_scope(model, [ASK])


# -- everywhere a prompt is --------------------------------------------------------------------------------


PLAIN_OPTIONS = {"chat_template": WITH_DOCUMENTS}
CHAT = [{"role": "system", "content": "the dog"}, {"role": "user", "content": "sees the cat"}]


def test_one_chat_gives_one_result_and_a_list_a_list(demo_model: Any) -> None:
    one = tls.semantic_scope(demo_model, CHAT, chat_options=PLAIN_OPTIONS)
    several = tls.semantic_scope(demo_model, [CHAT, CHAT[1:]], chat_options=PLAIN_OPTIONS)
    assert isinstance(one, tls.Attribution) and several[0].text == one.text
    assert [unit.name for unit in one.units] == ["system", "user"]
    text = tls.semantic_scope(demo_model, one.text, prepend_bos=False)
    assert (text.scores == one.scores).all() and text.units == ()
    turns = one.by_unit("turn")
    assert [turns.str_tokens[i] for i in (1, 3)] == [" the dog", " sees the cat"]
    assert set(turns.without("special").shares()) == {"template", "system", "user"}


@pytest.mark.slow
def test_every_call_on_prompts_takes_a_chat(demo_model: Any) -> None:
    given: dict[str, Any] = {"chat_options": PLAIN_OPTIONS}
    calls = (
        tls.temperature_scope, tls.fisher_scope, tls.gradient_norm, tls.leave_one_out, tls.random_attribution,
        tls.attention_rollout, tls.layer_influence, tls.integrated_gradients, tls.attribution_matrix, tls.attention_sinks,
    )  # fmt: skip
    for call in calls:
        found = call(demo_model, CHAT, **given)
        assert not isinstance(found, list), call
    matrix = tls.attribution_matrix(demo_model, CHAT, **given).by_unit("turn")
    assert " the dog" in matrix.str_tokens and matrix.details["names"][1:4] == ["template", "system", "template"]
    layers = tls.layer_influence(demo_model, CHAT, **given).by_unit("turn")
    assert layers.scores.shape[1] == len(layers.str_tokens)
