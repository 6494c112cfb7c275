"""Reach the platform's ports, the cluster's, PostgreSQL's, the cloud's metadata and the world: by TCP, by UDP, by name."""

import os
import socket
import urllib.request

import qubix_job
from attack import given, tried


def send(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outgoing:
        outgoing.settimeout(1)
        outgoing.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03org\x00\x00\x01\x00\x01", (host, 53))
        return host


for port in given["ports"]:
    for host in ("127.0.0.1", "::1", given["host"]):
        tried(f"{host}:{port}", lambda host=host, port=port: socket.create_connection((host, port), timeout=2))
# With all that the job was born with, as a key for the web layer.
for key in (*os.environ.values(), *qubix_job.params.values()):
    if key.isascii() and key.isprintable():
        request = urllib.request.Request(given["application"] + "/api/jobs", headers={"Authorization": f"Bearer {key[:200]}"})
        tried("web layer", lambda request=request: urllib.request.urlopen(request, timeout=2).status)
tried("interfaces", lambda: [name for _, name in socket.if_nameindex() if name not in ("lo", "tunl0", "sit0")], breach=bool)
if given["world"]:
    tried("name resolution", lambda: socket.gethostbyname("example.org"))
    for host in ("8.8.8.8", "255.255.255.255", "224.0.0.1", "169.254.169.254"):
        tried(f"datagram to {host}", lambda host=host: send(host))
    tried("metadata service", lambda: socket.create_connection(("169.254.169.254", 80), timeout=2))
    tried("metadata service, IPv6", lambda: socket.create_connection(("fd00:ec2::254", 80), timeout=2))
print("done")
