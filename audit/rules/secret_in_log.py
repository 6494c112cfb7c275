def greet(user, token):
    # ruleid: secret-in-log
    log.info("logged in", user=user, token=token)
    # ruleid: secret-in-log
    log.warning("refused", session_cookie=token)
    # ok: secret-in-log
    log.info("logged in", user=user, token_id=1)
