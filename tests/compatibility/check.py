#!/usr/bin/env python3
"""Checks that every test that docs/nsq-compatibility.md names is in the tree, and counts what is shown and what is not.

    check.py [--root DIR] [--missing]

A row of its tables is `| number | behaviour | shown by |`. The last cell names tests in backquotes and may say in words what no test shows:

    `tests/decoder.rs::commands_have_nsqs_bytes`   a Rust test
    `http_cases.py::paths`                         a Python function that is used in its folder, or a test case's method
    `http_cases.py::"HTTP/1.0 without Host"`       a string in Python: the name of one case
    `interop/run::--transport`                     a word in a shell script
    `nsqjs_suite/run`                              a program that is a test as a whole
    missing: what                                  no test shows this (all of the row if no test is named, otherwise this part)
    not ours: why                                  nothing of ours could show it, such as how a client is written
    differs: D3                                    it is different on purpose; the list of differences has D3

A path is the end of a file's path and has to fit one file only.
"""

import argparse
import ast
import os
import pathlib
import re
import sys
from dataclasses import dataclass, field

TABLE = "docs/nsq-compatibility.md"
# Section 10 of the list of behaviours has this many numbered traps; leaving one out must be noticed.
TRAPS = 55
FOLDERS = ["crates", "tests", "examples"]

NUMBER = re.compile(r"\d+(\.\d+)+")
DIFFERS = re.compile(r"differs: (D\d+(?:, D\d+)*)")
WORDS = re.compile(r"\b(missing|not ours)\b(:?)")
RUST_TEST = re.compile(r"#\[(?:\w+::)*test(?:\([^\]]*\))?\]\s*((?:#\[[^\]]*\]\s*)*)(?:pub(?:\([a-z]+\))? )?(?:async )?fn (\w+)")


@dataclass
class Row:
    """One behaviour."""

    number: str
    line: int
    behaviour: str
    tests: list = field(default_factory=list)
    differences: list = field(default_factory=list)
    # What of it no test shows; None if nothing is said.
    missing: str = None
    not_ours: str = None

    def state(self):
        if self.tests:
            return "partly shown" if self.missing is not None else "shown"
        if self.missing is not None:
            return "missing"
        return "not ours" if self.not_ours is not None else "empty"


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def read_row(number, line, behaviour, cell):
    row = Row(number, line, behaviour)
    row.tests = re.findall(r"`([^`]+)`", cell)
    words = re.sub(r"`[^`]+`", "", cell)
    row.differences = [name for names in DIFFERS.findall(words) for name in names.split(", ")]
    words = DIFFERS.sub("", words)
    found = list(WORDS.finditer(words))
    for at, word in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(words)
        text = words[word.end() : end].strip(" ;,.")
        if word.group(1) == "missing":
            row.missing = text
        else:
            row.not_ours = text
    return row


def read_table(text):
    """The rows, the names of the listed differences and what is wrong with the form."""
    rows, differences, problems = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        if listed := re.match(r"- \*\*(D\d+)\*\*", line):
            differences.append(listed.group(1))
        if not line.startswith("|"):
            continue
        parts = cells(line)
        if not parts or not NUMBER.fullmatch(parts[0]):
            continue
        if len(parts) != 3:
            problems.append(f"line {number}: {parts[0]} has {len(parts)} cells, not 3")
            continue
        rows.append(read_row(parts[0], number, parts[1], parts[2]))
    return rows, differences, problems


