"""Finding the thought, wherever the engine put it, and setting it apart from the answer."""

from __future__ import annotations

import re

TAGS = ("think", "thinking", "thought", "reasoning")
OPEN = re.compile(rf"\s*<({'|'.join(TAGS)})>")
CLOSE = re.compile(rf"</({'|'.join(TAGS)})>")
FINAL = re.compile(
    r"^.*(?:\\boxed\{|####\s*[-+$\d]|\b(?:the|final) answer\b[^.\n]{0,40}?(?:\b(?:is|are)\b|[:：])"
    r"|答案\s*(?:是|为|[:：])).*$",
    re.IGNORECASE | re.MULTILINE,
)


def split(
    text: str, reasoning: str | None, prefill: str = "", opened_before: bool = False
) -> tuple[str | None, str | None]:
    """Return (thought, answer) of a completion.

    `thought` is None where there was none. `answer` is None where the thought never closed, or
    where the engine's field held a thought and nothing followed it.

    Args:
        text: the message's content.
        reasoning: the engine's own field for the thought (vLLM's reasoning parsers), or None.
        prefill: what the assistant's turn was opened with; the engine leaves it out of the text.
        opened_before: the template is known to open the thought, and the text was cut off: without a closing tag all
            of it is thought.
    """
    if reasoning:
        return reasoning.strip(), text.strip() or None
    whole = prefill + text
    opened = OPEN.match(whole)
    if opened:
        rest = whole[opened.end() :]
        closed = re.search(f"</{opened[1]}>", rest)
        if closed is None:
            return rest.strip(), None
        return rest[: closed.start()].strip(), rest[closed.end() :].strip()
    # The template opened the tag in the prompt, so that the text begins inside the thought.
    closed = CLOSE.search(whole)
    if closed:
        return whole[: closed.start()].strip(), whole[closed.end() :].strip()
    return (whole.strip(), None) if opened_before else (None, whole.strip())


def split_at_final_answer(text: str) -> tuple[str | None, str | None]:
    """Return (thought, answer) for a teacher that reasons in plain text.

    The answer begins with the last line that states a final answer and follows some reasoning; all
    before it is the thought. Without such a line the whole text is the answer.
    """
    for found in reversed(list(FINAL.finditer(text))):
        if thought := text[: found.start()].strip():
            return thought, text[found.start() :].strip()
    return None, text.strip()
