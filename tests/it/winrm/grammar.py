"""Whether PowerShell's grammar takes each of these files (tree-sitter's grammar: no PowerShell runs here)."""

import sys

import tree_sitter_powershell
from tree_sitter import Language, Parser

parser = Parser(Language(tree_sitter_powershell.language()))
wrong = []


def walk(node, path, source):
    if node.is_error or node.is_missing:
        line = node.start_point[0]
        wrong.append(f"{path}:{line + 1}: {source.splitlines()[line].decode()}")
    else:
        for child in node.children:
            walk(child, path, source)


for path in sys.argv[1:]:
    source = open(path, "rb").read()
    walk(parser.parse(source).root_node, path, source)
# A checker that finds nothing in nonsense is none.
if not parser.parse(b"if ($x { throw }").root_node.has_error:
    wrong.append("the grammar takes nonsense")
if wrong:
    raise SystemExit("\n".join(wrong))
print(f"{len(sys.argv) - 1} files are PowerShell")
