def spawn(url, token, path):
    # ruleid: secret-in-environment
    os.environ["QUBIX_DATABASE_URL"] = url
    # ok: secret-in-environment
    os.environ["QUBIX_DATABASE_URL_FILE"] = path
    # ok: secret-in-environment
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # ruleid: secret-in-environment
    subprocess.run(["x"], env={"PATH": "/bin", "RAY_AUTH_TOKEN": token})
    # ok: secret-in-environment
    subprocess.run(["x"], env={"PATH": "/bin", "RAY_AUTH_TOKEN_PATH": path})
    # ruleid: secret-in-environment
    ray.init(runtime_env={"env_vars": {"SIGNER_SEED": token}})
