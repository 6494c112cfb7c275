def run(name):
    # ok: shell
    subprocess.run(["tar", "-xf", name], check=True)
    # ruleid: shell
    subprocess.run(f"tar -xf {name}", check=True)
    # ruleid: shell
    subprocess.run(["tar", name], shell=True)
    # ruleid: shell
    os.system("tar")
    # ruleid: shell
    asyncio.create_subprocess_shell("tar")
