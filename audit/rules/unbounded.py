# ruleid: unbounded-queue
waiting = asyncio.Queue()
# ok: unbounded-queue
bounded = asyncio.Queue(100)
# ruleid: http-without-timeout
client = httpx.AsyncClient(base_url="x")
# ok: http-without-timeout
patient = httpx.AsyncClient(base_url="x", timeout=3)
