"""The text of .proto files (proto2, proto3, editions): a scanner and a descent that keeps what ``protomodel`` has.

Options, services, extensions and reserved ranges are read over: they must be well-formed as to their brackets, and
change nothing for compatibility.

Source: the Protocol Buffers language specifications.
"""

from __future__ import annotations

import re
from typing import Final

from headwater.limits import REGISTRY_DEPTH_MAX
from headwater.registry.protomodel import FIELD_NUMBER_MAX, SCALARS, Field, File, Message
from headwater.registry.refusal import Refusal, invalid_schema

_TOKEN: Final = re.compile(
    r"""\s+ | //[^\n]* | /\*.*?\*/
    | (?P<token> [A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)* | \.[A-Za-z_][A-Za-z0-9_.]*
    | 0[xX][0-9a-fA-F]+ | [0-9][0-9A-Za-z_.]*(?:[eE][+-]?[0-9]+)? | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    | [{}()\[\]<>;=,.:+/-] )""",
    re.VERBOSE | re.DOTALL,
)
_LABELS: Final = ("optional", "required", "repeated")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEYS: Final = frozenset(SCALARS) - {"double", "float", "bytes"}
_PAIRS: Final = {"{": "}", "[": "]", "(": ")", "<": ">"}


def parse(text: str) -> File:
    """The file that the text defines, with types by the names that it uses.

    Raises:
        Refusal: 42201, with the line.
    """
    return _Parser(text).file()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, int]] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise _wrong(f"{text[at]!r} is out of place", text.count("\n", 0, at) + 1)
            if found["token"]:
                self.tokens.append((found["token"], at))
            at = found.end()
        self.text = text
        self.at = 0
        self.made = File()

    def file(self) -> File:
        while self.at < len(self.tokens):
            self._top(self._next())
        return self.made

    # -- tokens ----------------------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise self._refuse("the text ends too soon")
        self.at += 1
        return token

    def _expect(self, *tokens: str) -> None:
        for wanted in tokens:
            found = self._next()
            if found != wanted:
                raise self._refuse(f"{wanted!r} is expected, not {found[:40]!r}")

    def _name(self) -> str:
        name = self._next()
        if not _NAME.match(name):
            raise self._refuse(f"{name[:40]!r} is no name")
        return name

    def _number(self) -> int:
        sign = -1 if self._peek() == "-" else 1
        if sign < 0:
            self._next()
        token = self._next()
        try:
            return sign * int(token, 8 if re.fullmatch("0[0-7]+", token) else 0)
        except ValueError:
            raise self._refuse(f"{token[:40]!r} is no whole number") from None

    def _string(self) -> str:
        token = self._next()
        if token[0] not in "\"'":
            raise self._refuse(f"a string is expected, not {token[:40]!r}")
        return token[1:-1]

    def _skip(self) -> None:
        """Over a statement: to its semicolon, or past the braces that end it."""
        open_: list[str] = []
        while True:
            token = self._next()
            if token in _PAIRS and token != "<":
                open_.append(_PAIRS[token])
            elif open_ and token == open_[-1]:
                open_.pop()
                if not open_ and token == "}":
                    if self._peek() == ";":
                        self._next()
                    return
            elif token in ("}", "]", ")"):
                raise self._refuse(f"{token!r} closes nothing")
            elif token == ";" and not open_:
                return

    def _refuse(self, reason: str) -> Refusal:
        place = self.tokens[min(self.at, len(self.tokens)) - 1][1] if self.tokens else 0
        return _wrong(reason, self.text.count("\n", 0, place) + 1)

    # -- statements ------------------------------------------------------------------------------------------

    def _top(self, word: str) -> None:
        match word:
            case ";":
                pass
            case "syntax" | "edition":
                self._expect("=")
                self.made.syntax = self._string()
                self._expect(";")
            case "package":
                self.made.package = self._next()
                self._expect(";")
            case "import":
                if self._peek() in ("public", "weak"):
                    self._next()
                self.made.imports.append(self._string())
                self._expect(";")
            case "message":
                self._message(self.made.package, 0)
            case "enum":
                self._enum(self.made.package)
            case "service" | "extend" | "option":
                self._skip()
            case _:
                raise self._refuse(f"{word[:40]!r} begins no definition")

    def _message(self, scope: str, depth: int) -> None:
        if depth > REGISTRY_DEPTH_MAX:
            raise self._refuse("messages are nested too deep")
        name = _within(scope, self._name())
        message = self._define(name)
        self._expect("{")
        while (word := self._next()) != "}":
            self._member(word, name, message, depth)

    def _define(self, name: str) -> Message:
        if self.made.defines(name):
            raise self._refuse(f"{name!r} is defined twice")
        made = self.made.messages[name] = Message()
        return made

    def _member(self, word: str, name: str, message: Message, depth: int) -> None:
        after = self._peek()
        if word == ";":
            return
        if word == "message" and _NAME.match(after):
            self._message(name, depth + 1)
        elif word == "enum" and _NAME.match(after):
            self._enum(name)
        elif word == "oneof" and _NAME.match(after):
            oneof = self._name()
            self._expect("{")
            while (inner := self._next()) != "}":
                if inner == "option":
                    self._skip()
                else:
                    self._field(inner, "", oneof, name, message, depth)
        elif word in ("option", "extensions", "reserved", "extend") and after != "=":
            self._skip()
        elif word in _LABELS:
            self._field(self._next(), word, "", name, message, depth)
        else:
            self._field(word, "", "", name, message, depth)

    def _field(self, kind: str, label: str, oneof: str, scope: str, message: Message, depth: int) -> None:
        if kind == "group":
            self._group(label, oneof, scope, message, depth)
            return
        if kind == "map" and self._peek() == "<":
            kind = self._map()
        elif not re.match(r"[A-Za-z_.]", kind):
            raise self._refuse(f"{kind[:40]!r} is no type")
        name = self._name()
        self._expect("=")
        self._add(message, Field(name=name, number=self._number(), type=kind, label=label, oneof=oneof))
        self._skip()

    def _group(self, label: str, oneof: str, scope: str, message: Message, depth: int) -> None:
        at, name = self.at, self._name()
        self._expect("=")
        number = self._number()
        self._add(message, Field(name=name.lower(), number=number, type=name, label=label, oneof=oneof, group=True))
        while self._peek() != "{":
            self._next()
        self.tokens[self.at - 1] = self.tokens[at]  # its body is that of a message of its name
        self.at -= 1
        self._message(scope, depth + 1)

    def _map(self) -> str:
        self._expect("<")
        key = self._next()
        self._expect(",")
        value = self._next()
        self._expect(">")
        if key not in _KEYS:
            raise self._refuse(f"a map's key cannot be {key[:40]!r}")
        return f"map<{key},{value}>"

    def _add(self, message: Message, made: Field) -> None:
        if not 1 <= made.number <= FIELD_NUMBER_MAX:
            raise self._refuse(f"a field's number is 1 to {FIELD_NUMBER_MAX}, not {made.number}")
        if made.number in message.fields or any(each.name == made.name for each in message.fields.values()):
            raise self._refuse(f"field {made.name!r}, or its number {made.number}, is there twice")
        message.fields[made.number] = made

    def _enum(self, scope: str) -> None:
        name = _within(scope, self._name())
        if self.made.defines(name):
            raise self._refuse(f"{name!r} is defined twice")
        constants = self.made.enums[name] = {}
        self._expect("{")
        while (word := self._next()) != "}":
            if word in ("option", "reserved") and self._peek() != "=":
                self._skip()
            elif word != ";":
                self._expect("=")
                constants[word] = self._number()
                self._skip()


def _within(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _wrong(reason: str, line: int) -> Refusal:
    return invalid_schema(f"no .proto file: {reason} (line {line}).")
