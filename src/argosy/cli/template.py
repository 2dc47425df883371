"""The part of Go's text/template that `--format` needs; pure, imported when --format is given.

Text is parsed once into closures, then rendered for each row. A fault is an
InvalidInput that points into the template. Left out: define, template, block,
break, continue. Source: pkg.go.dev/text/template; functions as the docker CLI has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import template_functions as functions
from . import template_tokens as tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from .template_tokens import Token

    Evaluate = Callable[["Scope"], Any]  # Any: a template's values are whatever the data holds
    Execute = Callable[["Scope", list[str]], None]

_DEEPEST = 50  # blocks and brackets inside each other; a person stops at three
_BLOCKS = frozenset({"if", "range", "with"})
_SHORT_CIRCUITS = ("and", "or")
_ELSEWHERE = frozenset({"define", "template", "block", "break", "continue"})


class Scope:
    """What a template sees while it is rendered: the dot, the variables, the functions."""

    def __init__(self, data: object, table: Mapping[str, Callable[..., Any]]) -> None:
        self.dot: Any = data
        self.functions = table
        #: [name, value], innermost last, as in Go
        self.variables: list[list[Any]] = [["$", data]]

    def find(self, name: str) -> list[Any]:
        return next(pair for pair in reversed(self.variables) if pair[0] == name)


class Template:
    """A parsed template. Raises InvalidInput (template-invalid) with the position of the fault."""

    def __init__(self, text: str) -> None:
        self._body = _Parser(text).whole()

    def render(self, data: object) -> str:
        """The text for *data*: mappings, lists, strings, numbers; callables are methods. Raises InvalidInput."""
        return self._run(Scope(data, functions.TABLE))

    def render_header(self, headers: Mapping[str, str]) -> str:
        """The heading line of `table …`: every field is its header, functions leave it alone."""
        return self._run(Scope({**headers, "Label": functions.label_header}, functions.HEADER_TABLE))

    def _run(self, scope: Scope) -> str:
        out: list[str] = []
        for execute in self._body:
            execute(scope, out)
        return "".join(out)


def unescaped(text: str) -> str:
    """What --format was given, with \\t and \\n as the characters they stand for (docker CLI does the same)."""
    return text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")


class _Parser:
    """Text to closures by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces = list(tokens.scan(text))
        self._place = 0  # in _pieces
        self._tokens: list[Token] = []
        self._at = 0  # in _tokens
        self._depth = 0
        self._declared = ["$"]

    # --- pieces to statements -------------------------------------------------------

    def whole(self) -> Sequence[Execute]:
        body, closing = self._block_body()
        if closing is not None:
            self._fail(f"{closing.text} without if, range or with", closing.start)
        return body

    def _block_body(self) -> tuple[Sequence[Execute], Token | None]:
        """Statements up to `end`, `else` or the end of the text, and the token that stopped it."""
        body: list[Execute] = []
        while self._place < len(self._pieces):
            piece = self._pieces[self._place]
            self._place += 1
            if isinstance(piece, str):
                if piece:
                    body.append(_literal(piece))
                continue
            self._tokens, self._at = piece, 0
            first = piece[0]
            if first.kind == "word" and first.text in ("end", "else"):
                self._at = 1
                return body, first
            body.append(self._statement(first))
        return body, None

    def _statement(self, first: Token) -> Execute:
        if first.kind == "word" and first.text in _ELSEWHERE:
            self._fail(f"{first.text} is not supported", first.start)
        if first.kind == "word" and first.text in _BLOCKS:
            self._at = 1
            return self._block(first)
        name, declares = self._assignment()
        value = self._pipeline()
        self._finish()
        if name is None:
            return _output(value)
        return self._store(name, value, declares=declares)

    def _store(self, name: Token, value: Evaluate, *, declares: bool) -> Execute:
        if declares:
            self._declared.append(name.text)
            return lambda scope, out: scope.variables.append([name.text, value(scope)])
        self._check_declared(name)

        def assign(scope: Scope, out: list[str]) -> None:
            scope.find(name.text)[1] = value(scope)

        return assign

    def _assignment(self) -> tuple[Token | None, bool]:
        """(`$name` before `:=` or `=`, whether it declares), or (None, False)."""
        here = self._tokens[self._at : self._at + 2]
        if len(here) == 2 and here[0].kind == "variable" and here[1].text in (":=", "="):
            self._at += 2
            return here[0], here[1].text == ":="
        return None, False

    def _block(self, opening: Token) -> Execute:
        """`if`, `range` or `with` up to its `end`."""
        self._deeper(opening)
        known = len(self._declared)
        names = self._range_names() if opening.text == "range" else []
        if not names:
            name, declares = self._assignment()
            names = [name.text] if name is not None and declares else []
        self._declared.extend(names)
        value = self._pipeline()
        self._finish()
        body, closing = self._block_body()
        otherwise: Sequence[Execute] = ()
        if closing is not None and closing.text == "else":
            otherwise, closing = self._otherwise()
        if closing is None:
            self._fail(f"{opening.text} without end", opening.start)
        self._finish()
        del self._declared[known:]
        self._depth -= 1
        fail = self._fail
        if opening.text == "range":
            return _range(value, names, body, otherwise, lambda why: fail(why, opening.start))
        return _choice(value, names, body, otherwise, changes_dot=opening.text == "with")

    def _otherwise(self) -> tuple[Sequence[Execute], Token | None]:
        """What follows `else`: a body up to `end`, or another block that shares our `end`."""
        if self._at < len(self._tokens) and self._tokens[self._at].text in ("if", "with"):
            opening = self._tokens[self._at]
            self._at += 1
            block = self._block(opening)
            return (block,), tokens.Token("word", "end", opening.start)
        self._finish()
        body, closing = self._block_body()
        if closing is not None and closing.text == "else":
            self._fail("a second else", closing.start)
        return body, closing

    def _range_names(self) -> list[str]:
        """`$index, $element :=` of a range."""
        here = self._tokens[self._at : self._at + 4]
        if [token.kind for token in here] != ["variable", "sign", "variable", "sign"]:
            return []
        if here[1].text != "," or here[3].text != ":=":
            return []
        self._at += 4
        return [here[0].text, here[2].text]

    def _finish(self) -> None:
        if self._at < len(self._tokens):
            self._fail(f"unexpected {self._tokens[self._at].text!r}", self._tokens[self._at].start)

    # --- pipelines ------------------------------------------------------------------

    def _pipeline(self) -> Evaluate:
        command = self._command(None)
        while self._at < len(self._tokens) and self._tokens[self._at].text == "|":
            self._at += 1
            command = self._command(command)
        return command

    def _command(self, piped: Evaluate | None) -> Evaluate:
        """One command: a value, or a function or method with its arguments; *piped* becomes the last of them."""
        if self._at >= len(self._tokens):
            self._fail("a value is missing", self._tokens[-1].end)
        head = self._tokens[self._at]
        if head.kind == "word" and head.text not in _CONSTANTS:
            self._at += 1
            return self._call(head, self._arguments(piped))
        operand = self._operand()
        arguments = self._arguments(piped)
        return self._method(head, operand, arguments) if arguments else operand

    def _arguments(self, piped: Evaluate | None) -> Sequence[Evaluate]:
        arguments = []
        while self._at < len(self._tokens) and self._tokens[self._at].text not in ("|", ")"):
            arguments.append(self._operand())
        return arguments if piped is None else [*arguments, piped]

    def _call(self, head: Token, arguments: Sequence[Evaluate]) -> Evaluate:
        name = head.text
        if name in _SHORT_CIRCUITS:
            return self._short_circuit(head, arguments)
        if name not in functions.TABLE:
            near = functions.near(name, [*functions.TABLE, *_SHORT_CIRCUITS])
            self._fail(f"there is no function {name!r}{near}", head.start)

        def call(scope: Scope) -> Any:
            values = [argument(scope) for argument in arguments]
            try:
                return scope.functions[name](*values)
            except functions.BadValue as error:
                self._fail(f"{name}: {error}", head.start)
            except TypeError:
                self._fail(f"{name} does not take these {len(values)} values", head.start)

        return call

    def _short_circuit(self, head: Token, arguments: Sequence[Evaluate]) -> Evaluate:
        """`and`, `or`: the first argument that decides; the rest is not looked at."""
        if not arguments:
            self._fail(f"{head.text} needs a value", head.start)
        decides = head.text == "or"

        def decide(scope: Scope) -> Any:
            value = None
            for argument in arguments:
                value = argument(scope)
                if bool(value) is decides:
                    break
            return value

        return decide

    def _method(self, head: Token, operand: Evaluate, arguments: Sequence[Evaluate]) -> Evaluate:
        def call(scope: Scope) -> Any:
            method = operand(scope)
            if not callable(method):
                self._fail(f"{head.text} takes no arguments", head.start)
            try:
                return method(*(argument(scope) for argument in arguments))
            except (TypeError, functions.BadValue):
                self._fail(f"{head.text} does not take these arguments", head.start)

        return call

    def _operand(self) -> Evaluate:
        """A literal, field, variable, constant or (pipeline), with the fields that are chained to it."""
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "word" and token.text not in _CONSTANTS:
            return self._call(token, ())
        value, end = self._base(token)
        while self._at < len(self._tokens):
            link = self._tokens[self._at]
            if link.kind != "field" or link.start != end:
                break
            self._at += 1
            end = link.end
            value = self._field(value, link)
        return value

    def _base(self, token: Token) -> tuple[Evaluate, int]:
        """(value, where it ends in the text) of the first part of an operand."""
        if token.kind == "field":
            return self._field(_dot, token), token.end
        if token.kind == "dot":
            return _dot, token.end
        if token.kind == "variable":
            self._check_declared(token)
            return (lambda scope: scope.find(token.text)[1]), token.end
        if token.text == "(":
            return self._bracketed(token)
        if token.kind in ("string", "char", "number") or token.text in _CONSTANTS:
            try:
                constant = _CONSTANTS[token.text] if token.kind == "word" else functions.literal(token.text)
            except functions.BadValue as error:
                self._fail(str(error), token.start)
            return (lambda scope: constant), token.end
        return self._fail(f"unexpected {token.text!r}", token.start)

    def _bracketed(self, opening: Token) -> tuple[Evaluate, int]:
        self._deeper(opening)
        value = self._pipeline()
        if self._at >= len(self._tokens):
            self._fail("this bracket is never closed", opening.start)
        closing = self._tokens[self._at]
        self._at += 1
        self._depth -= 1
        return value, closing.end

    def _field(self, value: Evaluate, token: Token) -> Evaluate:
        name = token.text[1:]

        def look_up(scope: Scope) -> Any:
            try:
                return functions.field(value(scope), name)
            except functions.BadValue as error:
                self._fail(str(error), token.start)

        return look_up

    def _check_declared(self, token: Token) -> None:
        if token.text not in self._declared:
            self._fail(f"undefined variable {token.text}", token.start)

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(f"more than {_DEEPEST} levels deep", token.start)

    def _fail(self, why: str, at: int) -> NoReturn:
        tokens.fail(self._text, why, at)


