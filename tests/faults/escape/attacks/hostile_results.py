"""Leave links, devices, huge and odd files where results are collected from."""

import os
import socket

os.symlink("/etc/passwd", "a_link")
os.symlink("/", "b_folder_link")
os.mkfifo("c_fifo")
open("d_hard", "w").write("x")
os.link("d_hard", "d_hard_2")
try:
    os.link("/usr/bin/env", "e_outside")
    print("BREACH hard link to the system")
except OSError as error:
    print("held", error)
with open("f_sparse", "wb") as file:
    file.truncate(31 << 20)
with open("f_sparse_2", "wb") as file:
    file.truncate(31 << 20)
open("g_new\nline", "w").write("x")
open(b"h_\xff\xfe", "w").write("x")
deep = "deep"
for _ in range(30):
    deep += "/d"
os.makedirs(deep)
open(f"{deep}/file", "w").write("x")
socket.socket(socket.AF_UNIX).bind("i_socket")
os.mkdir("j_closed")
open("j_closed/file", "w").write("x")
os.chmod("j_closed", 0)
open("k_closed", "w").write("x")
os.chmod("k_closed", 0)
os.mkdir("good")
open("good/file.txt", "w").write("good")
print("done")
