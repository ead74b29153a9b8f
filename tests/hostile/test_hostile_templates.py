"""Templates of somebody who means harm: each ends within its bounds on time and memory, and in words that say why.

`templates/expected.yaml` holds, for each file, the words that it must get (none: any reason will do), what becomes
of it (``stopped`` unless it says otherwise), and how often the text of a file that is too large to keep is repeated.
"""

from pathlib import Path

import pytest
import yaml
from workplace import Workplace

FOLDER = Path(__file__).parent / "templates"
CASES = yaml.safe_load((FOLDER / "expected.yaml").read_text())
SECONDS, MEGABYTES = 6, 1000
"""What rendering a template may cost, a process that was started for it included."""
_TOOL = {"name": "tide", "description": "When is high tide?", "parameters": {"type": "object", "properties": {}}}
CONVERSATION = [
    {"role": "user", "content": "When does the ship leave the harbour?"},
    {"role": "assistant", "content": "At noon."},
]


def attempt(argument):
    """Render the template in every way that sftplug does; return what became of it and what was said."""
    from sftplug.data.render import budget, compile_template, enforce
    from sftplug.errors import TemplateError, TemplateStopped

    tools = [{"type": "function", "function": _TOOL}]
    budget.SECONDS = enforce.SECONDS = enforce.GRACE = 0.5  # that nobody has to wait
    try:
        template = compile_template(argument, "hostile")
        template.text(CONVERSATION[:1], add_generation_prompt=True)
        template.render(CONVERSATION)
        template.render(CONVERSATION)
        template.render(CONVERSATION, tools)
    except TemplateStopped as error:
        return "stopped", str(error)
    except TemplateError as error:
        return "refused", str(error)
    return "harmless", template.text(CONVERSATION)


@pytest.fixture(scope="module")
def workplace():
    place = Workplace("test_hostile_templates")
    yield place
    place.close()


def source(name):
    return (FOLDER / f"{name}.jinja").read_text() * CASES[name].get("repeat", 1)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_template_ends_within_bounds_and_says_why(name, workplace):
    expected = CASES[name]
    outcome, seconds, megabytes = workplace.run(source(name))
    assert outcome != "endless"
    assert outcome[0] == expected.get("kind", "stopped"), outcome
    # On a slow machine the time may be up first.
    assert expected.get("words", "") in outcome[1] or "is stopped: it takes more than" in outcome[1]
    assert len(outcome[1]) < 2000
    if outcome[0] != "harmless":
        assert "chat template 'hostile'" in outcome[1]
    assert seconds < SECONDS
    assert megabytes < MEGABYTES


def test_a_template_that_indents_the_messages_leaves_them_as_they_are():
    from sftplug.data.render import compile_template
    from sftplug.errors import TemplateError

    messages = [dict(message) for message in CONVERSATION]
    with pytest.raises(TemplateError, match="refuses a conversation of user, assistant"):
        compile_template("{{ messages|indent(9) }}", "hostile").text(messages)
    assert messages == CONVERSATION


def test_every_template_of_the_folder_is_expected_and_there_are_many():
    assert sorted(path.stem for path in FOLDER.glob("*.jinja")) == sorted(CASES)
    assert len(CASES) >= 60
