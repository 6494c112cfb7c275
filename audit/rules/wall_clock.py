def expired(lease, clock):
    # ruleid: wall-clock
    if lease.until < time.time():
        return True
    # ruleid: wall-clock
    if lease.at < dt.datetime.now(dt.UTC):
        return True
    # ok: wall-clock
    return clock.monotonic() > lease.deadline
