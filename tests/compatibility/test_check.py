"""The checker of docs/nsq-compatibility.md finds what it has to find."""

import pathlib
import tempfile
import unittest

import check

RUST = """
#[test]
fn plain() {}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_runtime() {}

#[test]
#[should_panic(expected = "x")]
fn with_more_attributes() {}

#[test]
#[ignore = "slow"]
fn ignored() {}

// #[test]
// fn commented_out() {}

fn no_test() {}
"""

PYTHON = '''
"""words"""
def used(): yield "one case"
def unused(): pass
def used_elsewhere(): pass
class Tests:
    def test_it(self): pass
list(used())
'''


class Names(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.put("crates/a/tests/names.rs", RUST)
        self.put("crates/b/tests/names.rs", "#[test]\nfn plain() {}\n")
        self.put("tests/cases.py", PYTHON)
        self.put("tests/driver.py", "import cases\ncases.used_elsewhere()\n")
        self.put("tests/run", "# --commented\nprogram --all\n")
        self.put("tests/driver.go", "func (c *client) Run() {}\n")
        self.tree = check.Tree(self.root)

    def put(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def exists(self, *tests):
        for test in tests:
            self.assertIsNone(self.tree.fault(test), test)

    def is_none(self, *tests):
        for test in tests:
            self.assertIsNotNone(self.tree.fault(test), test)

    def test_rust(self):
        self.exists("names.rs::with_a_runtime", "a/tests/names.rs::plain", "crates/a/tests/names.rs::with_more_attributes")
        self.is_none("names.rs::ignored", "names.rs::commented_out", "names.rs::no_test", "names.rs::nowhere", "ames.rs::with_a_runtime", "other.rs::plain")

    def test_a_path_that_fits_two_tests_names_none(self):
        self.is_none("names.rs::plain")

    def test_python(self):
        self.exists("cases.py::used", "cases.py::used_elsewhere", 'cases.py::"one case"', "cases.py::test_it")
        self.is_none("cases.py::unused", 'cases.py::"words"', 'cases.py::"another case"')

    def test_programs(self):
        self.exists("tests/run::--all", "driver.go::Run")
        self.is_none("tests/run::--al", "tests/run::--commented", "tests/run", "driver.go::Walk")
        (self.root / "tests/run").chmod(0o755)
        self.exists("tests/run")


def table(*rows):
    traps = [f"| 10.{trap} | b | missing |" for trap in range(1, check.TRAPS + 1)]
    return "\n".join(["| | behaviour | shown by |", "|---|---|---|", *rows, *traps])


class Rows(unittest.TestCase):
    class Everything:
        """A tree in which every test exists."""

        def fault(self, test):
            return None

    def problems(self, text):
        rows, differences, problems = check.read_table(text)
        return problems + check.check(rows, differences, self.Everything())

    def test_states(self):
        rows, _, _ = check.read_table("| 1.1.1 | a \\| b | `x::y`, `z` |\n| 1.1.2 | `no::test` | missing |\n| 1.1.3 | c | `x::y`; missing: the rest |\n| 1.1.4 | d | not ours: clients |")
        self.assertEqual([row.state() for row in rows], ["shown", "missing", "partly shown", "not ours"])
        self.assertEqual(rows[0].tests, ["x::y", "z"])
        self.assertEqual(rows[2].missing, "the rest")
        self.assertEqual(check.counts(rows), "4 behaviours: 1 shown, 1 partly shown, 1 missing, 1 not ours; 0 of them differ on purpose; 2 tests are named")

    def test_a_whole_table_is_fine(self):
        self.assertEqual(self.problems(table("| 1.1.1 | a | `x::y` differs: D1 |") + "\n- **D1** why"), [])

    def test_what_is_wrong_is_said(self):
        for text in [
            table("| 1.1.1 | a | |"),
            table("| 1.1.1 | a | it works |"),
            table("| 1.1.1 | a | `x::y` | more |"),
            table("| 1.1.1 | a | `x::y`; missing |"),
            table("| 1.1.1 | a | not ours |"),
            table("| 1.1.1 | a | `x::y` |", "| 1.1.1 | b | `x::y` |"),
            table("| 1.1.1 | a | `x::y` differs: D1 |"),
            table() + "\n- **D1** nobody says so",
            table().replace("| 10.7 | b | missing |\n", ""),
        ]:
            self.assertEqual(len(self.problems(text)), 1, text)

    def test_a_missing_test_is_a_problem(self):
        with tempfile.TemporaryDirectory() as root:
            rows, differences, _ = check.read_table(table("| 1.1.1 | a | `x.rs::y` |"))
            self.assertEqual(check.check(rows, differences, check.Tree(root)), ["line 3: 1.1.1: x.rs::y: there is no file x.rs"])


if __name__ == "__main__":
    unittest.main()
