"""Qubic from its mathematics up: keys, identities, SchnorrQ signatures, transactions, QUTIL's send-many, wallet logins.

    subseed = keys.subseed_from_seed(keys.new_seed())
    source = keys.public_key_from_subseed(subseed)
    signed = Transaction(source, identity.decode(payee), amount, tick).signed_by(subseed)

Sources: FourQ by Costello and Longa (https://eprint.iacr.org/2015/565), SchnorrQ by the same (FourQlib's specification), K12 (RFC 9861),
the byte layouts of Qubic's core. All integers on the wire are little-endian. Nothing here is constant time: secrets are used in
the signer's process alone, on inputs whose timing nobody can choose or watch.
"""
