"""The elliptic curve FourQ (Costello and Longa, https://eprint.iacr.org/2015/565) in plain Python integers."""
