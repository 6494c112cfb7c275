def read(path, sent):
    # ruleid: unpickled
    cloudpickle.loads(sent)
    # ruleid: unpickled
    torch.load(path)
    # ok: unpickled
    torch.load(path, weights_only=True)
    # ok: unpickled
    json.loads(sent)
