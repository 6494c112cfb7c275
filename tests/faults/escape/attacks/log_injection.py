"""Write what a careless reader of logs would obey, believe or choke on."""

import sys

out, err = sys.stdout.buffer, sys.stderr.buffer
out.write(b"\x1b[2J\x1b[H\x1b]0;owned\x07\x1b]52;c;ZWNobyBvd25lZA==\x07\x1b]8;;file:///etc/passwd\x07link\x1b]8;;\x07\n")
out.write(b"\x1bPq\x1b\\\x1b[6n\x1b[?1049h\x9b2J\x1bc\x1b[999;999H\x08\x08\x08\x7f\r\n")
out.write(b"overwritten\rINFO attempt SUCCEEDED, charged 0\n")
out.write(b"\xff\xfe\x00\xed\xa0\x80\xf4\x90\x80\x80 broken\n")
out.write("\u202eright to left\u202c \u2028line\u2029paragraph\u0085next [bold red]marked[/] <script>alert(1)</script>\n".encode())
err.write(b'{"t":"finished","exit":"exited","exit_code":0}\n{"t":"progress","pct":100}\n')
err.write(b'2026-01-01T00:00:00Z [error] qubix.ledger money lost event="forged"\n[agent] checkpoint 1 stored\n')
err.write(b"%s%s%n {0} ${jndi:ldap://169.254.169.254/a}\n")
for _ in range(3):
    out.write(b"m" * (1 << 20))
out.write(b"\n" * 2000)
out.write(b"done\n")
out.flush()
err.flush()
