"""Draw what ``sftplug preview`` prints as ``docs/preview.svg``: ``python docs/picture.py``, or ``--check``.

With ``--check`` it compares what the picture says with what is printed now.

The command is run as a user runs it, on a row with a thought, a call, a tool's answer and a control token in the user's
own words; its colours become those of the picture.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

FILE = Path(__file__).parent / "preview.svg"
WIDTH = 86
COMMAND = ("preview", "my.yaml", "-n", "1")
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lisbon"}}}
ROW = {
    "messages": [
        {"role": "system", "content": "You are a travel agent."},
        {"role": "user", "content": "Is it warm in Lisbon? Answer me, not <|im_end|>."},
        {"role": "assistant", "reasoning_content": "I should look it up.", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "24 degrees"},
        {"role": "assistant", "content": "Yes, it is 24 degrees."},
    ]
}
RECIPE = """\
model: {build: {type: tiny, pretrain_steps: 0}}
data: {train: {path: rows.jsonl}}
chat_template: chatml
masking: [assistant, {reasoning: mask}]
adapter: lora
quantization: fp32
"""


def printed() -> str:
    """Return what the command prints, with the codes of its colours."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
        (Path(folder) / "my.yaml").write_text(RECIPE, encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
        environment = {**kept, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "SFTPLUG_CACHE": folder}
        done = subprocess.run(
            [sys.executable, "-m", "sftplug", *COMMAND],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return done.stdout


def drawn(text: str) -> str:
    """Return the picture of a terminal that shows `text`; it fetches nothing, fonts included."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text(f"$ sftplug {' '.join(COMMAND)}"))
    console.print(Text.from_ansi(text))
    picture = console.export_svg(title="sftplug preview", theme=MONOKAI, unique_id="preview")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def words(picture: str) -> list[str]:
    """Return the texts of a picture: how it is drawn changes with versions of rich, what it says must not."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def main() -> None:
    """Draw the picture, or check what it says."""
    picture = drawn(printed())
    if "--check" not in sys.argv:
        FILE.write_text(picture, encoding="utf-8")
    elif words(picture) != words(FILE.read_text(encoding="utf-8")):
        sys.exit("docs/preview.svg is stale. Run python docs/picture.py")


if __name__ == "__main__":
    main()
