"""Leave results whose names would lead a careless reader elsewhere, or say more than a name should."""

import os

NAMES = (
    "..%2f..%2fescaped", "%2e%2e%2fescaped", "C:\\escaped", "..\\escaped", "-rf", "--help", "name; rm -rf .", "$(id)", "`id`", "a'b\"c",
    '"; filename="escaped', "<script>alert(1)<", "[bold]marked[", "\u202egnp.exe", "line\nend", "tab\tend", "\x1b[2Jcleared", "con", "nul", ".hidden",
    "...", "spaced name ", " spaced", "\u00e9", "e\u0301", "x" * 200, "{name}", "%s%n", "main.py", "qubix_job.py", "sitecustomize.py",
)  # fmt: skip
for name in NAMES:
    with open(os.path.join("/out", name), "w") as file:
        file.write("mine")
os.makedirs("/out/sub/..dots/.. ")
with open("/out/sub/..dots/.. /file", "w") as file:
    file.write("mine")
print("done", flush=True)
