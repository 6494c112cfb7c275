"""Touch 4 GiB."""

kept = []
for number in range(64):
    kept.append(bytearray(64 << 20))
    kept[-1][::4096] = b"x" * len(kept[-1][::4096])
    print("touched", (number + 1) * 64, flush=True)
print("BREACH memory")
