"""A preset as YAML, put into params.yaml; every other byte of the file stays as it is."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from headtohead.params import ParamsError, read_params

PLAIN = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)
SPECIAL = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # to YAML 1.1 or 1.2 no strings
SHORT = ("tokenizer", "model", "generate", "score")  # sections on one line


def write_preset(path: Path, name: str, preset: Mapping[str, Mapping[str, Any]], heading: str) -> None:
    """Add a preset after the others, or put it in place of the one of that name.

    Args:
        preset: as `params.Preset` takes it.
        heading: a comment below its name.

    Raises:
        ParamsError: the file cannot be used or written, or would not be read back as what was meant; it is then left
            as it is.
    """
    before = read_params(path)
    text = path.read_bytes().decode()
    end = "\r\n" if "\r\n" in text else "\n"
    block = _block(path, text)
    lines = text.splitlines(keepends=True)
    if not lines[-1].endswith("\n"):
        lines[-1] += end
    indent = " " * block.value[0][0].start_mark.column
    written = [f"{indent}{line}".rstrip() + end for line in _lines(name, preset, heading)]
    places = {key.value: (key.start_mark.line, _last_line(value) + 1) for key, value in block.value}
    if name in places:
        first, after = places[name]
        lines[first:after] = written
    else:
        after = max(last for _, last in places.values())
        lines[after:after] = [end, *written]
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_bytes("".join(lines).encode())
        after_it = read_params(beside)
        kept = {other: one for other, one in after_it.presets.items() if other != name}
        if kept != {other: one for other, one in before.presets.items() if other != name}:
            raise ParamsError(f"{path}: a preset cannot be put into it without changing others; write presets as a "
                              "block, one key a line")
        type(after_it).model_validate(after_it.model_dump() | {"preset": name})  # what only the chosen one must fulfil
        beside.replace(path)
    except OSError as error:
        raise ParamsError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def _block(path: Path, text: str) -> MappingNode:
    """The presets, which must stand one below the other."""
    root = YAML(pure=True).compose(text)
    presets = next(value for key, value in root.value if key.value == "presets")
    if not isinstance(presets, MappingNode) or presets.flow_style:
        raise ParamsError(f"{path}: presets stand in braces; write them as a block, one key a line, to have one added")
    return presets


def _last_line(node: Node) -> int:
    """The last line of a value; a block ends where the next key begins, so ask what it ends with."""
    if isinstance(node, MappingNode | SequenceNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    at_start = isinstance(node, ScalarNode) and node.style in ("|", ">") and node.end_mark.column == 0
    return int(node.end_mark.line) - at_start


def _lines(name: str, preset: Mapping[str, Mapping[str, Any]], heading: str) -> list[str]:
    lines = [f"{_string(name)}:", f"  # {_printable(heading)}"]
    for section, values in preset.items():
        if section in SHORT:
            lines.append(f"  {section}: {_value(values)}")
        else:
            lines += [f"  {section}:", *(f"    {key}: {_value(value)}" for key, value in values.items())]
    return lines


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _value(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_value(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.8f}".rstrip("0").removesuffix(".") + (".0" if value == int(value) else "")
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    if PLAIN.fullmatch(text) and text.lower() not in SPECIAL:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char == "\n":
        return "\\n"
    if char.isprintable():
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\U{ord(char):08x}"
