# ok: ray-elsewhere
import arrays


def cluster():
    # ruleid: ray-elsewhere
    import ray
    # ruleid: ray-elsewhere
    from ray.util import state
    # ruleid: ray-elsewhere
    return importlib.import_module("ray.serve"), ray, state, arrays
