"""Find the runner's secret in the environment, arguments or memory maps of any process."""

import glob

for kind in ("environ", "cmdline"):
    for path in glob.glob(f"/proc/[0-9]*/{kind}") + glob.glob(f"/proc/[0-9]*/task/*/{kind}"):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            continue
        print("BREACH" if b"TOP-SECRET" in content else "held", path, len(content))
print("done")
