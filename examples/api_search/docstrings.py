"""Docstrings and signatures as text: the sentence that describes an API entry, and the words of the entry."""

import re

ABBREVIATIONS = r"(?<!e\.g)(?<!i\.e)(?<!\betc)(?<!\bvs)(?<!\bcf)"
BOILERPLATE = re.compile(r"(See|Alias (for|of)|In-place version|Overloaded function|DEPRECATED|TODO|Same as)\b")
MIN_WORDS = 3
MIN_BOILERPLATE_WORDS = 7
IMPLICIT_PARAMETERS = frozenset({"self", "cls", "args", "kwargs", "kwds"})


def entry_text(name: str, signature: str) -> str:
    """Write an entry for a text encoder: the own name in words, the parameters, and where it is found.

    Of eight ways to write an entry this one was found best, and far better than the bare name and signature, for
    the frozen encoder on the training packages.

    Args:
        name: The qualified name.
        signature: The signature with its parentheses, or an empty string.

    Returns:
        For example ``arg partition (a, kth, axis) in numpy.argpartition``.
    """
    own = split_identifier(name.rpartition(".")[2])
    parameters = ", ".join(parameter.replace("_", " ").strip() for parameter in parameter_names(signature))
    return f"{own} ({parameters}) in {name}" if parameters else f"{own} in {name}"


def split_identifier(name: str) -> str:
    """Split a dotted name into words at dots, underscores and changes of case.

    Args:
        name: The dotted name.

    Returns:
        The words, separated by spaces.
    """
    spaced = re.sub(r"[._]", " ", name)
    return " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", spaced).split())


def parameter_names(signature: str) -> list[str]:
    """List the parameters of a signature that say something about the function.

    Args:
        signature: The signature with its parentheses, from Python or from the first line of a docstring.

    Returns:
        The names, without ``self`` and the like.
    """
    end = matching_bracket(signature, 0) if signature.startswith("(") else -1
    matches = [re.match(r"[\s\[\]*]*([A-Za-z_]\w*)", part) for part in _split_top_level(signature[1 : max(end, 1)])]
    names = [match.group(1) for match in matches if match]
    return [name for name in names if name not in IMPLICIT_PARAMETERS]


def first_sentence(doc: str) -> str:
    """Take the first sentence from a docstring.

    Args:
        doc: The docstring with its common indentation removed.

    Returns:
        The sentence on one line without markup and final full stop, or an empty string if there is none.
    """
    _, body = split_signature(doc)
    paragraph = strip_markup(_first_paragraph(body))
    parts = re.split(rf"{ABBREVIATIONS}(?<=[.!?])\s+(?=[^a-z])", paragraph)
    return next((sentence for part in parts if (sentence := part.rstrip(".:! ").strip())), "")


def is_description(sentence: str) -> bool:
    """Tell whether a sentence says enough to find an entry by it.

    Args:
        sentence: The first sentence of a docstring.

    Returns:
        Whether it has a few words and is not just a reference to another entry.
    """
    words = len(re.findall(r"[A-Za-z]{2,}", sentence))
    return words >= (MIN_BOILERPLATE_WORDS if BOILERPLATE.match(sentence) else MIN_WORDS)


def split_signature(doc: str) -> tuple[str, str]:
    """Split the signatures off the beginning of a docstring.

    Args:
        doc: The docstring.

    Returns:
        The first signature with its parentheses, or an empty string, and the rest of the docstring.
    """
    signature, body = "", doc.strip()
    while match := re.match(r"[\w.]+ ?\(", body):
        end = matching_bracket(body, match.end() - 1)
        rest = body[end + 1 :]
        arrow = re.match(r"\s*->\s*(\([^()\n]*\)|[^\n.]*?)(?:\.\s|\.?$|\n|\s--+\s|\s{2,})", rest, re.MULTILINE)
        if end < 0 or not (arrow or re.match(r"\s*(\n|--|:\s|$)", rest)):
            break
        signature = signature or " ".join(body[match.end() - 1 : end + 1].split())
        body = rest[arrow.end() if arrow else 0 :].lstrip(" \n\t:-")
    return signature, body


def matching_bracket(text: str, start: int) -> int:
    """Find the bracket that closes another one.

    Args:
        text: The text.
        start: The position of the opening bracket.

    Returns:
        The position of the closing bracket, or -1 if there is none.
    """
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if depth == 0:
            return position
    return -1


def strip_markup(text: str) -> str:
    """Remove reStructuredText markup and line breaks.

    Args:
        text: The text.

    Returns:
        The plain text on one line.
    """
    text = re.sub(r":[a-zA-Z:]+:`~?!?\.?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)
    text = re.sub(r"`{1,2}([^`]*)`{1,2}_{0,2}", r"\1", text)
    text = re.sub(r"\|(\w+)\|", r"\1", text)
    text = re.sub(r"\*{1,2}([\w ]+)\*{1,2}", r"\1", text)
    return " ".join(text.split())


def _first_paragraph(doc: str) -> str:
    """Take the first paragraph that is neither a directive nor an example; there is none behind a heading."""
    for paragraph in re.split(r"\n\s*\n", doc):
        if re.search(r"^\s*[-=~]{3,}\s*$", paragraph, re.MULTILINE):
            return ""
        if paragraph.strip() and not paragraph.lstrip().startswith(("..", ">>>")):
            return " ".join(paragraph.split())
    return ""


def _split_top_level(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    # A docstring puts optional parameters into square brackets, and an annotation a list of types.
    brackets = ("({", ")}") if "[," in text else ("({[", ")}]")
    parts, depth = [""], 0
    for character in text:
        depth += (character in brackets[0]) - (character in brackets[1])
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