_CONSTANTS: Mapping[str, Any] = {"true": True, "false": False, "nil": None}


def _dot(scope: Scope) -> Any:
    return scope.dot


def _literal(text: str) -> Execute:
    return lambda scope, out: out.append(text)


def _output(value: Evaluate) -> Execute:
    return lambda scope, out: out.append(functions.shown(value(scope)))


def _choice(
    value: Evaluate, names: Sequence[str], body: Sequence[Execute], otherwise: Sequence[Execute], *, changes_dot: bool
) -> Execute:
    """`if` and `with`."""

    def choose(scope: Scope, out: list[str]) -> None:
        chosen, dot, known = value(scope), scope.dot, len(scope.variables)
        scope.variables.extend([name, chosen] for name in names)
        if chosen and changes_dot:
            scope.dot = chosen
        for execute in body if chosen else otherwise:
            execute(scope, out)
        scope.dot = dot
        del scope.variables[known:]

    return choose


def _range(
    value: Evaluate,
    names: Sequence[str],
    body: Sequence[Execute],
    otherwise: Sequence[Execute],
    fail: Callable[[str], NoReturn],
) -> Execute:
    def repeat(scope: Scope, out: list[str]) -> None:
        pairs = functions.pairs(value(scope))
        if pairs is None:
            fail("range needs a list or a map")
        dot, known = scope.dot, len(scope.variables)
        for key, element in pairs:
            scope.dot = element
            values = (key, element) if len(names) == 2 else (element,)
            scope.variables.extend([name, bound] for name, bound in zip(names, values, strict=False))
            for execute in body:
                execute(scope, out)
            del scope.variables[known:]
        scope.dot = dot
        for execute in () if pairs else otherwise:
            execute(scope, out)

    return repeat