class Tree:
    """The files that may hold tests, and what is in them."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.files = [
            os.path.relpath(os.path.join(folder, name), self.root)
            for top in FOLDERS
            for folder, inner, names in os.walk(self.root / top)
            # What tools build or fetch is no part of the tree.
            if not inner.__setitem__(slice(None), [name for name in inner if name not in ("node_modules", "target", "__pycache__")])
            for name in names
        ]
        self.contents = {}

    def text(self, path):
        return (self.root / path).read_text(encoding="utf-8")

    def fault(self, test):
        """Why a named test is none; None if it is one."""
        path, colons, name = test.partition("::")
        ends = [file for file in self.files if file == path or file.endswith("/" + path)]
        if not ends:
            return f"there is no file {path}"
        if not colons:
            found = [file for file in ends if os.access(self.root / file, os.X_OK)]
            what = "program"
        else:
            found = [file for file in ends if name in self.names(file, name)]
            what = name
        if not found:
            return f"no {what} in {', '.join(ends)}"
        if len(found) > 1:
            return f"it is in {', '.join(found)}; say which"
        return None

    def names(self, path, name):
        if path.endswith((".rs", ".py", ".go")):
            if path not in self.contents:
                read = {".rs": rust_tests, ".py": python_names, ".go": go_functions}[os.path.splitext(path)[1]]
                self.contents[path] = read(self.text(path))
            names = self.contents[path]
            if path.endswith(".py"):
                called = self.called(os.path.dirname(path))
                names = {name for name in names if name[0] == '"' or name in called or name == "main" or name.startswith("test_")}
            return names
        lines = [line for line in self.text(path).splitlines() if not line.lstrip().startswith(("#", "//"))]
        return {name} if any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", line) for line in lines) else set()

    def called(self, folder):
        """What Python in a folder mentions: a function of which nobody speaks tests nothing."""
        if folder not in self.contents:
            names = set()
            for path in self.files:
                if os.path.dirname(path) == folder and path.endswith(".py"):
                    for node in ast.walk(ast.parse(self.text(path))):
                        if isinstance(node, ast.Name):
                            names.add(node.id)
                        elif isinstance(node, ast.Attribute):
                            names.add(node.attr)
            self.contents[folder] = names
        return self.contents[folder]


def python_names(text):
    """Functions, and texts in quotes."""
    nodes = list(ast.walk(ast.parse(text)))
    bodies = [node.body for node in nodes if isinstance(getattr(node, "body", None), list) and node.body]
    documentation = {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}
    functions = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation}
    return functions | {f'"{text}"' for text in texts}


def rust_tests(text):
    """Functions that the test runner calls: those that are ignored or commented out are none."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    return {name for attributes, name in RUST_TEST.findall(text) if "#[ignore" not in attributes}


def go_functions(text):
    return set(re.findall(r"^func (?:\([^)]*\) )?(\w+)\(", text, re.MULTILINE))


def check(rows, differences, tree):
    problems = []
    seen = {}
    for row in rows:
        where = f"line {row.line}: {row.number}"
        if row.number in seen:
            problems.append(f"{where} is also in line {seen[row.number]}")
        seen[row.number] = row.line
        if row.state() == "empty":
            problems.append(f"{where} names no test and does not say `missing`")
        if (row.missing == "" and row.tests) or row.not_ours == "":
            problems.append(f"{where} does not say what is missing or why it is not ours")
        problems += [f"{where}: {test}: {fault}" for test in row.tests if (fault := tree.fault(test))]
        problems += [f"{where}: there is no difference {name}" for name in row.differences if name not in differences]
    problems += [f"trap 10.{trap} has no row" for trap in range(1, TRAPS + 1) if f"10.{trap}" not in seen]
    used = {name for row in rows for name in row.differences}
    problems += [f"no row differs by {name}" for name in differences if name not in used]
    return problems


def counts(rows):
    states = [row.state() for row in rows]
    named = len({test for row in rows for test in row.tests})
    parts = [f"{states.count(state)} {state}" for state in ("shown", "partly shown", "missing", "not ours")]
    different = sum(bool(row.differences) for row in rows)
    return f"{len(rows)} behaviours: {', '.join(parts)}; {different} of them differ on purpose; {named} tests are named"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--missing", action="store_true", help="print what no test shows")
    options = parser.parse_args()
    rows, differences, problems = read_table((options.root / TABLE).read_text(encoding="utf-8"))
    problems += check(rows, differences, Tree(options.root))
    for problem in problems:
        print(f"{TABLE}: {problem}", file=sys.stderr)
    if options.missing:
        for row in rows:
            if row.missing is not None:
                print(f"{row.number} {row.state()}: {row.behaviour}{' -- not: ' * bool(row.missing)}{row.missing}")
    print(counts(rows))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
