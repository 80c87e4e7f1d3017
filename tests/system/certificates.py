# SPDX-License-Identifier: Apache-2.0
"""Directories for tls_dir, by the openssl program."""
import os
import shutil
import subprocess
import unittest


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.PIPE, timeout=60)


def authority(folder):
    """A CA: ca-cert.pem, and its key, which no tls_dir needs."""
    os.makedirs(folder, exist_ok=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=test CA", "-addext", "basicConstraints=critical,CA:TRUE",
            "-keyout", f"{folder}/ca-key.pem", "-out", f"{folder}/ca-cert.pem")
    return folder


def certificate(folder, what, issuer, names="IP:127.0.0.1,IP:::1,DNS:localhost"):
    """what: server or client."""
    extensions = f"{folder}/{what}.ext"
    with open(extensions, "w") as f:
        f.write(f"basicConstraints=CA:FALSE\nsubjectAltName={names}\nextendedKeyUsage={what}Auth\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={what}",
            "-keyout", f"{folder}/{what}-key.pem", "-out", f"{folder}/{what}.csr")
    openssl("x509", "-req", "-in", f"{folder}/{what}.csr", "-CA", f"{issuer}/ca-cert.pem", "-CAkey",
            f"{issuer}/ca-key.pem", "-CAcreateserial", "-days", "1", "-extfile", extensions,
            "-out", f"{folder}/{what}-cert.pem")


def tls_dir(folder, **more):
    """All that both sides of a migration need."""
    authority(folder)
    for what in ("server", "client"):
        certificate(folder, what, folder, **more)
    return folder


class NeedsOpenssl(unittest.TestCase):
    """Tests that make certificates, in a directory of their own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not shutil.which("openssl"):
            raise unittest.SkipTest("there is no openssl to make certificates")

    def setUp(self):
        super().setUp()
        self.tls_dir = tls_dir(f"{self.dir}/tls")
